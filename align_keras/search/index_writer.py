"""Writes an index so that a run that is killed continues where it last committed."""

import contextlib
import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from align_keras import checksums, full_disk, paths
from align_keras.errors import InputError, Place, concerning
from align_keras.files import whole_name, write_whole
from align_keras.locks import LockedError, locked
from align_keras.search import image_index, inverted_lists
from align_keras.search.growing_file import GrowingFile, read_progress
from align_keras.search.image_index import Header

_PROGRESS, _LOCK = "progress.json", "lock"
#: What grows while images are embedded.
_GROWING = (
    image_index.EMBEDDINGS,
    *(f"{image_index.LABELS}.{part}" for part in ("bin", "ends")),
    *(f"{image_index.THUMBNAILS}.{part}" for part in ("bin", "ends")),
    image_index.UNREADABLE,
)
_LISTS = (image_index.CENTROIDS, image_index.LISTS)
_OTHERS = (image_index.HEADER, *_LISTS, _PROGRESS, _LOCK, checksums.NAME)
_BUILD_AGAIN = "<restart> builds the index again"


class IndexWriter:
    """Appends embedded images to the files of an index; used in a ``with``.

    Every ``commit`` replaces ``progress.json``, with the current length and checksum of each file.
    If a run is killed, the next run cuts off what was written after the last commit. The finished
    index has a list of ``checksums``.

    Args:
        directory: directory of the index; made if it is not there.
        header: the header to write; its counts are ignored.
        restart: whether to delete an existing index.
        is_same_model: a function that tells whether a stored fingerprint is the model's; None:
            fingerprints must be equal.

    Attributes:
        header: the header of the finished index, once ``is_finished``.
        is_finished: whether there is nothing left to do.
        rows: images in the index so far.
        unreadable: images left out so far.

    Raises:
        InputError: on entering, if the folder holds something else or an index of another model,
            other images or other settings, if another run is writing, or if a written file is
            damaged. ``setting`` is the field of ``Header`` that differs, or ``output`` for the
            folder.
        NoSpaceError: on entering and on writing, if the disk is full.
    """

    def __init__(
        self,
        directory: str | Path,
        header: Header,
        restart: bool = False,
        is_same_model: Callable[[str], bool] | None = None,
    ) -> None:
        self.directory = paths.local(directory)
        self.header = header
        self.is_finished = False
        self.rows = self.unreadable = 0
        self._is_same_model = is_same_model or (lambda found: found == header.fingerprint)
        self._files: dict[str, GrowingFile] = {}
        self._stack = contextlib.ExitStack()
        self._restart = restart

    def __enter__(self) -> "IndexWriter":
        with concerning("output"), full_disk.reported(self.directory):
            self._open()
        return self

    def _open(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self._check_is_ours()
        try:
            self._stack.enter_context(locked(self.directory / _LOCK))
        except LockedError as error:
            place = Place(str(self.directory))
            raise InputError("another run is writing it", place, error.remedy) from None
        try:
            if self._restart:
                # First: a part of it that a kill leaves is still known as an index's.
                self._write_progress({})
                for name in (image_index.HEADER, checksums.NAME, *_LISTS, *_GROWING):
                    (self.directory / name).unlink(missing_ok=True)
            if (self.directory / image_index.HEADER).exists():
                self._find_finished()
            else:
                self._resume()
        except BaseException:
            self._stack.close()
            raise

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def consumed(self) -> int:
        """Images of the source that were embedded or left out so far."""
        return self.rows + self.unreadable

    def commit(
        self,
        embeddings: np.ndarray,
        labels: Sequence[Mapping[str, str]],
        thumbnails: Sequence[bytes],
        unreadable: Sequence[Mapping[str, str]],
    ) -> None:
        """Appends images, and the names of those that were left out.

        Args:
            embeddings: float32, ``(images, width)``.
            labels: ``name`` and ``caption`` of each image.
            thumbnails: a JPEG of each image.
            unreadable: ``name`` and ``reason`` of each image that was left out.
        """
        file = self._files[image_index.EMBEDDINGS]
        file.write(np.ascontiguousarray(embeddings, self._dtype).tobytes())
        self._append_pieces(image_index.LABELS, [json.dumps(label).encode() for label in labels])
        self._append_pieces(image_index.THUMBNAILS, thumbnails)
        lines = b"".join(json.dumps(fault).encode() + b"\n" for fault in unreadable)
        self._files[image_index.UNREADABLE].write(lines)
        self.rows += len(labels)
        self.unreadable += len(unreadable)
        self._write_progress()

    def _append_pieces(self, kind: str, pieces: Sequence[bytes]) -> None:
        start = self._files[f"{kind}.bin"].size
        ends = start + np.cumsum([len(piece) for piece in pieces], dtype=np.int64)
        self._files[f"{kind}.bin"].write(b"".join(pieces))
        self._files[f"{kind}.ends"].write(ends.astype(image_index.ENDS).tobytes())

    def reopen(self) -> None:
        """Removes the header of a finished index, to divide the index into other lists.

        Raises:
            InputError: if a file of the index is damaged.
        """
        with concerning("output"):
            checksums.check(self.directory)
            found = {name: checksums.of_file(self.directory / name) for name in _GROWING}
            self._write_progress(found)
            for name in (image_index.HEADER, checksums.NAME):
                (self.directory / name).unlink(missing_ok=True)
            self.is_finished = False
            self._resume()

    def finish(self, num_lists: int = 0) -> None:
        """Writes the header, which makes the index valid.

        Args:
            num_lists: number of lists of a large index; 0 for none.

        Raises:
            InputError: if no image could be read.
        """
        if not self.rows:
            raise InputError(
                f"none of {self.consumed:,} images is readable",
                remedy=f"{self.directory / image_index.UNREADABLE} has the reasons",
                setting="images",
            )
        if num_lists:
            path, shape = self.directory / image_index.EMBEDDINGS, (self.rows, self.header.width)
            embeddings = np.memmap(path, self._dtype, "r", shape=shape)
            centroids, lists = inverted_lists.cluster(embeddings, num_lists)
            centroids = centroids.astype(image_index.CENTROID_NUMBERS)
            write_whole(self.directory / image_index.CENTROIDS, centroids.tofile)
            lists = lists.astype(image_index.LIST_NUMBERS)
            write_whole(self.directory / image_index.LISTS, lists.tofile)
        self.header = dataclasses.replace(
            self.header, count=self.rows, unreadable=self.unreadable, lists=num_lists
        )
        text = json.dumps(dataclasses.asdict(self.header), indent=2) + "\n"
        found = {name: file.checksum for name, file in self._files.items()}
        for name in _LISTS if num_lists else ():
            found[name] = checksums.of_file(self.directory / name)
        found[image_index.HEADER] = checksums.of_bytes(text.encode())
        checksums.write(checksums.list_of(self.directory), found)
        # The last: an index without it is not finished.
        write_whole(self.directory / image_index.HEADER, text)
        for name in (_PROGRESS, *(() if num_lists else _LISTS)):
            (self.directory / name).unlink(missing_ok=True)
        self.is_finished = True

    # === Files ===

    @property
    def _dtype(self) -> np.dtype:
        return image_index.PRECISIONS[self.header.precision]

    def _check_is_ours(self) -> None:
        found = {whole_name(path.name) for path in self.directory.iterdir()}
        if strange := sorted(found - {*_GROWING, *_OTHERS}):
            raise InputError(
                f"it holds {strange[0]}, which is not part of an index",
                Place(str(self.directory)),
                "give an empty folder",
            )
        header, progress = self.directory / image_index.HEADER, self.directory / _PROGRESS
        if header.exists():
            is_ours = not _is_of_others(header)
        else:
            # The progress file exists before anything is written into the other files.
            is_ours = progress.exists() or not any(
                path.stat().st_size for path in self.directory.iterdir()
            )
        if not is_ours:
            raise InputError(
                "it holds files with an index's names that are not an index",
                Place(str(self.directory)),
                "give an empty folder",
            )

    def _find_finished(self) -> None:
        found = image_index.read_header(self.directory)
        for fault in checksums.faults(checksums.list_of(self.directory), image_index.READ_UP_TO):
            fault.remedy = _BUILD_AGAIN
            raise fault
        self._check_origin(_origin(found))
        self.header, self.is_finished = found, True
        self.rows, self.unreadable = found.count, found.unreadable

    def _resume(self) -> None:
        path = self.directory / _PROGRESS
        sizes, sums = dict.fromkeys(_GROWING, 0), dict.fromkeys(_GROWING, "")
        if path.exists():
            found = read_progress(path, _BUILD_AGAIN)
            self._check_origin(found["origin"])
            sizes, sums = found["sizes"], sums | found["sha256"]
            self.rows, self.unreadable = found["rows"], found["unreadable"]
        for name in _GROWING:
            file = GrowingFile(self.directory / name, sizes[name], sums[name], _BUILD_AGAIN)
            self._files[name] = self._stack.enter_context(file)
        if not path.exists():
            # So that what was begun with is known from the start.
            self._write_progress()

    def _check_origin(self, found: Mapping[str, Any]) -> None:
        """Compares the settings of an unfinished index; InputError on the first difference."""
        for name, value in _origin(self.header).items():
            if found.get(name) == value:
                continue
            if name == "fingerprint":
                if self._is_same_model(str(found.get(name))):
                    continue
                setting, before = "model", "another model"
            elif name == "images_fingerprint":
                setting = "images"
                before = "other images, or some were added, removed or rewritten since"
            else:
                setting, before = name, f"{found.get(name)}, not {value}"
            raise InputError(
                f"the index was begun with {before}",
                Place(str(self.directory)),
                "give another <output>, or <restart> to build it again",
                setting,
            )

    def _write_progress(self, found: Mapping[str, checksums.Checksum] | None = None) -> None:
        """Writes how far the files are; ``found`` in place of what was written to them."""
        for file in self._files.values():
            file.sync()
        if found is None:
            found = {name: file.checksum for name, file in self._files.items()}
        empty = checksums.of_bytes(b"")
        progress = {
            "origin": _origin(self.header),
            "rows": self.rows,
            "unreadable": self.unreadable,
            "sizes": {name: found.get(name, empty).bytes for name in _GROWING},
            "sha256": {name: found.get(name, empty).sha256 for name in _GROWING},
        }
        write_whole(self.directory / _PROGRESS, json.dumps(progress) + "\n")


def _is_of_others(header: Path) -> bool:
    """Whether a file with the name of a header is somebody else's, not a damaged header."""
    try:
        found = json.loads(header.read_bytes())
    except ValueError:
        return False
    return not isinstance(found, dict) or found.get("kind") != image_index.KIND


def _origin(header: Header) -> dict[str, Any]:
    """What must be the same for a run to continue; model and images themselves may have moved."""
    names = ("fingerprint", "images_fingerprint", "precision", "width", "thumbnail_size")
    return {name: getattr(header, name) for name in names}
