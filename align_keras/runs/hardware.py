"""A description of the hardware of a run."""

import os
import platform
from pathlib import Path

import tensorflow as tf

from align_keras import distribution


def describe(strategy: tf.distribute.Strategy) -> str:
    """The devices of a strategy, such as ``Intel Xeon Processor, 2 cores``."""
    replicas = strategy.num_replicas_in_sync
    if isinstance(strategy, tf.distribute.TPUStrategy):
        return f"TPU, {replicas} cores"
    if not distribution.is_on_cpu(strategy):
        gpu, *_ = tf.config.list_physical_devices("GPU")
        name = tf.config.experimental.get_device_details(gpu).get("device_name", "GPU")
        return f"{replicas} x {name}"
    cores = f"{os.cpu_count()} cores" + (f", {replicas} replicas" if replicas > 1 else "")
    return f"{_processor()}, {cores}"


def _processor() -> str:
    """The name of the processor, which Python knows only on some systems."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next(iter(names), "") or platform.processor() or platform.machine()
