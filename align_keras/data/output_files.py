"""Small text files beside shards, on this machine or where ``tf.io.gfile`` leads."""

from pathlib import Path

import tensorflow as tf

from align_keras import files, paths


def write_text(path: str, text: str) -> None:
    """Writes a file whole; objects of a remote store are whole or not there by themselves."""
    if not paths.scheme(path):
        files.write_whole(Path(path), text)
        return
    with tf.io.gfile.GFile(path, "w") as file:
        file.write(text)
