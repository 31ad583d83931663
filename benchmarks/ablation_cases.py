"""The cases of ``ablations.py``: the settings that each changes, and the paper's figures."""

import dataclasses
from collections.abc import Mapping
from typing import Any

#: Name of the case that changes nothing; every ablation contains it.
BASE = "base"
# COCO R@1 of B5 and BERT-base in per cent, image to text and text to image (sec. 6.1, table 9).
_PAPER_BASE = (51.7, 37.5)


@dataclasses.dataclass(frozen=True)
class Case:
    """A case of an ablation: how it differs from the base run."""

    axis: str
    label: str
    """The value, as the table and the figure show it."""
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Settings of pretrain.py."""
    groups: int = 1
    """Number of groups of a batch; pairs of different groups are not each other's negatives."""
    fixed_temperature: bool = False
    noise: float = 0.0
    """Share of the training captions that are swapped between images."""
    data_share: float = 1.0
    """Share of the training images."""
    paper: tuple[float, float] | None = None
    """The paper's figures, if the paper has this case."""

    @property
    def name(self) -> str:
        """The name in the files of its runs; ``base`` if the case changes nothing."""
        label = self.label.replace("/", "_of_").replace("%", "_percent")
        return f"{self.axis}-{label}" if self.changed() else BASE

    def changed(self) -> dict[str, Any]:
        """The changed values by name."""
        named = {field.name: field.default for field in dataclasses.fields(self)}
        others = ("groups", "fixed_temperature", "noise", "data_share")
        found = {name: getattr(self, name) for name in others}
        return {**self.settings, **{n: v for n, v in found.items() if v != named[n]}}


def axes_of(run):
    """The ablations by name, each a list of cases in the order of their values.

    Args:
        run: settings of the base run.
    """
    return {
        "width": _widths(run.model.projection_dim or 640),
        "negatives": [
            Case("negatives", "quarter", groups=4, paper=(48.7, 35.8)),
            Case("negatives", "half", groups=2, paper=(50.2, 37.0)),
            Case("negatives", "all", paper=_PAPER_BASE),
        ],
        "temperature": [
            _fixed(128, (52.2, 36.5)),
            _fixed(64, (52.2, 37.3)),
            _fixed(32, (39.6, 26.9)),
            _fixed(16),
            Case("temperature", "learned", paper=_PAPER_BASE),
        ],
        "noise": [Case("noise", f"{n:.0%}", noise=n) for n in (0.0, 0.1, 0.25, 0.5)],
        "data": [Case("data", f"{share:.0%}", data_share=share) for share in (0.25, 0.5, 1.0)],
        "batch": [_batch(run, factor) for factor in (0.25, 0.5, 1, 2)],
    }


def _widths(width):
    """The run's width divided by 8, 4, 2 and 1, as the paper divides its 640."""
    paper = {8: (42.0, 29.3), 4: (47.0, 34.4), 2: (50.3, 34.1), 1: _PAPER_BASE}
    return [
        Case(
            "width",
            str(width // part),
            {} if part == 1 else {"projection_dim": width // part},
            paper=figures,
        )
        for part, figures in paper.items()
    ]


def _fixed(denominator, paper=None):
    settings = {"initial_temperature": 1 / denominator}
    return Case("temperature", f"1/{denominator}", settings, fixed_temperature=True, paper=paper)


def _batch(run, factor):
    """Another batch size, with steps such that the total number of pairs stays the same."""
    size = int(run.run.batch_size * factor)
    settings = {
        "batch_size": size,
        "steps": round(run.run.steps / factor),
        "warmup_steps": round(run.optimizer.warmup_steps / factor),
    }
    return Case("batch", str(size), {} if factor == 1 else settings)
