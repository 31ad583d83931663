"""Turns raw pairs of images and alt-texts into shards for ``pretrain.py``.

    python recipes/prepare_data.py --captions=DIR/captions.jsonl --output=SHARDS/train
    python recipes/prepare_data.py --source='CRAWL/*.tar' --rules=paper --output=SHARDS/train
    python recipes/prepare_data.py --captions=all.csv --images=DIR --select split=val ...

Every pair that is left out is counted under the rule that it breaks, in a report with pictures.
"""

import os

os.environ["ALIGN_KERAS_IMPORT"] = "lazy"  # flags are read without TensorFlow

import dataclasses
import sys
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import align_keras
from align_keras import errors, paths
from align_keras.data.examples.columns import Columns
from align_keras.data.examples.table_columns import check_columns
from align_keras.data.preparation import filters
from align_keras.runs import command, next_steps

RuleName = Literal[tuple(filters.LIMITS)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrepareSettings:
    """Filters image-text pairs by the paper's rules, and packs them into TFRecord shards."""

    # === Source: a table, or what has its own layout ===
    captions: Annotated[str, paths.FILES] = ""
    """Table with one row an image: .jsonl, .csv, .tsv or .parquet."""
    images: Annotated[str, paths.FILES] = ""
    """Folder of the table's images. Empty: the table's own folder."""
    source: Annotated[str, paths.DATA] = ""
    """In place of a table: a folder or quoted pattern of img2dataset's .tfrecord, .tar or
    .parquet files, or tfds:NAME, as in tfds:coco_captions@val for another split than train."""
    output: Annotated[str, paths.FILES]
    """Path and start of the shards' names: DIR/train gives DIR/train-00000.tfrecord. With
    --engine=beam also below gs://."""
    image_column: str = "image"
    """Column with an image's path, relative to the folder."""
    archive_column: str = "archive"
    """Column with the name of a zip in the folder that holds the image; may be absent."""
    caption_column: str = ""
    """Column with the caption, or a list of captions. Empty: the first there is of captions,
    caption, txt and text."""
    select: tuple[str, ...] = ()
    """Keep only the rows with these values, as in: --select split=train."""
    carry: tuple[str, ...] = ()
    """Columns to copy into the records, as COLUMN or FIELD=COLUMN: class_name=type copies type
    as class_name, which zero-shot evaluation reads."""

    # === Rules (sec. 3) ===
    rules: Literal["none", "paper"] = "none"
    """The paper's rules, or none but those named below."""
    without: tuple[RuleName, ...] = ()
    """Rules of the paper to leave out, as in: --without small_image."""
    min_words: int | None = None
    """Unigrams of a caption, at least; 3 in the paper."""
    max_words: int | None = None
    """Unigrams of a caption, at most; 20 in the paper."""
    max_images_per_caption: int | None = None
    """Images that may share an alt-text; 10 in the paper."""
    frequent_ngrams: int | None = None
    """Most frequent unigrams and bigrams, which captions may consist of; 100 million in the
    paper."""
    max_captions_per_image: int | None = None
    """Alt-texts that an image may have; 1,000 in the paper."""
    min_side_above: int | None = None
    """Pixels that the shorter side must exceed; 200 in the paper."""
    max_aspect_below: float | None = None
    """What the longer over the shorter side must stay below; 3 in the paper."""
    language: str | None = None
    """ISO 639-1 code, such as en, of the captions to keep."""
    unsafe_field: str = ""
    """Column or field that marks unsafe content: above 0.5, true or NSFW."""

    # === Near-duplicates of evaluation images (app. A) ===
    evaluation_images: Annotated[str, paths.DATA] = ""
    """A folder of images, or a quoted pattern of shards, whose near-duplicates are dropped."""
    max_hash_distance: int | None = None
    """Bits of 64 in which the perceptual hashes of copies differ, at most; 4."""
    near_duplicate_model: Annotated[str, paths.PRESET] = ""
    """Preset whose image tower compares images too, as the paper does. Empty: hashes alone."""
    max_cosine: float | None = None
    """Cosine of embeddings above which two images are near-duplicates; 0.975 in the paper."""

    # === Output ===
    table_only: bool = False
    """Open no image: the pairs that the rules keep are listed in OUTPUT-kept.jsonl with their
    url and caption, such as for img2dataset to download."""
    shard_size: int = 4_096
    """Records a shard."""
    seed: int = 0
    """Decides the order of the records."""
    engine: Literal["single_machine", "beam"] = "single_machine"
    """What runs it: this machine, or Apache Beam; the shards are the same."""
    beam_options: tuple[str, ...] = ()
    """Options of the Beam pipeline, such as --runner=DataflowRunner; what follows -- at the end of
    the command are more of them."""


def main(settings: PrepareSettings) -> None:
    """Reads, filters, writes shards, and reports."""
    from align_keras.data import shard_sets
    from align_keras.data.preparation import preparing
    from align_keras.runs.presets import check_model

    output = preparing.Output(
        settings.output,
        settings.shard_size,
        settings.table_only,
        settings.engine,
        settings.beam_options,
    )
    rules = choose_rules(settings)
    columns = choose_columns(settings)
    # Before TensorFlow loads: missing files are reported at once.
    evaluation_images = open_evaluation_images(settings)
    if settings.near_duplicate_model:
        with errors.concerning("near_duplicate_model"):
            check_model(settings.near_duplicate_model)
    source = preparing.open_pairs(settings.captions, settings.images, settings.source, columns)
    align_keras.load()
    images = None
    if evaluation_images is not None:
        with errors.concerning("evaluation_images"):
            images = preparing.open_evaluation_images(
                evaluation_images, rules, settings.near_duplicate_model
            )
    name = "captions" if settings.captions else "source"
    with errors.concerning(name):
        report = preparing.prepare(
            source, output, rules, evaluation_images=images, seed=settings.seed
        )
        print(preparing.summary(report, output))
        if not report["pairs_out"]:
            raise errors.InputError(f"no pair of {getattr(settings, name)} could be packed")
    if not settings.table_only:
        shards = shard_sets.pattern_of(settings.output)
        next_steps.show(
            next_steps.recipe("inspect_data.py", data=shards),
            next_steps.recipe("pretrain.py", train_data=shards, workdir="runs/photos"),
        )


def choose_columns(settings: PrepareSettings) -> Columns:
    """The names of the table's columns."""
    return Columns(
        image=settings.image_column,
        archive=settings.archive_column,
        caption=settings.caption_column,
        unsafe=settings.unsafe_field,
        carry=settings.carry,
        select=settings.select,
    )


def choose_rules(settings: PrepareSettings) -> filters.Rules:
    """The paper's rules or none, less those left out, with the thresholds given."""
    base = filters.Rules() if settings.rules == "paper" else filters.NO_RULES
    names = {field.name for field in dataclasses.fields(base)}
    given = {name: getattr(settings, name) for name in names if hasattr(settings, name)}
    return base.but(settings.without, **given)


def open_evaluation_images(settings: PrepareSettings) -> Any:
    """The images whose near-duplicates are dropped, or None."""
    from align_keras.data import examples

    if not settings.evaluation_images:
        if settings.near_duplicate_model:
            raise errors.InputError(
                "there are no images to compare",
                remedy="give <evaluation_images> too",
                setting="near_duplicate_model",
            )
        return None
    with errors.concerning("evaluation_images"):
        if settings.table_only:
            raise errors.InputError(
                "no image is opened to compare", remedy="leave out <table_only> or this"
            )
        return examples.open_images(settings.evaluation_images)


def parse(arguments: Sequence[str] | None = None) -> PrepareSettings:
    """The settings of a command line; what follows ``--`` is Beam's.

    Checks the columns of a table, before TensorFlow loads.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    end = arguments.index("--") if "--" in arguments else len(arguments)
    settings = command.parse(PrepareSettings, arguments[:end], description=__doc__)
    columns = choose_columns(settings)
    # Other machines are asked later: that takes TensorFlow.
    if settings.captions and not paths.is_remote(settings.captions):
        with errors.concerning("captions"):
            check_columns(settings.captions, columns, ("image", "captions"))
    beam_options = (*settings.beam_options, *arguments[end + 1 :])
    return dataclasses.replace(settings, beam_options=beam_options)


if __name__ == "__main__":
    command.run("prepare_data.py", parse, main)
