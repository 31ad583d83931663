"""Which of several workers no longer answer."""

import json
import os
import re
import socket
from typing import Any

import tensorflow as tf

# What a step fails with when a worker has ended; CANCELLED are the ops beside the one that failed.
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
    """Says which workers are gone, if that is why TensorFlow failed.

    Args:
        error: an error of TensorFlow.

    Returns:
        Such as ``worker 1 (host1:2222) is gone``; empty if there is one worker only, or the error
        is another.
    """
    try:
        config = json.loads(os.environ["TF_CONFIG"])
        addresses, own = config["cluster"]["worker"], config["task"]["index"]
    except (KeyError, TypeError, ValueError):
        return ""
    named = {int(number) for number in _TASK.findall(error.message)} - {own}
    # An op's name has the worker that runs it, so an error of another kind may name one as well.
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
