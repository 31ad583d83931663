"""An ``Inspection`` for people: errors and warnings, a table, a picture of sampled pairs."""

import textwrap
from typing import Any

from align_keras import figures
from align_keras.data.inspection import REFUSED, SKIPPED
from align_keras.paths import AnyPath
from align_keras.preprocessing import thumbnails
from align_keras.wording import counted, rate

_TITLES = {"width": "width, pixels", "height": "height, pixels"}
_TITLES |= {"shorter_side": "shorter side, pixels", "bytes": "file, bytes"}

# Of the picture: inches, and the number of 8-point characters per line.
_CELL, _TITLE, _CAPTION_LINE = 2.3, 0.25, 32


def problems(
    report: dict[str, Any], max_unusable: float, resize_size: int, sequence_length: int
) -> tuple[list[str], list[str]]:
    """Judges a report.

    Args:
        report: report from an ``Inspection``.
        max_unusable: largest acceptable fraction of unusable records.
        resize_size: side of the resized images, in pixels.
        sequence_length: number of word pieces to which a caption is trimmed, with [CLS] and [SEP].

    Returns:
        ``(errors, warnings)``, lists of lines. With an error, a run would fail at its start or
        learn from damaged data.
    """
    errors, notes = [], []
    for kind in REFUSED:
        for example in report["faults"][kind]["examples"]:
            errors.append(example if kind == "not a pair" else f"{example}: {kind}")
        if more := report["faults"][kind]["count"] - len(report["faults"][kind]["examples"]):
            errors.append(f"{more:,} more: {kind}")
    skipped = sum(report["faults"][kind]["count"] for kind in SKIPPED)
    share = skipped / max(report["records"], 1)
    if skipped:
        line = f"{skipped:,} of {report['records']:,} records ({share:.2%}) are unusable"
        if share > max_unusable:
            errors.append(f"{line}, more than {max_unusable:.2%}; write the shards again")
        else:
            notes.append(f"{line}; training skips them")
    notes += _repeat_notes(report)
    for what, part in report["shares"].items():
        if part >= 0.0005:
            notes.append(f"the paper's filter would drop {part:.1%}: {what}")
    if (sides := report["images"]["shorter_side"]) and sides["median"] < resize_size:
        notes.append(
            f"half of the images have a side below {resize_size} pixels and would be enlarged in "
            f"a training with resize_size={resize_size}; a smaller one trains faster"
        )
    pieces = report["captions"].get("word_pieces")
    if pieces and pieces["p95"] + 2 > sequence_length:
        notes.append(
            f"at least one caption in twenty is trimmed: it has over {sequence_length - 2} word "
            "pieces"
        )
    return errors, notes


def _repeat_notes(report: dict[str, Any]) -> list[str]:
    repeats, notes = report["repeats"], []
    if count := repeats["pair"]["records"]:
        notes.append(f"{counted(count, 'record')} with the image and caption of another record")
    if count := repeats["images_under_several_ids"]:
        notes.append(
            f"{counted(count, 'record')} with an image that also occurs under another image_id "
            "or none: each copy is a negative of the other's caption"
        )
    if count := repeats["caption"]["over_10"]:
        notes.append(
            f"the paper's filter would drop {counted(count, 'record')} with a caption that occurs "
            "more than 10 times"
        )
    return notes


def format_summary(report: dict[str, Any]) -> str:
    """The lines of a report by an ``Inspection``, with ``images_per_second`` if it was measured."""
    extent = "all" if report["complete"] else "the first of each shard"
    lines = [
        f"{report['records']:,} records in {counted(report['shards'], 'shard')} ({extent}), "
        f"{report['usable']:,} usable",
        "",
        f"{'':<24}{'min':>9}{'5 %':>9}{'median':>9}{'95 %':>9}{'max':>9}",
    ]
    for part in ("images", "captions"):
        for name, spread in report[part].items():
            if spread:
                title = _TITLES.get(name, name.replace("_", " "))
                form = ",.2f" if name == "aspect_ratio" else ",.0f"
                numbers = (spread[key] for key in ("min", "p5", "median", "p95", "max"))
                lines.append(f"{title:<24}" + "".join(f"{n:>9{form}}" for n in numbers))
    lines += ["", f"{'repeats':<24}{'records':>9}{'most':>9}"]
    for kind in ("pair", "image", "caption", "image_id"):
        found = report["repeats"][kind]
        example = ""
        if "example" in found:
            example = f"  {textwrap.shorten(found['caption'], 40)!r} ({found['example']})"
        lines.append(
            f"same {kind.replace('_', ' '):<19}{found['records']:>9,}{found['most']:>9,}{example}"
        )
    found = {kind: fault for kind, fault in report["faults"].items() if fault["count"]}
    lines += ["", "faults" if found else "no faults"]
    for kind, fault in found.items():
        lines.append(f"{fault['count']:>9,}  {kind}: {'; '.join(fault['examples'][:2])}")
    if turned := report["turned_upright"]:
        lines += ["", f"EXIF turns {counted(turned, 'image')} upright"]
    if "images_per_second" in report:
        # The sizes are named, since the speed depends on them.
        own = report["training_input"]
        lines += [
            "",
            f"training pipeline: {rate(report['images_per_second'], 1, 'images')}, images of "
            f"{own['image_size']} pixels, resized to {own['resize_size']}, {own['batch_size']:,} "
            "per batch",
        ]
    return "\n".join(lines)


def draw_sheet(path: str | AnyPath, samples: list[dict[str, Any]], columns: int = 6) -> None:
    """Draws pairs: each image in its aspect ratio, with its size above and its full caption below.

    Args:
        path: path of the PNG.
        samples: samples from an ``Inspection``.
        columns: pairs per row.
    """
    captions = [figures.wrap(pair["text"], _CAPTION_LINE) for pair in samples]
    starts = range(0, len(samples), columns)
    line = figures.line_height(8)
    heights = [
        _TITLE + _CELL + line * max(map(len, captions[start : start + columns])) + 0.2
        for start in starts
    ]
    figure, axes = figures.sheet(_CELL * min(columns, len(samples)), sum(heights))
    top = 0.0
    for start, height in zip(starts, heights, strict=True):
        for place in range(start, min(start + columns, len(samples))):
            pair, left = samples[place], _CELL * (place - start)
            size, middle = f"{pair['width']} x {pair['height']}", left + _CELL / 2
            figures.write(axes, [size], middle, top + 0.08, 7, color="grey", ha="center")
            picture = thumbnails.small_pixels(pair["jpg"], 400)
            figures.put(axes, picture, left + 0.1, top + _TITLE, _CELL - 0.2)
            figures.write(axes, captions[place], middle, top + _TITLE + _CELL, 8, ha="center")
        top += height
    figures.close_sheet(figure, axes, path)
