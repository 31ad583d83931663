"""Opens a set of TensorFlow Datasets; what cannot be had where it runs is one line."""

import logging
import os
import sys
from pathlib import Path


def prepared_builder(name):
    """The builder of a set, downloaded and prepared if it was not.

    Args:
        name: as ``tfds.builder`` takes it, or the folder of a set that was prepared there.

    Raises:
        ValueError: if tensorflow-datasets is missing, or has no such set, or cannot prepare it.
    """
    try:
        import tensorflow_datasets as tfds
    except ImportError:
        raise ValueError(
            f"tfds:{name}: needs tensorflow-datasets; pip install 'align-keras[tfds]'"
        ) from None
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    # Each of a download's retries would be a line.
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    try:
        if os.path.isdir(name):
            return tfds.builder_from_directory(_versioned(name))
        builder = tfds.builder(name)
        if not builder.is_prepared():
            builder.download_and_prepare()
        return builder
    except Exception as error:  # TFDS and whatever it downloads with have errors of all kinds
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"tfds:{name}: TFDS cannot open or prepare it ({type(error).__name__}: {reason}); "
            "check the name and the network, or prepare it elsewhere and point TFDS_DATA_DIR at it"
        ) from None


def _versioned(folder):
    """The folder of a set's newest version: ``DIR/NAME/1.0.0`` below ``DIR/NAME``."""
    if (Path(folder) / "dataset_info.json").exists():
        return folder
    versions = sorted(path.parent for path in Path(folder).glob("*/dataset_info.json"))
    return str(versions[-1]) if versions else folder
