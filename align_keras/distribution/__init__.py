"""Strategies by name, and what crosses replicas. What is computed from it is not here."""

from align_keras.distribution.replicas import gather_replicas, replica_place, sum_replicas
from align_keras.distribution.strategies import (
    STRATEGIES,
    check_same_step,
    make_strategy,
    mirrored_strategy,
    worker_place,
)

__all__ = [
    "STRATEGIES",
    "check_same_step",
    "gather_replicas",
    "make_strategy",
    "mirrored_strategy",
    "replica_place",
    "sum_replicas",
    "worker_place",
]
