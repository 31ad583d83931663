"""The results of a suite as one self-contained HTML page."""

import base64
import html
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from align_keras.evaluation import calibration, report
from align_keras.evaluation.metrics import chief, names_of_json, title_of
from align_keras.evaluation.tasks.result import outcomes_of
from align_keras.paths import AnyPath
from align_keras.wording import counted

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 66rem; margin: 2rem auto; padding: 0 1rem;
  color: #222; background: #fff; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin-top: 2.6rem; border-top: 1px solid #ccc;
  padding-top: 1rem; } h3 { font-size: 1rem; margin-bottom: .3rem; }
table { border-collapse: collapse; } td, th { padding: .15rem .9rem .15rem 0; text-align: left; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
svg text { font: 11px system-ui, sans-serif; fill: #444; } .note { color: #666; }
.parts { display: flex; flex-wrap: wrap; gap: 2rem; align-items: flex-start; }
img { max-width: 100%; height: auto; border: 1px solid #ddd; } pre { font-size: .85rem; }
"""
_MODEL, _CHANCE, _PAPER = "#4c72b0", "#999", "#c44e52"
# Maximum number of classes in a chart. With more, the best and the worst are shown.
_BARS = 40
# Sizes in pixels.
_BAR, _ROW, _NAMES, _PICTURE = 260, 17, 150, 1_500


def render(suite: Mapping[str, Any], folder: AnyPath) -> str:
    """The page as HTML.

    Args:
        suite: result of ``run_suite``.
        folder: folder of the tasks' pictures and outcomes.

    Returns:
        HTML, a string with embedded pictures.
    """
    name, model = html.escape(suite["suite"]), html.escape(suite["pretrained"])
    sections = [
        f"<h1>Suite {name}</h1>",
        f"<p>{model}: {counted(len(suite['results']), 'task')}.</p>",
        _legend(_heads([_columns(result) for result in suite["results"]])),
        _overview(suite["results"]),
        _not_run(suite["not_run"]),
        *(_section(index, result, folder) for index, result in enumerate(suite["results"])),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>Suite {name}: {model}</title><style>{_STYLE}</style></head>\n"
        f"<body>\n{''.join(sections)}\n</body></html>\n"
    )


def _legend(heads: list[str]) -> str:
    colours = {"model": _MODEL, "chance": _CHANCE, "paper": _PAPER}
    keys = " &ensp; ".join(f'<b style="color:{colours[own]}">&#9632;</b> {own}' for own in heads)
    return f"<p>{keys}</p>"


def _overview(results: list[dict[str, Any]]) -> str:
    rows = []
    columns = [_columns(result) for result in results]
    heads = _heads(columns)
    for index, (result, own) in enumerate(zip(results, columns, strict=True)):
        link = f'<td><a href="#task{index}">{html.escape(result["name"])}</a>'
        for row, metric in enumerate(chief(own["model"])):
            rows.append(_row("<td>" if row else link, metric, own, heads))
    return f"<table>{_head('<th>task', heads)}{''.join(rows)}</table>"


def _not_run(tasks: list[dict[str, str]]) -> str:
    if not tasks:
        return ""
    lines = "".join(
        f"<li>{html.escape(own['name'])}: not run: {html.escape(own['reason'])}" for own in tasks
    )
    return f"<ul class='note'>{lines}</ul>"


def _section(index: int, result: dict[str, Any], folder: AnyPath) -> str:
    """The section of a task: figures, charts and pictures."""
    columns = _columns(result)
    heads = _heads([columns])
    rows = "".join(_row("", metric, columns, heads) for metric in columns["model"])
    title, own = html.escape(result["title"]), html.escape(result["name"])
    parts = [
        f'<h2 id="task{index}">{own}</h2><p>{title}</p>',
        f"<p class='note'>{html.escape(result.get('remark', ''))}</p>",
        f"<table>{_head('', heads)}{rows}</table>",
        *(f"<pre class='note'>{html.escape(note.strip())}</pre>" for note in result["notes"]),
    ]
    outcomes = outcomes_of(folder / result["json"])
    charts = []
    if "label" in outcomes:
        charts.append(_class_bars(outcomes))
    if "confidence" in outcomes:
        charts.append(_calibration(outcomes))
    charts += [
        _ranks(way, outcomes[f"{way}_rank"]) for way in ("i2t", "t2i") if f"{way}_rank" in outcomes
    ]
    parts.append(f'<div class="parts">{"".join(charts)}</div>')
    parts += [_picture(folder / picture) for picture in result["pictures"]]
    return "".join(parts)


def _columns(result: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    heads = {"model": "metrics", "chance": "chance", "paper": "paper"}
    return {
        head: names_of_json(result.get(key) or {}, result["task"]) for head, key in heads.items()
    }


def _heads(columns: list[dict[str, dict[str, float]]]) -> list[str]:
    """The columns that contain figures."""
    return [head for head in ("model", "chance", "paper") if any(own[head] for own in columns)]


def _head(first: str, heads: list[str]) -> str:
    numbers = "".join(f'<th class="number">{own}' for own in heads)
    return f"<tr>{first}<th>metric{numbers}<th></tr>"


def _row(
    first: str, metric: str, columns: Mapping[str, Mapping[str, float]], heads: list[str]
) -> str:
    cells = "".join(
        f'<td class="number">{report.cell(metric, columns[head].get(metric))}' for head in heads
    )
    values = [columns[head].get(metric) for head in ("model", "chance", "paper")]
    bar = "" if metric.endswith(("rank", "pairs", "deviation")) else _bar(*values)
    return f"<tr>{first}<td>{html.escape(title_of(metric))}{cells}<td>{bar}</tr>"


def _bar(value: float | None, chance: float | None, paper: float | None) -> str:
    """A bar for the model's figure, with ticks for chance and the paper's figure."""
    wide = _BAR * min(1.0, max(0.0, value or 0.0))
    ticks = "".join(
        f'<rect x="{min(_BAR - 2.0, _BAR * own):.1f}" y="0" width="2" height="14" fill="{colour}"/>'
        for own, colour in ((chance, _CHANCE), (paper, _PAPER))
        if own is not None
    )
    return (
        f'<svg width="{_BAR}" height="14" role="img"><rect y="2" width="{_BAR}" height="10" '
        f'fill="#eee"/><rect y="2" width="{wide:.1f}" height="10" fill="{_MODEL}"/>{ticks}</svg>'
    )


def _class_bars(outcomes: Mapping[str, np.ndarray]) -> str:
    """The accuracy of each class, best first."""
    ranks = outcomes["rank"] if "rank" in outcomes else outcomes["knn_rank"]
    labels, names = outcomes["label"], outcomes["class_names"]
    count = np.bincount(labels, minlength=len(names))
    right = np.bincount(labels, ranks < 1, minlength=len(names))
    shown = np.flatnonzero(count)
    shares = right[shown] / count[shown]
    order = np.argsort(-shares, kind="stable")
    title = f"{counted(len(shown), 'class')}, best first"
    if len(order) > _BARS:
        order = np.concatenate([order[: _BARS // 2], order[-_BARS // 2 :]])
        title = f"the best and the worst {_BARS // 2} of {len(shown):,} classes"
    rows = []
    for place, (name, share, images) in enumerate(
        zip(names[shown][order], shares[order], count[shown][order], strict=True)
    ):
        y = place * _ROW
        label = html.escape(str(name) if len(name) < 23 else f"{name[:22]}…")
        rows.append(
            f'<text x="{_NAMES - 6}" y="{y + 12}" text-anchor="end">{label}</text>'
            f'<rect x="{_NAMES}" y="{y + 2}" width="{_BAR * share:.1f}" height="{_ROW - 4}" '
            f'fill="{_MODEL}"><title>{share:.1%} of {counted(int(images), "image")}</title></rect>'
            f'<text x="{_NAMES + _BAR * share + 5:.1f}" y="{y + 12}">{share:.0%}</text>'
        )
    size = f'width="{_NAMES + _BAR + 45}" height="{_ROW * len(order)}"'
    drawn = f'<svg {size} role="img">{"".join(rows)}</svg>'
    return f"<div><h3>Accuracy by class: {title}</h3>{drawn}</div>"


def _calibration(outcomes: Mapping[str, np.ndarray]) -> str:
    """Accuracy by confidence, as bars. Those of a calibrated model end on the diagonal."""
    right = outcomes["rank"] < 1
    bins = calibration.reliability(outcomes["confidence"], right)
    error = calibration.expected_error(bins)
    size, left = 240, 36
    wide = size / len(bins)
    parts = [f'<rect x="{left}" width="{size}" height="{size}" fill="#f6f6f6"/>']
    for index, own in enumerate(bins):
        if not own.count:
            continue
        tall = size * own.accuracy
        parts.append(
            f'<rect x="{left + index * wide + 1:.1f}" y="{size - tall:.1f}" width="{wide - 2:.1f}" '
            f'height="{max(tall, 1):.1f}" fill="{_MODEL}"><title>{counted(own.count, "image")}: '
            f"confidence {own.confidence:.1%}, accuracy {own.accuracy:.1%}</title></rect>"
        )
    parts.append(
        f'<line x1="{left}" y1="{size}" x2="{left + size}" y2="0" stroke="{_PAPER}"/>'
        f'<text x="{left}" y="{size + 14}">0</text>'
        f'<text x="{left + size}" y="{size + 14}" text-anchor="end">1</text>'
        f'<text x="{left + size / 2}" y="{size + 14}" text-anchor="middle">confidence</text>'
        f'<text x="{left - 5}" y="10" text-anchor="end">1</text>'
        f'<text x="{left - 5}" y="{size}" text-anchor="end">0</text>'
        f'<text transform="translate({left - 10} {size / 2}) rotate(-90)" text-anchor="middle">'
        "accuracy</text>"
    )
    drawn = f'<svg width="{left + size + 4}" height="{size + 20}" role="img">{"".join(parts)}</svg>'
    return (
        f"<div><h3>Calibration: expected error {error:.1%}</h3>{drawn}"
        f"<p class='note'>Mean confidence {outcomes['confidence'].mean():.1%}, accuracy "
        f"{right.mean():.1%}.<br>On the line, accuracy equals confidence.</p></div>"
    )


def _ranks(way: str, ranks: np.ndarray) -> str:
    """The fraction of queries whose first right answer is within each rank, on a log axis."""
    size, left, high = 240, 36, max(10, int(ranks.max()) + 1)
    at = np.unique(np.geomspace(1, high, 60).astype(int))
    shares = [float(np.mean(ranks < k)) for k in at]
    x = left + size * np.log(at) / np.log(high)
    line = " ".join(f"{a:.1f},{size - size * b:.1f}" for a, b in zip(x, shares, strict=True))
    marks = "".join(
        f'<text x="{left + size * np.log(k) / np.log(high):.1f}" y="{size + 14}" '
        f'text-anchor="middle">{k:,}</text>'
        for k in (10**power for power in range(len(str(high))))
        if k <= high
    )
    drawn = (
        f'<svg width="{left + size + 30}" height="{size + 20}" role="img">'
        f'<rect x="{left}" width="{size}" height="{size}" fill="#f6f6f6"/>'
        f'<polyline points="{line}" fill="none" stroke="{_MODEL}" stroke-width="2"/>{marks}'
        f'<text x="{left - 5}" y="10" text-anchor="end">100%</text>'
        f'<text x="{left - 5}" y="{size}" text-anchor="end">0</text></svg>'
    )
    title = {"i2t": "Image to text", "t2i": "Text to image"}[way]
    return f"<div><h3>{title}: recall by rank</h3>{drawn}</div>"


def _picture(path: AnyPath) -> str:
    """A picture embedded in the page, as JPEG, which is much smaller than PNG."""
    with path.open("rb") as file, Image.open(file) as picture:
        picture = picture.convert("RGB")
    picture.thumbnail((_PICTURE, 10 * _PICTURE))
    encoded = io.BytesIO()
    picture.save(encoded, "JPEG", quality=85)
    data = base64.b64encode(encoded.getvalue()).decode()
    name = html.escape(path.name)
    return f'<p><img alt="{name}" src="data:image/jpeg;base64,{data}"></p>'
