"""Finds out which of several workers no longer answer."""

import json
import os
import re
import socket
from typing import Any

import tensorflow as tf

# Errors of a step after a worker has ended. Ops that run beside the failing one are CANCELLED.
_LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
)
_TASK = re.compile(r"/job:worker/(?:replica:\d+/)?task:(\d+)")
_SECONDS_TO_ANSWER = 1.0


def lost_workers(error: Any) -> str:
    """Names the workers that are gone, if that is why TensorFlow failed.

    Args:
        error: an error raised by TensorFlow.

    Returns:
        For example ``worker 1 (host1:2222) is gone``; empty if there is only one worker, or the
        error has another reason.
    """
    try:
        config = json.loads(os.environ["TF_CONFIG"])
        addresses, own = config["cluster"]["worker"], config["task"]["index"]
    except (KeyError, TypeError, ValueError):
        return ""
    named = {int(number) for number in _TASK.findall(error.message)} - {own}
    # The name of an op includes the worker that runs it, so other errors may name a worker as well.
    if not isinstance(error, _LOST) or not (named or "ollective" in error.message):
        return ""
    others = [number for number in range(len(addresses)) if number != own]
    gone = [number for number in others if number in named]
    gone = gone or [number for number in others if not _answers(addresses[number])]
    listed = ", ".join(f"{number} ({addresses[number]})" for number in gone)
    if not listed:
        return "another worker is gone"
    return f"workers {listed} are gone" if len(gone) > 1 else f"worker {listed} is gone"


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _SECONDS_TO_ANSWER).close()
    except (OSError, ValueError):
        return False
    return True
