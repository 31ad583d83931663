"""The README of an exported model: its inputs and outputs, and how it was made."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from align_keras.export.signatures import MAX_CAPTION_BYTES
from align_keras.preprocessing.decoding.faults import MAX_PIXELS
from align_keras.version import __version__


def of_saved_model(
    model: Any,
    class_names: Sequence[str] | None,
    prompts: Sequence[str],
    fold_batch_norm: bool,
) -> str:
    """The Markdown card of a SavedModel.

    Args:
        model: an ``AlignDualEncoder`` with a preprocessor.
        class_names: the classes of ``classify``; None if there is no such signature.
        prompts: strings with ``{}`` for the class name.
        fold_batch_norm: whether the batch norms are folded into the kernels.
    """
    dim = model.backbone.projection_dim
    rows = [
        "| `encode_text` (also `serving_default`) | `captions`: string `(batch,)`, UTF-8 "
        f"| `text_embeddings`: float32 `(batch, {dim})` |",
        "| `encode_image` | `images`: string `(batch,)`, the bytes of JPEG, PNG, GIF, BMP or WebP "
        f"files | `image_embeddings`: float32 `(batch, {dim})`; `valid`: bool `(batch,)` |",
        "| `encode_pixels` | `images`: uint8 `(batch, height, width, 3)`, RGB, any size "
        f"| `image_embeddings`: float32 `(batch, {dim})` |",
    ]
    if class_names:
        rows.append(
            "| `classify` | `images`: as in `encode_image` | `probabilities`: float32 `(batch, "
            f"{len(class_names)})`, in the order of `assets/class_names.txt`; `best_class`: string "
            "`(batch,)`; `valid`: bool `(batch,)` |"
        )
    lines = [
        f"# {model.backbone.name}: ALIGN for TensorFlow Serving",
        "",
        "Embeds images and captions in one space (Jia et al., 2021, arXiv:2102.05918).",
        "",
        "| signature | input | outputs |",
        "|---|---|---|",
        *rows,
        "",
        "Embeddings have unit norm: similarity is their dot product. An image that does not "
        f"decode, or has over {MAX_PIXELS:,} pixels, has `valid` false, zeros and an empty "
        "`best_class`; the rest of the batch is not affected. Captions are read up to "
        f"{MAX_CAPTION_BYTES:,} bytes.",
        "",
        *_preprocessing(model),
        f"- softmax temperature: {float(model.temperature.numpy()):.5g}",
        f"- batch norm: {'folded into the kernels' if fold_batch_norm else 'as trained, frozen'}",
    ]
    if class_names:
        lines += [
            f"- `classify`: {len(class_names):,} classes, the mean embedding of these prompts: "
            + "; ".join(f"`{prompt}`" for prompt in prompts)
        ]
    return "\n".join([*lines, *_made_with(), ""])


def of_towers(model: Any, files: Sequence[str], quantize: str | None) -> str:
    """The Markdown card of two towers; ``files`` are the names of their files."""
    pre = model.preprocessor
    dim, size, length = model.backbone.projection_dim, pre.image_size, pre.sequence_length
    return "\n".join(
        [
            f"# {model.backbone.name}: the towers of ALIGN",
            "",
            "| file | inputs | output |",
            "|---|---|---|",
            f"| `{files[0]}` | `images`: float32 `(batch, {size}, {size}, 3)`, scaled "
            f"| `image_embeddings`: float32 `(batch, {dim})` |",
            f"| `{files[1]}` | `token_ids`, `segment_ids` (zeros), `padding_mask`: int32 "
            f"`(batch, {length})` | `text_embeddings`: float32 `(batch, {dim})` |",
            "",
            "Embeddings have unit norm: similarity is their dot product. The word pieces are "
            "numbered as in `vocabulary.txt`: [CLS], the caption's pieces, [SEP], then [PAD].",
            "",
            *_preprocessing(model),
            f"- weights: {quantize or 'float32'}",
            *_made_with(),
            "",
        ]
    )


def _preprocessing(model: Any) -> list[str]:
    pre = model.preprocessor
    how = "averaged, as Pillow does" if pre.antialias else "sampled"
    case = "lower-cased" if pre.lowercase else "cased"
    return [
        f"- images: stretched to {pre.resize_size} x {pre.resize_size} pixels (bilinear, {how}), "
        f"the centre {pre.image_size} x {pre.image_size} cut out, pixels x {pre.pixel_scale} + "
        f"{pre.pixel_offset}; "
        + ("turned upright by EXIF" if pre.upright else "as stored, whatever EXIF says")
        + "; transparent pixels on white",
        f"- captions: BERT's word pieces ({len(pre.vocabulary):,}), {case}, "
        f"{pre.sequence_length} at most with [CLS] and [SEP]",
        f"- parameters: {model.backbone.count_params():,}",
    ]


def _made_with() -> list[str]:
    return [
        "",
        f"Written by align-keras {__version__}, TensorFlow {tf.__version__}, "
        f"Keras {keras.__version__}.",
    ]
