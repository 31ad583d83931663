"""A folder of images: all images at any depth, or one folder per class."""

import functools
import logging
import os
from collections.abc import Iterator
from typing import Any

from align_keras import paths
from align_keras.data.examples import image_files
from align_keras.data.examples.example import Example
from align_keras.data.examples.example_set import ExampleSet, digest, in_order
from align_keras.errors import Place
from align_keras.paths import AnyPath
from align_keras.wording import counted

logger = logging.getLogger(__name__)


class FolderExamples(ExampleSet):
    """The images below a folder, as one part. Images in unsupported formats have a fault.

    Args:
        folder: path of the folder.
        classes: whether each subfolder holds the images of one class. Images outside the subfolders
            are skipped, with a warning in the log.
    """

    def __init__(self, folder: str | AnyPath, classes: bool = False) -> None:
        self.parts = [str(folder)]
        self._names: tuple[str, ...] | None = None
        if not classes:
            self._files = sorted(image_files.walk(folder))
            return
        found = self._shown_in(folder)
        folders = [path for path in found if path.is_dir()]
        if beside := sum(image_files.is_image(path.name) for path in found if path.is_file()):
            images = counted(beside, "image")
            logger.warning("%s: %s outside the class folders left out", folder, images)
        self._names = tuple(path.name for path in folders)
        # Each folder is walked by itself: two classes may link to the same images.
        files = (sorted(map(paths.path_of, image_files.walk(path))) for path in folders)
        self._files = [str(file) for of_class in files for file in of_class]

    @staticmethod
    def _shown_in(folder: str | AnyPath) -> list[Any]:
        """The entries of a folder that are not hidden, sorted."""
        found: Any = paths.path_of(folder).iterdir()
        return sorted(path for path in found if not image_files.is_hidden(path.name))

    def read(self, part: str) -> Iterator[Example]:
        """Yields the images in order of their names."""
        return map(self._example, self._files)

    def shuffled(self, seed: int) -> Iterator[Example]:
        """The images in an order that ``seed`` decides."""
        return map(self._example, in_order(self._files, seed))

    def _example(self, file: str) -> Example:
        name = os.path.relpath(file, self.parts[0])
        fault = image_files.foreign_format(name)
        read = functools.partial(image_files.read_file, file)
        return Example(
            place=Place(file),
            image_id=name,
            load=image_files.no_image(fault) if fault else read,
            class_name=name.split(os.sep)[0] if self._names is not None else "",
            fault=fault,
            key=name,
        )

    @functools.cached_property
    def class_names(self) -> tuple[str, ...] | None:
        """The names of the class folders, sorted, including empty ones; None without classes."""
        return self._names

    @functools.cached_property
    def count(self) -> int:
        """How many images there are."""
        return len(self._files)

    @property
    def fingerprint(self) -> str:
        """Derived from names, sizes and modification times."""
        names = (os.path.relpath(file, self.parts[0]) for file in self._files)
        states = map(image_files.state, self._files)
        return digest((name, *own) for name, own in zip(names, states, strict=True))
