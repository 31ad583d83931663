"""The table and the figure of ``ablations.py``."""

import json

import numpy as np
from ablation_cases import BASE
from matplotlib.figure import Figure

from align_keras import figures, files

#: The metrics that are compared, with their titles.
METRICS = {"i2t_recall_at_1": "image to text", "t2i_recall_at_1": "text to image"}
_TITLES = {
    "width": "embedding width",
    "negatives": "share of the batch used as negatives",
    "temperature": "temperature",
    "noise": "noise: captions of other images",
    "data": "training images",
    "batch": "batch size, with the same number of pairs",
}


def write(axes, results, output):
    """Prints the table; writes it, ``results.json`` and the figure.

    Args:
        axes: lists of cases by the names of the ablations.
        results: dicts, as ``ablations.train`` returns them.
        output: a folder.
    """
    found = summary(results)
    table = format_table(axes, found)
    print(table)
    files.write_whole(output / "table.txt", table + "\n")
    files.write_whole(output / "results.json", json.dumps(found, indent=2) + "\n")
    draw(axes, found, output / "ablations.png")


def summary(results):
    """Mean and standard deviation over the seeds, by the names of cases and metrics.

    It is the sample standard deviation; None for a single run.
    """
    by_case = {}
    for result in results:
        by_case.setdefault(result["case"], []).append(result)
    return {
        name: {
            "runs": len(runs),
            "seconds": _spread([run["seconds"] for run in runs]),
            "temperature": _spread([run["temperature"] for run in runs]),
            **{m: _spread([run["metrics"][m] for run in runs]) for m in runs[0]["metrics"]},
        }
        for name, runs in by_case.items()
    }


def _spread(values):
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "deviation": deviation}


def format_table(axes, found):
    """Mean and standard deviation of R@1, and the paper's figures; ``*`` marks the base run."""
    lines = [
        f"{'R@1, %':<24}{'image to text':>16}{'text to image':>16}{'temperature':>14}"
        f"{'runs':>6}{'paper':>14}"
    ]
    for axis, cases in axes.items():
        for case in cases:
            if case.name in found:
                own = found[case.name]
                recalls = "".join(f"{_per_cent(own[name]):>16}" for name in METRICS)
                paper = "{:.1f} / {:.1f}".format(*case.paper) if case.paper else ""
                mark = " *" if case.name == BASE else ""
                lines.append(
                    f"{f'{axis} {case.label}{mark}':<24}{recalls}"
                    f"{own['temperature']['mean']:>14.4f}{own['runs']:>6}{paper:>14}".rstrip()
                )
    return "\n".join([*lines, "* the settings of the run"])


def _per_cent(value):
    deviation = value["deviation"]
    spread = "" if deviation is None else f" ± {100 * deviation:.1f}"
    return f"{100 * value['mean']:.1f}{spread}"


def draw(axes, found, path):
    """Draws R@1 and its standard deviation for each ablation; the paper's figures are dashed."""
    columns = min(3, len(axes))
    rows = -(-len(axes) // columns)
    figure = Figure(figsize=(4.4 * columns, 3.5 * rows), layout="constrained")
    plots = figure.subplots(rows, columns, squeeze=False, sharey=True).flat
    for plot in plots[len(axes) :]:
        plot.axis("off")
    for (axis, cases), plot in zip(axes.items(), plots, strict=False):
        cases = [case for case in cases if case.name in found]
        for place, (metric, title) in enumerate(METRICS.items()):
            _draw_metric(plot, cases, found, metric, place, title)
        plot.set(title=_TITLES[axis], xticks=range(len(cases)), ylabel="R@1, %")
        plot.set_xticklabels([case.label for case in cases])
        plot.margins(x=0.1)
        plot.grid(alpha=0.3)
    if axes:
        # After all are drawn: a limit also fixes the other end of the shared axis.
        plots[0].set_ylim(bottom=0)
        plots[0].legend(fontsize=8, loc="lower right")
    figures.save(figure, path)


def _draw_metric(plot, cases, found, metric, place, title):
    """Draws one direction; the paper's figures are scaled so that both base cases are equal."""
    own = [found[case.name][metric] for case in cases]
    means = [100 * one["mean"] for one in own]
    bars = [100 * (one["deviation"] or 0.0) for one in own]
    color = f"C{place}"
    plot.errorbar(range(len(cases)), means, bars, marker="o", capsize=4, color=color, label=title)
    bases = [row for row, case in enumerate(cases) if case.name == BASE]
    points = [(row, case.paper[place]) for row, case in enumerate(cases) if case.paper]
    if bases and points:
        scale = means[bases[0]] / cases[bases[0]].paper[place]
        rows, values = zip(*((row, scale * value) for row, value in points), strict=True)
        label = "the paper's, scaled to the same base" if place else None
        style = {"linestyle": "--", "marker": "x", "alpha": 0.6}
        plot.plot(rows, values, color=color, label=label, **style)
