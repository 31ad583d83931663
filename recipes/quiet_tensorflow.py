"""Loads TensorFlow without the lines that it prints before its log level counts."""

import os
import sys


def load_quietly():
    """Imports TensorFlow and looks for its devices while file descriptor 2 leads nowhere.

    Its libraries write there, past ``sys.stderr`` and whatever ``TF_CPP_MIN_LOG_LEVEL`` says,
    and a recipe's one line about a wrong flag would stand among them. Python's exceptions show,
    since they are printed later. Where the variable is set nothing is hidden here: 0 tells why
    a GPU is not found.
    """
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        return
    # Warnings, one a corrupt image, would tear the progress bar.
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        import tensorflow as tf

        # Physical ones: asking for logical ones would start the runtime, which strategies of
        # several workers and TPUs must do themselves.
        tf.config.list_physical_devices()
    finally:
        os.dup2(kept, 2)
        os.close(kept)
