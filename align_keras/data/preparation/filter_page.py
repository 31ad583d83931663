"""The report of the rules as one self-contained HTML page."""

import html
from typing import Any

from align_keras.wording import counted

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
  color: #222; background: #fff; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
table { border-collapse: collapse; } td, th { padding: .2rem .8rem .2rem 0; text-align: left; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
tr.total td { border-top: 1px solid #999; font-weight: 600; }
.bar { background: #c44e52; height: .8rem; display: inline-block; }
.pairs { display: flex; flex-wrap: wrap; gap: .8rem; }
figure { margin: 0; width: 9.4rem; font-size: .8rem; }
figure.matched { width: 13rem; }
figure .frame { height: 96px; display: flex; align-items: center; justify-content: center;
  gap: 4px; background: #f3f3f3; }
figcaption { overflow-wrap: anywhere; } .place { color: #777; }
svg text { font: 10px system-ui, sans-serif; fill: #444; }
"""


def render(report: dict[str, Any]) -> str:
    """The page as HTML.

    Args:
        report: a dict as returned by ``filter_report.Tally.as_json``.

    Returns:
        HTML, a string with embedded pictures.
    """
    before, after = report["pairs_in"], report["pairs_out"]
    broken = [rule for rule in report["rules"] if rule["pairs"]]
    sections = [
        f"<h1>{after:,} of {counted(before, 'pair')} kept</h1>",
        _rules_table(report),
        _turned(report["pairs_turned_upright"]),
        "<h2>Unigrams of a caption</h2>",
        _histogram(report["caption_words"]),
        "<h2>Shorter side of the images, pixels</h2>",
        "<p>Images of pairs that a rule of the table dropped before were not opened.</p>"
        if any(not entry["size"] for rule in broken for entry in rule["examples"])
        else "",
        _histogram(report["shorter_side_pixels"]),
        f"<h2>Kept: {after:,}</h2>",
        _figures(report["kept_examples"]),
    ]
    for rule in broken:
        sections.append(f"<h2>{_title(rule, report['thresholds'])}: {rule['pairs']:,}</h2>")
        sections.append(_figures(rule["examples"]))
    body = "\n".join(sections)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>Pairs kept and dropped</title><style>{_STYLE}</style></head>\n"
        f"<body>\n{body}\n</body></html>\n"
    )


def _title(rule: dict[str, Any], thresholds: dict[str, Any]) -> str:
    limit = thresholds.get(rule.get("limit") or "")
    limit = "" if limit is None else f" ({limit:,})" if isinstance(limit, int) else f" ({limit})"
    return html.escape(f"{rule['drops'].capitalize()}{limit}")


def _rules_table(report: dict[str, Any]) -> str:
    """A table of the rules in order: the pairs that each drops, and the pairs left."""
    left = report["pairs_in"]
    rows = [f'<tr><td>pairs in<td><td class="number">{left:,}<td><td></tr>']
    for rule in report["rules"]:
        left -= rule["pairs"]
        share = rule["pairs"] / max(1, report["pairs_in"])
        dropped = f"{rule['pairs']:,}" if rule["applied"] else "not applied"
        rows.append(
            f"<tr><td>{_title(rule, report['thresholds'])}"
            f'<td class="number">{dropped}<td class="number">{left:,}'
            f'<td class="number">{share:.1%}'
            f"<td>{_share_bar(share)}</tr>"
        )
    rows.append(f'<tr class="total"><td>went out<td><td class="number">{left:,}<td><td></tr>')
    numbers = "".join(f'<th class="number">{head}' for head in ("dropped", "left", "share"))
    heads = f"<tr><th>rule{numbers}<th></tr>"
    return (
        "<p>Every rule sees the unfiltered data; a pair is counted under the first rule that "
        f"it breaks.</p>\n<table>{heads}{''.join(rows)}</table>"
    )


def _share_bar(share: float) -> str:
    """A bar at least one pixel wide; no bar for a share of 0."""
    if not share:
        return ""
    return f'<span class="bar" style="width:max(1px, {12 * share:.2f}rem)"></span>'


def _turned(count: int) -> str:
    return f"<p>EXIF turns the images of {count:,} kept pairs upright.</p>" if count else ""


def _histogram(bins: list[dict[str, int]]) -> str:
    """Grey bars for the input, and blue bars over them for the output."""
    highest = max((entry["in"] for entry in bins), default=0)
    if not highest:
        return "<p>None.</p>"
    width, height = 30, 120
    parts = []
    for index, entry in enumerate(bins):
        for count, colour in ((entry["in"], "#d5d5d5"), (entry["out"], "#4c72b0")):
            if not count:
                continue
            # Even the smallest count stays visible.
            tall = max(1.0, height * count / highest)
            parts.append(
                f'<rect x="{index * width + 2}" y="{height - tall:.1f}" width="{width - 4}" '
                f'height="{tall:.1f}" fill="{colour}"><title>{count:,}</title></rect>'
            )
        label = f"{entry['from']}{'+' if index == len(bins) - 1 else ''}"
        parts.append(
            f'<text x="{index * width + width / 2}" y="{height + 13}" text-anchor="middle">'
            f"{label}</text>"
        )
    total = width * len(bins)
    return (
        f'<svg width="{total}" height="{height + 20}" role="img">{"".join(parts)}</svg>'
        "<p>Grey: came in, blue: went out; the numbers are the bins' lower bounds, and the highest "
        f"bar is {counted(highest, 'pair')}.</p>"
    )


def _figures(examples: list[dict[str, Any]]) -> str:
    figures = []
    for example in examples:
        size = " x ".join(map(str, example["size"])) + " px, " if example["size"] else ""
        notes = f"{size}{example['where']}"
        if "reason" in example:
            notes = f"{example['reason']}; {notes}"
        is_matched = "matches" in example
        if is_matched:
            notes = f"right: the evaluation image that it matches; {notes}"
        figures.append(
            f"<figure{' class=matched' if is_matched else ''}>{_frame(example)}<figcaption>"
            f"{html.escape(str(example['caption'] or '(no caption)'))}"
            f'<div class="place">{html.escape(notes)}</div></figcaption></figure>'
        )
    return f'<div class="pairs">{"".join(figures)}</div>'


def _frame(example: dict[str, Any]) -> str:
    """A pair's picture, with the one that it matches if any; empty without a picture."""
    names = {"thumbnail": "", "matches": "the evaluation image"}
    pictures = [
        f'<img alt="{alt}" src="data:image/jpeg;base64,{example[name]}">'
        for name, alt in names.items()
        if example.get(name)
    ]
    return f'<div class="frame">{"".join(pictures)}</div>' if pictures else ""
