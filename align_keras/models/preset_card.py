"""The card of a model, ``README.md``: Markdown with a YAML header, as the hubs display it."""

import contextlib
import dataclasses
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from align_keras import checksums, files, paths
from align_keras.checksums import CARD, EARLIER_CARD
from align_keras.errors import InputError
from align_keras.paths import AnyPath
from align_keras.version import __version__

_TAGS = ("align", "arxiv:2102.05918", "tensorflow")
_NO_LICENCE = (
    "**No licence is set.** Until there is one, nobody else may use this model. Look at the terms "
    "of the training data and of the weights that it started from, then add a line such as "
    "`license: apache-2.0` to the head of this file."
)


@dataclasses.dataclass(frozen=True)
class Figure:
    """A metric on held-out data."""

    name: str
    """Name as in ``evaluation.metrics``, such as ``i2t_recall_at_1``."""
    title: str
    value: float
    chance: float | None = None


@dataclasses.dataclass(frozen=True)
class Origin:
    """The origin of a model, as far as its run knows it; empty fields are unknown."""

    license: str = ""
    """A licence identifier of Hugging Face's hub, such as ``apache-2.0``."""
    base_models: Sequence[str] = ()
    """Models on Hugging Face's hub that training started from, ``USER/MODEL``."""
    data: Sequence[str] = ()
    """Lines of Markdown."""
    training: Sequence[str] = ()
    """Lines of Markdown."""
    figures: Sequence[Figure] = ()
    held_out: str = ""
    """The data on which the figures were measured."""
    command: str = ""
    """The command that gives the figures."""
    date: str = ""
    """The date of the figures."""


def of_dual_encoder(model: Any, origin: Origin | None = None) -> str:
    """The Markdown card of an ``AlignDualEncoder``.

    Args:
        model: the model, with or without a preprocessor.
        origin: what is known about the training; None if nothing is known.
    """
    backbone, pre, origin = model.backbone, model.preprocessor, origin or Origin()
    limits = [
        "For search, zero-shot classification and as features, on images and captions like "
        "those of its training data. On other data, measure first.",
        "Captions carry prejudices, and a model learns them: do not use it to identify or judge "
        "people. Bias was not measured.",
        "A similarity is not a probability. Only compare similarities of the same model.",
    ]
    reads = []
    if pre is not None:
        limits.insert(
            1,
            f"Images are resized to {pre.image_size} x {pre.image_size} pixels, so small details "
            f"are lost. Captions are cut after {pre.sequence_length} word pieces.",
        )
        reads = [
            f"images of {pre.image_size} x {pre.image_size} pixels, stretched to "
            f"{pre.resize_size} x {pre.resize_size} first",
            f"captions of up to {pre.sequence_length} word pieces, from a vocabulary of "
            f"{len(pre.vocabulary):,}",
        ]
    return _render(
        _head("keras-hub", "zero-shot-image-classification", backbone.name, origin),
        backbone.name,
        "Embeds images and captions in one space: ALIGN (Jia et al., 2021, arXiv:2102.05918) in "
        "Keras 3 and TensorFlow, by align-keras.",
        [
            f"image tower: {backbone.image_encoder.count_params():,} parameters",
            f"text tower: {backbone.text_encoder.count_params():,} parameters",
            f"embeddings: {backbone.projection_dim} numbers, unit norm",
            f"temperature: {float(model.temperature.numpy()):.4g}",
            *reads,
        ],
        [
            "from align_keras import AlignDualEncoder",
            "",
            'model = AlignDualEncoder.from_preset("hf://USER/MODEL")  # or the folder of this file',
        ],
        limits,
        origin,
    )


def of_classifier(classifier: Any, name: str, origin: Origin) -> str:
    """The Markdown card of an ``AlignImageClassifier``.

    Args:
        classifier: the classifier with its preprocessor.
        name: name of the model.
        origin: what is known about the training.
    """
    size = classifier.preprocessor.image_size
    names = ", ".join(classifier.class_names[:20])
    more = ", ..." if len(classifier.class_names) > 20 else ""
    return _render(
        _head("keras", "image-classification", name, origin),
        name,
        "Classifies images: the image tower of ALIGN (Jia et al., 2021, arXiv:2102.05918) and a "
        "linear layer, in Keras 3 and TensorFlow, by align-keras.",
        [
            f"{classifier.count_params():,} parameters",
            f"{len(classifier.class_names):,} classes: {names}{more}",
            f"images of {size} x {size} pixels",
        ],
        [
            "import align_keras, keras",
            "",
            'classifier = keras.models.load_model("classifier.keras")',
        ],
        [
            "For photographs of these classes, like those of its training data. An image of "
            "another class is assigned to one of these.",
            "The softmax of the logits is not a calibrated probability.",
            "Bias was not measured: do not use it to identify or judge people.",
        ],
        origin,
    )


