"""Turns raw pairs of images and alt-texts into shards for ``pretrain.py``.

    python recipes/prepare_data.py --captions=DIR/captions.jsonl --output=SHARDS/train
    python recipes/prepare_data.py --source='CRAWL/*.tar' --rules=paper --output=SHARDS/train
    python recipes/prepare_data.py --captions=all.csv --images=DIR --select split=val ...

Every pair that is left out is counted under the rule that it breaks, in a report with pictures.
"""

import dataclasses
import sys
from typing import Literal

from quiet_tensorflow import load_quietly

load_quietly()

import tqdm
import tyro

from align_keras.data.examples import sources
from align_keras.data.preparation import filter_report, filters, near_duplicates, single_machine
from align_keras.data.preparation.judging import Preparation

RuleName = Literal[tuple(filters.LIMITS)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrepareSettings:
    """Filters image-text pairs by the paper's rules, and packs them into TFRecord shards."""

    # === Source: a table, or what has its own layout ===
    captions: str = ""
    """Table with one row an image: .jsonl, .csv, .tsv or .parquet."""
    images: str = ""
    """Folder of the table's images. Empty: the table's own folder."""
    source: str = ""
    """In place of a table: a folder or quoted pattern of img2dataset's .tfrecord, .tar or
    .parquet files, or tfds:NAME, as in tfds:coco_captions@val for another split than train."""
    output: str
    """Path and start of the shards' names: DIR/train gives DIR/train-00000.tfrecord."""
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
    evaluation_images: str = ""
    """A folder of images, or a quoted pattern of shards, whose near-duplicates are dropped."""
    max_hash_distance: int | None = None
    """Bits of 64 in which the perceptual hashes of copies differ, at most; 4."""
    near_duplicate_model: str = ""
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


def main(settings, is_unsafe=None):
    """Reads, filters, writes shards, and reports.

    Args:
        settings: ``PrepareSettings``.
        is_unsafe: a function of a ``sources.Row`` that marks unsafe content, beside the field.
    """
    if settings.shard_size < 1:
        raise ValueError(f"--shard-size: must be at least 1, not {settings.shard_size}")
    rules = choose_rules(settings)
    source = open_source(settings)
    copies = open_evaluation_images(settings, rules)
    preparation = Preparation(source, rules, settings.seed, copies, is_unsafe, settings.table_only)
    report = run(preparation, settings)
    filter_report.write(report, settings.output)
    print_summary(report, settings)
    if not report["pairs_out"]:
        name = settings.captions or settings.source
        raise ValueError(f"{source_flag(settings)}: no pair of {name} could be packed")


def run(preparation, settings):
    """Runs the engine chosen; returns the report."""
    if settings.engine == "single_machine":
        return single_machine.prepare(
            preparation, settings.output, settings.shard_size, show_progress
        )
    try:
        from align_keras.data.preparation import beam_pipeline
    except ImportError:
        raise ValueError(
            "--engine: beam needs apache-beam; pip install 'align-keras[beam]'"
        ) from None
    return beam_pipeline.prepare(
        preparation, settings.output, settings.shard_size, settings.beam_options
    )


def open_evaluation_images(settings, rules):
    """The images whose near-duplicates are dropped, or None."""
    if not settings.evaluation_images:
        if settings.near_duplicate_model:
            raise ValueError("--near-duplicate-model: needs --evaluation-images")
        return None
    if settings.table_only:
        raise ValueError("--evaluation-images: --table-only opens no image to compare")
    return near_duplicates.EvaluationImages(
        near_duplicates.read_images(settings.evaluation_images),
        rules.max_hash_distance,
        settings.near_duplicate_model,
        rules.max_cosine,
    )


def choose_rules(settings):
    """The paper's rules or none, less those left out, with the thresholds given."""
    rules = filters.Rules() if settings.rules == "paper" else filters.NO_RULES
    changes = {filters.LIMITS[rule]: None for rule in settings.without}
    for field in dataclasses.fields(rules):
        if (given := getattr(settings, field.name, None)) is not None:
            changes[field.name] = given
    return dataclasses.replace(rules, **changes)


def source_flag(settings):
    """The flag that names the source."""
    return "--captions" if settings.captions else "--source"


def open_source(settings):
    """Opens the table or the source, and looks into its first rows."""
    if bool(settings.captions) == bool(settings.source):
        raise ValueError("--captions: give either a table here or --source")
    columns = sources.Columns(
        image=settings.image_column,
        archive=settings.archive_column,
        caption=settings.caption_column,
        unsafe=settings.unsafe_field,
        carry=settings.carry,
        select=settings.select,
    )
    if settings.captions:
        source = sources.TableSource(settings.captions, settings.images, columns)
    else:
        source = sources.open_source(settings.source, columns)
    name = settings.captions or settings.source
    sources.check_rows(source, f"{source_flag(settings)}={name}")
    return source


def show_progress(pairs, what):
    """Passes pairs on and shows how many."""
    return tqdm.tqdm(pairs, what, unit=" pairs", mininterval=0.5)


def print_summary(report, settings):
    """What went out, and what each rule removed."""
    kept, total = report["pairs_out"], report["pairs_in"]
    files = "kept.jsonl" if settings.table_only else "*.tfrecord"
    print(f"{kept:,} of {total:,} pairs in {settings.output}-{files}")
    for reason, count in report["reasons"].items():
        print(f"left out {count:,}: {reason}")
    if report["reasons"]:
        print(f"each one is listed in {settings.output}-left_out.jsonl")
    print(f"report: {settings.output}-report.html")


def parse(arguments):
    """The settings of a command line; what follows ``--`` is Beam's."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    settings = tyro.cli(PrepareSettings, description=__doc__, args=arguments[:end])
    beam_options = (*settings.beam_options, *arguments[end + 1 :])
    return dataclasses.replace(settings, beam_options=beam_options)


if __name__ == "__main__":
    try:
        main(parse(sys.argv[1:]))
    except (ValueError, OSError) as error:
        sys.exit(f"prepare_data.py: {error}")
    except KeyboardInterrupt:
        sys.exit("prepare_data.py: interrupted; nothing was written, run it again")
