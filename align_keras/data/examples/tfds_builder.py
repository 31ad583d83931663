"""Opens a set of TensorFlow Datasets."""

import logging
import os
import re
import sys
from pathlib import Path
from typing import Any

from align_keras import paths
from align_keras.errors import InputError


def prepared_builder(name: str) -> Any:
    """The builder of a set, which is downloaded and prepared first if necessary.

    Args:
        name: a name for ``tfds.builder``, or the folder of a prepared set.

    Raises:
        InputError: if tensorflow-datasets is missing, or it has no such set or cannot prepare it.
    """
    paths.check_scheme(name)
    try:
        import tensorflow_datasets as tfds
    except ImportError:
        raise InputError(
            f"tfds:{name}: needs tensorflow-datasets", remedy="pip install 'align-keras[tfds]'"
        ) from None
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    # Otherwise every retry of a download would print a line.
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    try:
        if os.path.isdir(name):
            return tfds.builder_from_directory(_versioned(name))
        builder = tfds.builder(name)
        if not builder.is_prepared():
            builder.download_and_prepare()
        return builder
    except Exception as error:  # TFDS and its downloads raise errors of many kinds
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"tfds:{name}: TFDS cannot open or prepare it ({type(error).__name__}: {reason})",
            remedy="check the name and the network, prepare it elsewhere and point TFDS_DATA_DIR "
            "at it, or give a folder",
        ) from None


def _versioned(folder: str) -> str:
    """The folder of a set's newest version: ``DIR/NAME/1.0.0`` for ``DIR/NAME``."""
    if (Path(folder) / "dataset_info.json").exists():
        return folder
    versions = [path.parent for path in Path(folder).glob("*/dataset_info.json")]
    return str(max(versions, key=_numbers)) if versions else folder


def _numbers(version: Path) -> list[int]:
    """The numbers of a version, so that ``10.0.0`` is newer than ``9.0.0``."""
    return [int(number) for number in re.findall("[0-9]+", version.name)]


def is_prepared(name: str) -> bool:
    """Whether TFDS has the set on this machine, so that no download is needed."""
    try:
        import tensorflow_datasets as tfds

        # TFDS warns if the set is not there.
        logging.getLogger("absl").setLevel(logging.ERROR)
        return os.path.isdir(name) or tfds.builder(name).is_prepared()
    except Exception:  # `prepared_builder` then reports the error
        return False
