"""Converts raw pairs to shards from start to end; ``recipes/prepare_data.py`` runs it."""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from align_keras import errors, lazy, paths, progress, signals
from align_keras.data import shard_sets
from align_keras.data.examples import Example, ExampleSet
from align_keras.data.examples.columns import Columns, no_name
from align_keras.data.examples.image_files import ImageFolder
from align_keras.data.examples.opening import open_downloads
from align_keras.data.examples.table_columns import check_columns, values_of
from align_keras.data.examples.table_examples import TableExamples
from align_keras.data.preparation import filters, languages
from align_keras.errors import InputError, Place
from align_keras.wording import counted

if TYPE_CHECKING:
    from align_keras.data.preparation import judging, near_duplicates, single_machine
else:
    judging = lazy.Module("align_keras.data.preparation.judging")
    near_duplicates = lazy.Module("align_keras.data.preparation.near_duplicates")
    single_machine = lazy.Module("align_keras.data.preparation.single_machine")

# Number of rows in which to look for the caption columns.
_FIRST_ROWS = 1_000


@dataclasses.dataclass(frozen=True)
class Output:
    """Where the shards go, and which engine writes them; part of a command's settings.

    An InputError names the invalid field.
    """

    output: str
    """Path and prefix of the shards: ``DIR/train`` gives ``DIR/train-00000.tfrecord``."""
    shard_size: int = 4_096
    """Records per shard."""
    table_only: bool = False
    """Open no image: kept pairs are listed in ``OUTPUT-kept.jsonl``."""
    engine: Literal["single_machine", "beam"] = "single_machine"
    """Engine that applies the rules. The shards do not depend on it."""
    beam_options: tuple[str, ...] = ()
    """Options of the Beam pipeline."""

    def __post_init__(self) -> None:
        """Checks the values."""
        if self.shard_size < 1:
            raise InputError(f"must be at least 1, not {self.shard_size}", setting="shard_size")
        with errors.concerning("output"):
            shard_sets.check_output(self.output)
            # Beam also writes to other file systems, but it treats output names as patterns.
            if self.engine == "single_machine":
                paths.check_scheme(self.output)
            elif not paths.is_plain(self.output):
                raise InputError(
                    f"Beam reads {paths.PATTERN_CHARACTERS} in {self.output} as a pattern",
                    remedy="choose another name, or <engine>=single_machine",
                )


