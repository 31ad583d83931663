r"""Converts raw pairs of images and alt-texts to shards for ``pretrain.py``.

    python recipes/prepare_data.py --captions=DIR/captions.jsonl \
        --output=SHARDS/train
    python recipes/prepare_data.py --captions=all.csv --images=DIR \
        --select split=val --output=SHARDS/val
    python recipes/prepare_data.py --source='CRAWL/*.tar' --rules=paper \
        --output=SHARDS/train

A report with pictures shows how many pairs each rule dropped.
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
from align_keras.runs.settings import COMMON, Heading

RuleName = Literal[tuple(filters.LIMITS)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrepareSettings:
    """Filters image-text pairs by the paper's rules, and packs them into TFRecord shards."""

    captions: Annotated[str, paths.FILES, COMMON, Heading("source")] = ""
    """Table with one row per image: .jsonl, .csv, .tsv or .parquet."""
    images: Annotated[str, paths.FILES, COMMON] = ""
    """Folder of the table's images. Empty: the folder of the table."""
    source: Annotated[str, paths.DATA, COMMON] = ""
    """Source instead of a table: a folder or quoted pattern of img2dataset's .tfrecord, .tar or
    .parquet files; or tfds:NAME, with a split as in tfds:coco_captions@val (default: train)."""
    output: Annotated[str, paths.FILES]
    """Path prefix of the shards: DIR/train gives DIR/train-00000.tfrecord. With --engine=beam it
    may be gs://..."""
    image_column: str = "image"
    """Column with the path of the image, relative to --images."""
    archive_column: str = "archive"
    """Column with the name of the zip file in --images that contains the image. Tables without zip
    files need no such column."""
    caption_column: Annotated[str, COMMON] = ""
    """Column with one caption or a list of captions. Empty: the first of captions, caption, txt and
    text that the table has."""
    select: Annotated[tuple[str, ...], COMMON] = ()
    """Use only the table rows with these values, such as --select split=train."""
    carry: tuple[str, ...] = ()
    """Columns to copy into the records, as COLUMN or FIELD=COLUMN. Example: class_name=type copies
    the column type into the field class_name, which zero-shot evaluation reads."""

    rules: Annotated[Literal["none", "paper"], COMMON, Heading("rules (sec. 3)")] = "none"
    """paper: apply all rules of the paper. none: apply only the rules whose flags below are
    given."""
    without: Annotated[tuple[RuleName, ...], COMMON] = ()
    """Rules of the paper to leave out, such as --without small_image."""
    min_words: int | None = None
    """Minimum number of words (unigrams) in a caption; 3 in the paper."""
    max_words: int | None = None
    """Maximum number of words (unigrams) in a caption; 20 in the paper."""
    max_images_per_caption: int | None = None
    """Maximum number of images that share an alt-text; 10 in the paper."""
    frequent_ngrams: int | None = None
    """Drop captions with a unigram or bigram that is rare: not among this number of the data's most
    frequent ones. 100 million in the paper."""
    max_captions_per_image: int | None = None
    """Maximum number of alt-texts of one image; 1,000 in the paper."""
    min_side_above: int | None = None
    """The shorter side of an image must be longer than this, in pixels; 200 in the paper."""
    max_aspect_below: float | None = None
    """The ratio of the longer to the shorter side must be below this; 3 in the paper."""
    language: str | None = None
    """Keep only captions in this language, given as an ISO 639-1 code such as en."""
    unsafe_field: str = ""
    """Column or field that marks unsafe content. Pairs are dropped if it is above 0.5, true or
    NSFW."""

    evaluation_images: Annotated[str, paths.DATA, COMMON, Heading("near-duplicates (app. A)")] = ""
    """A folder of images, or a quoted pattern of shards. Training images that nearly duplicate one
    of them are dropped."""
    max_hash_distance: int | None = None
    """Two images are near-duplicates if their 64-bit perceptual hashes differ in at most this many
    bits. None: 4."""
    near_duplicate_model: Annotated[str, paths.PRESET] = ""
    """Preset whose image tower also compares images, as in the paper. Empty: only hashes."""
    max_cosine: float | None = None
    """Two images are near-duplicates if the cosine of their embeddings is above this; 0.975 in the
    paper."""

    table_only: Annotated[bool, Heading("output")] = False
    """Open no images and write no shards: list the kept pairs in OUTPUT-kept.jsonl with url and
    caption, for example to download the images with img2dataset.
    """
    shard_size: int = 4_096
    """Records per shard."""
    seed: int = 0
    """Random seed of the order of the records."""
    engine: Literal["single_machine", "beam"] = "single_machine"
    """Engine that applies the rules: this machine or Apache Beam. Both write the same shards."""
    beam_options: tuple[str, ...] = ()
    """Options of the Beam pipeline, such as --runner=DataflowRunner. Options can also follow -- at
    the end of the command."""


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
    if not paths.is_remote(settings.output):
        shard_sets.check_can_begin(settings.output)
    rules = choose_rules(settings)
    columns = choose_columns(settings)
    # This runs before TensorFlow loads, so that missing files are reported at once.
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
        kept = report["pairs_out"], report["pairs_in"]
        next_steps.show(*next_steps.of_packing(settings.output, *kept))


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
    """The rules to apply, with the given thresholds."""
    base = filters.Rules() if settings.rules == "paper" else filters.NO_RULES
    names = {field.name for field in dataclasses.fields(base)}
    given = {name: getattr(settings, name) for name in names if hasattr(settings, name)}
    return base.but(settings.without, **given)


def open_evaluation_images(settings: PrepareSettings) -> Any:
    """The evaluation images whose near-duplicates are dropped, or None."""
    from align_keras.data import examples

    if not settings.evaluation_images:
        if settings.near_duplicate_model:
            raise errors.InputError(
                "there are no evaluation images to compare with",
                remedy="give <evaluation_images> too",
                setting="near_duplicate_model",
            )
        return None
    with errors.concerning("evaluation_images"):
        if settings.table_only:
            raise errors.InputError(
                "cannot be compared with, since no image is opened",
                remedy="leave out this flag or <table_only>",
            )
        return examples.open_images(settings.evaluation_images)


def parse(arguments: Sequence[str] | None = None) -> PrepareSettings:
    """Reads the flags; arguments after ``--`` are options of Beam.

    Checks the columns of a table before TensorFlow loads.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    end = arguments.index("--") if "--" in arguments else len(arguments)
    settings = command.parse(PrepareSettings, arguments[:end], description=__doc__)
    columns = choose_columns(settings)
    # Remote paths are checked later, since they need TensorFlow.
    if settings.captions and not paths.is_remote(settings.captions):
        with errors.concerning("captions"):
            check_columns(settings.captions, columns, ("image", "captions"))
    beam_options = (*settings.beam_options, *arguments[end + 1 :])
    return dataclasses.replace(settings, beam_options=beam_options)


if __name__ == "__main__":
    command.run("prepare_data.py", parse, main)
