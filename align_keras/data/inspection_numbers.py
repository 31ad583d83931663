"""Statistics of an inspection: spreads, fractions and repeats in columns."""

from typing import Any

import numpy as np

from align_keras.data import paper_rules


def spread_of(values: np.ndarray) -> dict[str, float] | None:
    """Quantiles and mean of the values; None if there are none."""
    if not len(values):
        return None
    names = ("min", "p5", "median", "p95", "max")
    quantiles = np.quantile(values, [0, 0.05, 0.5, 0.95, 1])
    return {name: float(value) for name, value in zip(names, quantiles, strict=True)} | {
        "mean": float(np.mean(values))
    }


def share_of(flags: np.ndarray) -> float:
    """The fraction of flags that are True; 0 if there are no flags."""
    return float(np.mean(flags)) if len(flags) else 0.0


def repeats_of(hashes: np.ndarray) -> dict[str, Any]:
    """Counts repeated values; 0 stands for an absent value and is ignored.

    Args:
        hashes: uint64, ``(records,)``.

    Returns:
        A dict of ``records`` (number that repeat an earlier one), ``most`` (records with the most
        frequent value), ``over_10`` (records whose value occurs more than 10 times; the paper drops
        such captions) and ``row`` (the first record with the most frequent value; None without
        repeats).
    """
    rows = np.flatnonzero(hashes)
    if not len(rows):
        return {"records": 0, "most": 0, "over_10": 0, "row": None}
    _, first, counts = np.unique(hashes[rows], return_index=True, return_counts=True)
    most = int(counts.max())
    return {
        "records": int(len(rows) - len(counts)),
        "most": most,
        "over_10": int(counts[counts > paper_rules.MAX_IMAGES_PER_CAPTION].sum()),
        "row": int(rows[first[counts == most].min()]) if most > 1 else None,
    }