def prepare(
    source: ExampleSet,
    output: Output,
    rules: filters.Rules = filters.NO_RULES,
    *,
    evaluation_images: "near_duplicates.EvaluationImages | None" = None,
    is_unsafe: Callable[[Example], bool] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Reads raw pairs, applies the rules, and writes shards and a report.

    Args:
        source: images with captions, as returned by ``open_pairs``.
        output: where the shards go.
        rules: the rules; ``filters.Rules()`` are the paper's.
        evaluation_images: images whose near-duplicates are dropped.
        is_unsafe: returns whether an example is unsafe, in addition to ``Columns.unsafe``.
        seed: decides the order of the records.

    Returns:
        The report, as returned by ``filter_report.Tally.as_json``. It is also in
        ``OUTPUT-report.json`` and, with pictures, in ``OUTPUT-report.html``.

    Raises:
        InputError: if the source cannot be read, or the output already exists.
    """
    if rules.language:
        with errors.concerning("language"):
            languages.check_language(rules.language)
    preparation = judging.Preparation(
        source, rules, seed, evaluation_images, is_unsafe, output.table_only
    )
    with signals.explaining(lambda: _outcome(output)):
        return _run(preparation, output)


def _outcome(output: Output) -> str:
    """The result that a signal left, for the message."""
    if shard_sets.find_set(output.output):
        return "the shards are complete"
    return "nothing was written; run it again"


def _run(preparation: "judging.Preparation", output: Output) -> dict[str, Any]:
    if output.engine == "single_machine":
        return single_machine.prepare(preparation, output.output, output.shard_size)
    try:
        from align_keras.data.preparation import beam_engine
    except ImportError:
        raise InputError(
            "beam needs apache-beam", remedy="pip install 'align-keras[beam]'", setting="engine"
        ) from None
    with progress.working("running the pipeline"):
        return beam_engine.prepare(
            preparation, output.output, output.shard_size, output.beam_options
        )


def open_pairs(
    captions: str = "", images: str = "", source: str = "", columns: Columns | None = None
) -> ExampleSet:
    """Opens a table or raw pairs in the layout of their source, and checks the first rows.

    Args:
        captions: a table with one row per image.
        images: folder of the table's images; empty: the folder of the table.
        source: raw pairs to read instead of a table, as in ``opening.open_downloads``.
        columns: the column for each kind of content; by default ``Columns()``.

    Raises:
        InputError: if an argument is invalid; the error names it.
    """
    if bool(captions) == bool(source):
        problem = "there are two sources of pairs" if captions else "there is no source of pairs"
        remedy = "give either a table here or <source>"
        raise InputError(problem, remedy=remedy, setting="captions")
    if images:
        with errors.concerning("images"):
            ImageFolder(images)
    with errors.concerning("captions" if captions else "source"):
        columns = columns or Columns()
        found: ExampleSet
        if captions:
            check_columns(captions, columns, ("image", "captions"))
            found = TableExamples(captions, images, columns)
        else:
            found = open_downloads(source, columns)
        check_rows(found, captions or source, columns)
    return found


def check_rows(source: ExampleSet, name: str, columns: Columns) -> None:
    """Reads rows until one has captions and every column named by the user has been seen.

    Some rows may lack captions; they are counted later. A carried column, or the column that marks
    unsafe content, may be rare, so all rows are searched for it.

    Args:
        source: an opened source.
        name: the user's name for the source, for messages.
        columns: the columns with which it was opened.

    Raises:
        InputError: if there is no row, no row is selected, the first thousand rows have no caption
            field, or no row has a column named by the user.
    """
    missing = dict.fromkeys(columns.carried.items(), "carry")
    if columns.unsafe:
        missing["", columns.unsafe] = "unsafe_field"
    found: dict[str, None] = {}
    number = 0
    examples = (example for part in source.parts for example in source.read(part))
    for number, example in enumerate(examples, 1):
        found.update(dict.fromkeys(example.found))
        there = {*example.carried, *([""] if example.unsafe is not None else [])}
        missing = {item: setting for item, setting in missing.items() if item[0] not in there}
        has_captions = not found or any(name in found for name in columns.caption_names)
        if has_captions and not missing:
            return
        if not has_captions and number == _FIRST_ROWS:
            columns.check(found, Place(name), ("captions",), "field", of_users=())
    if not number:
        remedy = ""
        if columns.select:
            is_table = isinstance(source, TableExamples)
            remedy = values_of(name, columns.select) if is_table else ""
            remedy = remedy or "choose other values of <select>"
        raise InputError(
            "no row is selected" if columns.select else "no row in the data", Place(name), remedy
        )
    if columns.caption and found:
        columns.check(found, Place(name), ("captions",), "field", of_users=())
    for (_, column), setting in missing.items():
        problem = "every row is empty there"
        if found and column not in found:
            problem = no_name([column], found, "field")
        raise InputError(problem, Place(name, column=column), setting=setting)


def open_evaluation_images(
    data: ExampleSet, rules: filters.Rules, preset: str = ""
) -> "near_duplicates.EvaluationImages":
    """The evaluation images whose near-duplicates are to be dropped.

    Args:
        data: the images, as in ``examples.open_images``.
        rules: rules with the thresholds for near-duplicates.
        preset: an ``AlignDualEncoder`` whose image tower also compares images; empty to use hashes
            alone.

    Raises:
        InputError: if none of the images decodes, or the preset does not load.
    """
    images = near_duplicates.decodable_images(data)
    return near_duplicates.EvaluationImages(
        images, rules.max_hash_distance, preset, rules.max_cosine
    )


def summary(report: dict[str, Any], output: Output) -> str:
    """Lines of text: the pairs written, those dropped with reasons, and the list of these."""
    kept = f"{output.output}-kept.jsonl"
    written = kept if output.table_only else shard_sets.pattern_of(output.output)
    kept, total = report["pairs_out"], report["pairs_in"]
    lines = [
        f"{kept:,} of {counted(total, 'pair')} in {written}"
        if kept
        else f"none of {counted(total, 'pair')} was kept",
        *(f"left out {count:,}: {reason}" for reason, count in report["reasons"].items()),
    ]
    if turned := report["pairs_turned_upright"]:
        lines.append(f"turned upright according to EXIF: {turned:,}")
    if report["reasons"]:
        lines.append(f"dropped pairs are listed in {output.output}-left_out.jsonl")
    lines.append(f"report: {output.output}-report.html")
    if 0 < kept < total / 2:
        lines.append("more than half of the pairs were left out: read the report before you train")
    return "\n".join(lines)
