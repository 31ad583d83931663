"""Writes an index so that a run cut off at any point goes on where it last committed."""

import dataclasses
import fcntl
import json
import os
from pathlib import Path

import numpy as np

from align_keras.files import write_whole
from align_keras.search import image_index, inverted_lists

_PROGRESS, _LOCK = "progress.json", "lock"
#: What grows while images are embedded.
_GROWING = (
    image_index.EMBEDDINGS,
    *(f"{image_index.LABELS}.{part}" for part in ("bin", "ends")),
    *(f"{image_index.THUMBNAILS}.{part}" for part in ("bin", "ends")),
    image_index.UNREADABLE,
)
_LISTS = (image_index.CENTROIDS, image_index.LISTS)
_OTHERS = (image_index.HEADER, *_LISTS, _PROGRESS, _LOCK)


class IndexWriter:
    """Appends embedded images to the files of an index; used in a ``with``.

    Every ``commit`` writes ``progress.json`` whole, with the length that each file has by then;
    what a run that was killed wrote beyond it is cut off by the next.

    Args:
        directory: of the index; made if it is not there.
        header: an ``image_index.Header``; its counts are of no account.
        restart: whether to throw away an index that is there.

    Attributes:
        header: of the finished index, once ``is_finished``.
        is_finished: whether there is nothing left to do.
        rows: images in the index so far.
        unreadable: images left out so far.

    Raises:
        ValueError: if there is something else, an index of another model, other images or other
            settings, or another run is writing.
    """

    def __init__(self, directory, header, restart=False):
        self.directory = Path(directory)
        self.header = header
        self.is_finished = False
        self.rows = self.unreadable = 0
        self._files = {}
        self._restart = restart

    def __enter__(self):
        self.directory.mkdir(parents=True, exist_ok=True)
        self._check_is_ours()
        self._lock()
        try:
            if self._restart:
                # The header first: without it there is no index.
                for name in (image_index.HEADER, _PROGRESS, *_LISTS, *_GROWING):
                    (self.directory / name).unlink(missing_ok=True)
            if (self.directory / image_index.HEADER).exists():
                self._find_finished()
            else:
                self._resume()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if (self.directory / image_index.HEADER).exists():
            (self.directory / _LOCK).unlink(missing_ok=True)
        for file in (*self._files.values(), self._lock_file):
            file.close()

    @property
    def consumed(self):
        """How many images of the source have been dealt with."""
        return self.rows + self.unreadable

    def commit(self, embeddings, labels, thumbnails, unreadable):
        """Appends images, and the names of those that were left out.

        Args:
            embeddings: float32, ``(images, width)``.
            labels: as many dicts of ``name`` and ``caption``.
            thumbnails: as many JPEGs.
            unreadable: dicts of ``name`` and ``reason``.
        """
        self._files[image_index.EMBEDDINGS].write(np.ascontiguousarray(embeddings, self._dtype))
        self._append_pieces(image_index.LABELS, [json.dumps(label).encode() for label in labels])
        self._append_pieces(image_index.THUMBNAILS, thumbnails)
        lines = b"".join(json.dumps(fault).encode() + b"\n" for fault in unreadable)
        self._files[image_index.UNREADABLE].write(lines)
        self.rows += len(labels)
        self.unreadable += len(unreadable)
        self._write_progress()

    def _append_pieces(self, kind, pieces):
        start = self._files[f"{kind}.bin"].tell()
        ends = start + np.cumsum([len(piece) for piece in pieces], dtype=np.int64)
        self._files[f"{kind}.bin"].write(b"".join(pieces))
        self._files[f"{kind}.ends"].write(ends.astype(image_index.ENDS))

    def reopen(self):
        """Takes the header of a finished index back, to divide it into other lists."""
        sizes = {name: (self.directory / name).stat().st_size for name in _GROWING}
        self._write_progress(sizes)
        (self.directory / image_index.HEADER).unlink()
        self.is_finished = False
        self._resume()

    def finish(self, num_lists=0):
        """Writes the header, with which the index is there.

        Args:
            num_lists: into how many lists to divide a large index; 0 for none.

        Raises:
            ValueError: if no image could be read.
        """
        if not self.rows:
            raise ValueError(
                f"--images: none of {self.consumed:,} images is readable; "
                f"{self.directory / image_index.UNREADABLE} has the reasons"
            )
        for file in self._files.values():
            file.close()
        if num_lists:
            path, shape = self.directory / image_index.EMBEDDINGS, (self.rows, self.header.width)
            embeddings = np.memmap(path, self._dtype, "r", shape=shape)
            centroids, lists = inverted_lists.cluster(embeddings, num_lists)
            self._write_array(image_index.CENTROIDS, centroids.astype(image_index.CENTROID_NUMBERS))
            self._write_array(image_index.LISTS, lists.astype(image_index.LIST_NUMBERS))
        self.header = dataclasses.replace(
            self.header, count=self.rows, unreadable=self.unreadable, lists=num_lists
        )
        text = json.dumps(dataclasses.asdict(self.header), indent=2) + "\n"
        write_whole(self.directory / image_index.HEADER, text)
        for name in (_PROGRESS, *(() if num_lists else _LISTS)):
            (self.directory / name).unlink(missing_ok=True)
        self.is_finished = True

    # === Files ===

    @property
    def _dtype(self):
        return image_index.PRECISIONS[self.header.precision]

    def _check_is_ours(self):
        found = {path.name.removesuffix(".partial") for path in self.directory.iterdir()}
        if strange := sorted(found - {*_GROWING, *_OTHERS}):
            raise ValueError(
                f"--output: {self.directory} holds {strange[0]}, which is no part of an index; "
                "give a folder of its own"
            )

    def _lock(self):
        path = self.directory / _LOCK
        self._lock_file = path.open("w")
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # A run that ended meanwhile has removed it.
            if not os.path.samestat(os.fstat(self._lock_file.fileno()), path.stat()):
                raise BlockingIOError
        except OSError:
            self._lock_file.close()
            raise ValueError(f"--output: another run is writing {self.directory}") from None

    def _find_finished(self):
        found = image_index.read_header(self.directory, "--output")
        self._check_origin(_origin(found))
        self.header, self.is_finished = found, True
        self.rows, self.unreadable = found.count, found.unreadable

    def _resume(self):
        path, sizes = self.directory / _PROGRESS, dict.fromkeys(_GROWING, 0)
        if path.exists():
            found = _read_progress(path)
            self._check_origin(found["origin"])
            sizes, self.rows, self.unreadable = (
                found[name] for name in ("sizes", "rows", "unreadable")
            )
        for name in _GROWING:
            file = self._files[name] = (self.directory / name).open("ab")
            if file.tell() < sizes[name]:
                raise ValueError(
                    f"--output: {self.directory / name} is shorter than it was; --restart builds "
                    "the index again"
                )
            file.truncate(sizes[name])
            file.seek(sizes[name])
        if not path.exists():
            # So that what was begun with is known from the start.
            self._write_progress()

    def _check_origin(self, found):
        begun = f"{self.directory} was begun with"
        mend = "give another --output, or --restart to build it again"
        for name, value in _origin(self.header).items():
            if found.get(name) == value:
                continue
            if name == "fingerprint":
                raise ValueError(f"--model: {begun} another model; {mend}")
            if name == "images_fingerprint":
                raise ValueError(
                    f"--images: {begun} other images, or some were added, removed or written "
                    f"since; {mend}"
                )
            flag = name.replace("_", "-")
            raise ValueError(f"--{flag}: {begun} {found.get(name)}, not {value}; {mend}")

    def _write_progress(self, sizes=None):
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
        progress = {
            "origin": _origin(self.header),
            "rows": self.rows,
            "unreadable": self.unreadable,
            "sizes": sizes or {name: file.tell() for name, file in self._files.items()},
        }
        write_whole(self.directory / _PROGRESS, json.dumps(progress) + "\n")

    def _write_array(self, name, array):
        path = self.directory / name
        partial = path.with_name(f"{name}.partial")
        array.tofile(partial)
        partial.replace(path)


def _origin(header):
    """What must be the same for a run to go on; model and images themselves may have moved."""
    names = ("fingerprint", "images_fingerprint", "precision", "width", "thumbnail_size")
    return {name: getattr(header, name) for name in names}


def _read_progress(path):
    try:
        found = json.loads(path.read_bytes())
        if found.keys() == {"origin", "rows", "unreadable", "sizes"}:
            return found
    except (ValueError, AttributeError):
        pass
    raise ValueError(f"--output: {path} is damaged; --restart builds the index again")
