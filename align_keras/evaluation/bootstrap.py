"""Bootstrap intervals of metrics that are means over queries, as pure functions on arrays."""

import dataclasses
import re
from collections.abc import Mapping, Sequence

import numpy as np

from align_keras import progress
from align_keras.evaluation.metrics import RECALL_AT

_RANKS = re.compile(r"(.+_)?rank")


@dataclasses.dataclass(frozen=True)
class Hits:
    """Which queries were answered correctly."""

    right: np.ndarray
    """Bool, ``(queries,)``."""
    groups: np.ndarray
    """Integers, ``(queries,)``. Queries of one group, such as the captions of one image, are drawn
    together, since their outcomes are correlated.
    """

    @property
    def mean(self) -> float:
        """The mean over the queries, which is the metric."""
        return float(np.mean(self.right))


def hits_of(outcomes: Mapping[str, np.ndarray]) -> dict[str, Hits]:
    """The hits of every metric that is a mean over queries.

    Args:
        outcomes: as in ``Result.outcomes``. ``i2t_rank`` gives ``i2t_recall_at_1`` and so on,
            ``rank`` gives ``top_1`` and ``top_5``, and an array of bools gives the metric of its
            name.
    """
    found = {}
    for name, values in outcomes.items():
        way = name.removesuffix("rank")
        groups = outcomes.get(f"{way}group", np.arange(values.size))
        if name == "rank":
            found |= {f"top_{k}": Hits(values < k, groups) for k in (1, 5)}
        elif _RANKS.fullmatch(name):
            found |= {f"{way}recall_at_{k}": Hits(values < k, groups) for k in RECALL_AT}
        elif values.dtype == bool:
            found[name] = Hits(values, outcomes.get(f"{name}_group", groups))
    return found


def bootstrap_means(
    right: np.ndarray, groups: np.ndarray | Sequence[int], samples: int = 1_000, seed: int = 0
) -> np.ndarray:
    """Means over bootstrap samples of queries, with groups drawn with replacement.

    Args:
        right: values, ``(queries,)`` or ``(runs, queries)``. All runs get the same samples.
        groups: integers, ``(queries,)``.
        samples: number of samples.
        seed: decides the samples.

    Returns:
        ``(samples,)`` or ``(runs, samples)``.
    """
    _, places = np.unique(groups, return_inverse=True)
    values = np.atleast_2d(np.asarray(right, float))
    sums = np.stack([np.bincount(places, row) for row in values])
    sizes = np.bincount(places)
    rng = np.random.default_rng(seed)
    means = np.empty((len(values), samples))
    for sample in progress.watch(range(samples), "bootstrapping", "sample", samples):
        drawn = rng.integers(0, len(sizes), len(sizes))
        means[:, sample] = sums[:, drawn].sum(axis=1) / sizes[drawn].sum()
    return means if np.ndim(right) == 2 else means[0]


def interval(means: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """The percentile interval of bootstrap samples, ``(samples,)``."""
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
