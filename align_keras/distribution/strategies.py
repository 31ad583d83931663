"""Creates ``tf.distribute`` strategies by name, and finds the workers of a strategy."""

import functools
import json
import os
from typing import Any

import tensorflow as tf

from align_keras import signals
from align_keras.errors import InputError
from align_keras.wording import choose

STRATEGIES = ("auto", "cpu", "mirrored", "multi_worker", "tpu")


def make_strategy(name: str, tpu: str = "local") -> tf.distribute.Strategy:
    """Creates a strategy.

    Args:
        name: ``auto`` (all GPUs if there are any, else the CPU), ``cpu``, ``mirrored`` (every GPU
            of this machine; without GPUs, its logical CPU devices, if there are several),
            ``multi_worker`` (the machines in ``TF_CONFIG``) or ``tpu``.
        tpu: name or address of the TPU; ``local`` for the TPU of this machine.

    Raises:
        InputError: if the name is unknown or its hardware is absent.
    """
    if name not in STRATEGIES:
        raise InputError(f"unknown strategy {name!r}", remedy=choose(name, STRATEGIES))
    # These two come first, since they must precede anything that starts TensorFlow's runtime, such
    # as listing its devices.
    if name == "multi_worker":
        _check_tf_config()
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
        signals.take_back()
        return strategy
    if name == "tpu":
        strategy = _make_tpu_strategy(tpu)
        signals.take_back()
        return strategy
    gpus = tf.config.list_logical_devices("GPU")
    devices = gpus or tf.config.list_logical_devices("CPU")
    if name == "cpu" or (name == "auto" and not gpus):
        return tf.distribute.OneDeviceStrategy("CPU:0")
    if not gpus and len(devices) == 1:
        raise InputError("mirrored needs a GPU, and none was found", remedy="choose cpu")
    return mirrored_strategy(tuple(device.name for device in devices))


@functools.cache
def mirrored_strategy(devices: tuple[str, ...]) -> tf.distribute.MirroredStrategy:
    """The only ``MirroredStrategy`` of this process on these devices.

    A second one, for example of a notebook and of the recipe that it calls, would have collectives
    that collide with those of the first.
    """
    return tf.distribute.MirroredStrategy(list(devices))


def _check_tf_config() -> None:
    """Raises InputError unless ``TF_CONFIG`` names the workers and the index of this one."""
    try:
        config = json.loads(os.environ["TF_CONFIG"])
        task = config["task"]
        if task["type"] == "worker" and 0 <= task["index"] < len(config["cluster"]["worker"]):
            return
    except (KeyError, TypeError, json.JSONDecodeError):
        pass
    raise InputError(
        "multi_worker needs the variable TF_CONFIG",
        remedy="set TF_CONFIG on every machine, as in "
        '{"cluster": {"worker": ["host0:2222", "host1:2222"]}, '
        '"task": {"type": "worker", "index": 0}}',
    )


@functools.cache  # initialising the TPU again would erase its memory
def _make_tpu_strategy(tpu: str) -> tf.distribute.TPUStrategy:
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu)
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except (ValueError, RuntimeError, OSError, tf.errors.OpError) as error:
        # TensorFlow's own message dumps the op that its build lacks, or a request.
        raise InputError(
            f"no TPU answers at {tpu}",
            remedy="install the tpu extra on a TPU machine, or choose auto",
        ) from error
    return tf.distribute.TPUStrategy(resolver)


def is_on_cpu(strategy: Any) -> bool:
    """Whether the replicas of a strategy are CPUs."""
    try:
        devices = strategy.extended.worker_devices
    except RuntimeError:  # TensorFlow's default strategy, which uses a GPU if there is one
        return not tf.config.list_logical_devices("GPU")
    return all("CPU" in device.upper() for device in devices)


def is_on_tpu() -> bool:
    """Whether the current strategy is a ``TPUStrategy``."""
    return isinstance(tf.distribute.get_strategy(), tf.distribute.TPUStrategy)


def worker_place(strategy: Any) -> tuple[int, int]:
    """This process's index and the number of processes; 0 and 1 except for ``multi_worker``."""
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return 0, 1
    resolver = strategy.cluster_resolver
    return resolver.task_id, len(resolver.cluster_spec().as_dict()["worker"])


def share_of(strategy: Any, batch_size: int) -> int:
    """The number of examples of a batch that each replica gets.

    Raises:
        InputError: if the batch cannot be divided evenly.
    """
    replicas = strategy.num_replicas_in_sync
    if batch_size % replicas:
        raise InputError(
            f"{batch_size} cannot be divided among {replicas} replicas",
            remedy=f"choose a multiple of {replicas}",
        )
    return batch_size // replicas


def gather_from_workers(strategy: Any, number: int) -> list[int]:
    """Gathers one number from every worker, in the order of the workers; every worker must call it.

    Args:
        strategy: a strategy. If it is None or has a single worker, the result is only this number.
        number: a number of this worker, exact up to 2^53.
    """
    worker, workers = worker_place(strategy)
    if workers == 1:
        return [number]
    own = tf.one_hot(worker, workers, on_value=tf.constant(number, tf.float64), dtype=tf.float64)
    total = strategy.reduce("SUM", strategy.run(tf.function(lambda: tf.identity(own))), axis=None)
    # Each replica of a worker has added the worker's number.
    return [round(one) for one in total.numpy() / (strategy.num_replicas_in_sync / workers)]