def _head(library: str, pipeline: str, name: str, origin: Origin) -> str:
    """The YAML header for the hubs, from Hugging Face's own writer."""
    # Not imported at the top: the import is slow, and few programs save a model.
    from huggingface_hub import EvalResult, ModelCardData

    results = [
        EvalResult(
            task_type=pipeline,
            dataset_type="held-out",
            dataset_name=origin.held_out or "held-out data",
            metric_type=figure.name,
            metric_name=figure.title,
            metric_value=round(figure.value, 4),
        )
        for figure in origin.figures
    ]
    return ModelCardData(
        library_name=library,
        license=origin.license or None,
        base_model=list(origin.base_models) or None,
        pipeline_tag=pipeline,
        tags=list(_TAGS),
        model_name=name,
        eval_results=results or None,
    ).to_yaml(line_break="\n")


def _render(
    head: str,
    name: str,
    what: str,
    parts: Sequence[str],
    load: Sequence[str],
    limits: Sequence[str],
    origin: Origin,
) -> str:
    unknown = ("Unknown: the model was saved without a run.",)
    licence = f"`{origin.license}`" if origin.license else _NO_LICENCE
    lines = [
        *("---", head.strip(), "---", f"# {name}", "", what, ""),
        *_items(parts),
        *("", "## Use", "", "```python", *load, "```"),
        *("", "## Data", "", *(_items(origin.data) or unknown)),
        *("", "## Training", "", *(_items(origin.training) or unknown)),
        *("", "## Figures", "", *_figures(origin)),
        *("", "## Limits and intended use", "", *_items(limits)),
        *("", "## Licence", "", licence, ""),
        f"Written by align-keras {__version__}, TensorFlow {tf.__version__}, "
        f"Keras {keras.__version__}. The text may be edited.",
    ]
    return "\n".join(lines) + "\n"


def _items(lines: Iterable[str]) -> list[str]:
    return [f"- {line}" for line in lines]


def _figures(origin: Origin) -> Iterator[str]:
    if not origin.figures:
        yield "None: nothing was evaluated."
        return
    yield f"{origin.held_out}, {origin.date}:"
    yield ""
    yield "| | model | chance |"
    yield "|---|---|---|"
    for figure in origin.figures:
        chance = "" if figure.chance is None else f"{figure.chance:.1%}"
        yield f"| {figure.title} | {figure.value:.1%} | {chance} |"
    if origin.command:
        yield from ("", "```", origin.command, "```")


def keep_edited(before: AnyPath, new: AnyPath) -> bool:
    """Keeps a copy of a card that the user has edited, before a new card replaces it.

    Args:
        before: the folder with the current card; it need not exist.
        new: the folder for the copy, ``EARLIER_CARD``: one that will replace ``before``, or
            ``before`` itself.

    Returns:
        Whether there was an edited card.
    """
    card, kept = before / CARD, before / EARLIER_CARD
    is_edited = card.is_file() and not _is_as_written(card)
    found = card if is_edited else kept
    if found.is_file() and found != new / EARLIER_CARD:
        files.write_whole(new / EARLIER_CARD, lambda copy: copy.write_bytes(found.read_bytes()))
    return is_edited


def _is_as_written(card: AnyPath) -> bool:
    text = card.read_bytes().decode(errors="replace")
    if text == sealed("".join(text.splitlines(keepends=True)[:-1])):
        return True
    # A card of an earlier version has no seal, but its checksum is in the list.
    with contextlib.suppress(InputError):  # the list of checksums is damaged
        listed = checksums.read(checksums.list_of(card.parent)) or {}
        return listed.get(CARD) == checksums.of_file(card)
    return False


def write(folder: Path, before: str | os.PathLike[str] | AnyPath, text: str) -> None:
    """Writes a card into a folder whose files will replace those of another folder.

    Args:
        folder: a new folder.
        before: the folder whose files will be replaced.
        text: text of the card.
    """
    keep_edited(paths.path_of(before), folder)
    (folder / CARD).write_text(sealed(text), encoding="utf-8")


def sealed(text: str) -> str:
    """A card's text with its own checksum in a comment at the end, which shows later edits.

    A checksum in another file could not: a process may be killed between writing the two.
    """
    return f"{text}<!-- SHA-256 of the text before this line: {_sha256(text)} -->\n"


def _sha256(text: str) -> str:
    return checksums.of_bytes(text.encode()).sha256
