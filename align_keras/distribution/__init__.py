"""Strategies by name, and communication between replicas. No losses, no layers."""

from align_keras.distribution.replicas import (
    GATHERINGS,
    form_of_gathering,
    gather_replicas,
    mean_of_replicas,
    on_a_share,
    place_of_rows,
    replica_place,
    sum_replicas,
)
from align_keras.distribution.strategies import (
    STRATEGIES,
    gather_from_workers,
    is_on_cpu,
    is_on_tpu,
    make_strategy,
    mirrored_strategy,
    share_of,
    worker_place,
)
from align_keras.distribution.workers import lost_workers

__all__ = [
    "GATHERINGS",
    "STRATEGIES",
    "form_of_gathering",
    "gather_from_workers",
    "gather_replicas",
    "is_on_cpu",
    "is_on_tpu",
    "lost_workers",
    "make_strategy",
    "mean_of_replicas",
    "mirrored_strategy",
    "on_a_share",
    "place_of_rows",
    "replica_place",
    "share_of",
    "sum_replicas",
    "worker_place",
]
