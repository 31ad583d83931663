"""Writes an index such that a killed run can continue from its last commit."""

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
from align_keras.wording import counted

_PROGRESS, _LOCK = "progress.json", "lock"
#: The files that grow while images are embedded.
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
    """Appends embedded images to the files of an index; a context manager.

    Every ``commit`` replaces ``progress.json``, which holds the current length and checksum of each
    file. If a run is killed, the next run cuts off what was written after the last commit. The
    finished index has a file of checksums.

    Args:
        directory: directory of the index; created if it does not exist.
        header: header to write; its counts are ignored.
        restart: whether to delete an existing index.
        is_same_model: returns whether a stored fingerprint belongs to the model; None requires
            equal fingerprints.

    Attributes:
        header: header of the finished index, if ``is_finished``.
        is_finished: whether there is nothing left to do.
        rows: images in the index so far.
        unreadable: images that could not be read so far.

    Raises:
        InputError: on entering, if the folder holds other files; if it holds an index of another
            model, other images or other settings; if another run is writing; or if a file is
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
                # This is written first: if the run is killed now, the remaining files are still
                # recognised as parts of an index.
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
        """Number of source images that were embedded or found unreadable so far."""
        return self.rows + self.unreadable

    def commit(
        self,
        embeddings: np.ndarray,
        labels: Sequence[Mapping[str, str]],
        thumbnails: Sequence[bytes],
        unreadable: Sequence[Mapping[str, str]],
    ) -> None:
        """Appends images, and the names of unreadable ones.

        Args:
            embeddings: float32, ``(images, width)``.
            labels: ``name`` and ``caption`` of each image.
            thumbnails: a JPEG for each image.
            unreadable: ``name`` and ``reason`` for each unreadable image.
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
        """Removes the header of a finished index, to divide it into other lists.

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
            num_lists: number of lists of a large index; 0 for an exact index.

        Raises:
            InputError: if no image could be read.
        """
        if not self.rows:
            raise InputError(
                f"{counted(self.consumed, 'image')}, but no readable one",
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
        # Written last, since an index without a header is not finished.
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
            # The progress file exists before anything is written to the other files.
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
            # Stores the settings before the first images.
            self._write_progress()

    def _check_origin(self, found: Mapping[str, Any]) -> None:
        """Compares the settings with those of an earlier run; InputError if one differs."""
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
        """Writes sizes and checksums of the files; ``found`` replaces those of this run."""
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
    """Whether a file with the name of a header is of another program, not a damaged header."""
    try:
        found = json.loads(header.read_bytes())
    except ValueError:
        return False
    return not isinstance(found, dict) or found.get("kind") != image_index.KIND


def _origin(header: Header) -> dict[str, Any]:
    """The settings that a run needs unchanged to continue; model and images may have moved."""
    names = ("fingerprint", "images_fingerprint", "precision", "width", "thumbnail_size")
    return {name: getattr(header, name) for name in names}
