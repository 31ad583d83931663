"""An index of images on disk: the files in its folder, and how to load and search it.

    index.json       the header, written last: an index without it is not finished
    embeddings.bin   unit norm, float32 or float16, (images, width), memory-mapped
    labels.bin       JSON of each image's name and first caption; labels.ends where each ends
    thumbnails.bin   a JPEG of each image; thumbnails.ends where each ends
    unreadable.jsonl what was left out and why
    centroids.bin    of a large index: float32, (lists, width)
    lists.bin        of a large index: the list of each image, int32
    checksums.json   of all these files, written before index.json

Numbers are little-endian. An index may come from an untrusted source, so it holds only plain
numbers, JSON and JPEG: sizes are checked against each other before anything is used, nothing is
unpickled, no file outside the folder is opened, and no library reads its own file format.
"""

import dataclasses
import json
import math
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from align_keras import checksums, paths
from align_keras.errors import InputError, MissingInputError, Place, concerning
from align_keras.search import exact_search

if TYPE_CHECKING:
    from align_keras.search.inverted_lists import InvertedLists

KIND, VERSION = "align_keras image index", 1
HEADER, UNREADABLE = "index.json", "unreadable.jsonl"
EMBEDDINGS, CENTROIDS, LISTS = "embeddings.bin", "centroids.bin", "lists.bin"
LABELS, THUMBNAILS = "labels", "thumbnails"
_PIECES, _ENDINGS = (LABELS, THUMBNAILS), ("bin", "ends")
PRECISIONS: dict[str, np.dtype] = {"float32": np.dtype("<f4"), "float16": np.dtype("<f2")}
ENDS = np.dtype("<u8")
CENTROID_NUMBERS, LIST_NUMBERS = np.dtype("<f4"), np.dtype("<i4")
_MAX_HEADER_BYTES = 1 << 16
# The label and the thumbnail of an image are read completely.
_MAX_LABEL_BYTES, _MAX_THUMBNAIL_BYTES = 1 << 16, 1 << 21
_MAX_WIDTH = 1 << 14
#: Maximum length of a thumbnail's longer side, in pixels.
MAX_THUMBNAIL_SIZE = 1_024
_BUILD_AGAIN = "build the index again"
#: For larger files only the size is checked when an index is opened, since reading takes long.
READ_UP_TO = 1 << 25


@dataclasses.dataclass(frozen=True)
class Header:
    """The contents of ``index.json``."""

    model: str
    """The model as given: the folder or address of a preset."""
    fingerprint: str
    """Fingerprint from ``evaluation.fingerprint``."""
    images: str
    """The images as given."""
    images_fingerprint: str
    precision: str
    width: int
    count: int
    unreadable: int
    lists: int = 0
    """Number of lists; 0 if every search is exact."""
    thumbnail_size: int = 0
    kind: str = KIND
    version: int = VERSION


@dataclasses.dataclass(frozen=True)
class Label:
    """Name and caption of an image."""

    name: str
    caption: str


class ImageIndex:
    """Embedded images, memory-mapped, each with a name, a caption and a thumbnail.

    Args:
        directory: a folder written by ``indexing.build_index``.
        exact: whether to compare with every image even if the index is large; faiss is not needed
            then.

    Checksums are checked for files up to 32 MiB, sizes for larger ones. ``faults`` checks the
    checksums of all files. An index of an earlier version has no checksums.

    Raises:
        MissingInputError: if there is no finished index.
        InputError: if the folder is not an index, or one of its files is damaged. If faiss is
            needed but not installed, the error's ``setting`` is ``exact``.
    """

    def __init__(self, directory: str | Path, exact: bool = False) -> None:
        self.directory = paths.local(directory)
        self.header = header = read_header(self.directory)
        needed = {HEADER, EMBEDDINGS, *(f"{kind}.{end}" for kind in _PIECES for end in _ENDINGS)}
        needed |= {CENTROIDS, LISTS} if header.lists else set()
        checksums.check(self.directory, read_up_to=READ_UP_TO, needed=needed)
        dtype = PRECISIONS[header.precision]
        self.embeddings = self._mapped(EMBEDDINGS, dtype, (header.count, header.width))
        self._pieces = {kind: self._mapped_pieces(kind) for kind in _PIECES}
        self._approximate: InvertedLists | None = None
        if header.lists and not exact:
            self._open_lists()

    def __len__(self) -> int:
        return self.header.count

    @property
    def is_approximate(self) -> bool:
        """Whether a search reads only some of the lists."""
        return self._approximate is not None

    def search(
        self, queries: np.ndarray, count: int, probes: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The most similar images.

        Args:
            queries: unit-norm embeddings, ``(queries, width)``.
            count: images per query; fewer if the index has fewer.
            probes: number of lists to search in a large index; None for the default.

        Returns:
            ``(places, scores)``, both ``(queries, count)``, best first: integer indices, -1 if too
            few images were found, and float32 similarities.
        """
        queries = np.asarray(queries, np.float32)
        count = min(count, len(self))
        if self._approximate is None:
            places = exact_search.nearest(queries, self.embeddings, count)
        else:
            # faiss scores in float16, which swaps close neighbours. More images are therefore found
            # and ranked again here.
            places = self._approximate.search(queries, 2 * count, probes)
        places, scores = exact_search.ranked(queries, self.embeddings, places)
        return places[:, :count], scores[:, :count]

    def faults(self) -> Iterator[InputError]:
        """Reads the entire index; yields an error for each file that has changed."""
        yield from checksums.faults(checksums.list_of(self.directory))

    def verify_in_background(self, tell: Callable[[InputError], Any]) -> threading.Thread:
        """Starts a thread that calls ``tell`` with each of the ``faults``."""
        thread = threading.Thread(target=lambda: [tell(fault) for fault in self.faults()])
        thread.daemon = True  # the process can end without waiting for it
        thread.start()
        return thread

    def label(self, place: int) -> Label:
        """The name and caption of an image; raises InputError if they are damaged."""
        try:
            fields = json.loads(self._piece(LABELS, place, _MAX_LABEL_BYTES))
            name, caption = fields["name"], fields["caption"]
        except (ValueError, KeyError, TypeError, RecursionError):
            name = caption = None
        if not isinstance(name, str) or not isinstance(caption, str):
            raise self._damaged(f"{LABELS}.bin", f"no label for image {place}")
        # A file name may contain bytes that are not text and cannot be printed or sent.
        return Label(*(text.encode("utf-8", "replace").decode() for text in (name, caption)))

    def thumbnail(self, place: int) -> bytes:
        """The JPEG of an image, empty if the index has none; raises InputError if it is damaged."""
        data = self._piece(THUMBNAILS, place, _MAX_THUMBNAIL_BYTES)
        if data and not data.startswith(b"\xff\xd8\xff"):
            raise self._damaged(f"{THUMBNAILS}.bin", f"no JPEG for image {place}")
        return data

    # === Files ===

    def _piece(self, kind: str, place: int, limit: int) -> bytes:
        ends, data = self._pieces[kind]
        start = int(ends[place - 1]) if place else 0
        size = int(ends[place]) - start
        # Only the entries that are used are checked, since there may be millions.
        if not 0 <= size <= limit:
            raise self._damaged(f"{kind}.ends", f"image {place} would have {size:,} bytes")
        return data[start : start + size].tobytes()

    def _mapped_pieces(self, kind: str) -> tuple[np.ndarray, np.ndarray]:
        ends = self._mapped(f"{kind}.ends", ENDS, (self.header.count,))
        return ends, self._mapped(f"{kind}.bin", np.dtype(np.uint8), (int(ends[-1]),))

    def _open_lists(self) -> None:
        from align_keras.search.inverted_lists import InvertedLists

        header = self.header
        centroids = self._mapped(CENTROIDS, CENTROID_NUMBERS, (header.lists, header.width))
        lists = self._mapped(LISTS, LIST_NUMBERS, (header.count,))
        if not np.isfinite(centroids).all():
            raise self._damaged(CENTROIDS, "some of its numbers are not finite")
        if lists.min() < 0 or lists.max() >= header.lists:
            raise self._damaged(LISTS, f"a number outside of 0 .. {header.lists - 1}")
        with concerning("exact"):
            self._approximate = InvertedLists(self.embeddings, centroids, lists)

    def _mapped(self, name: str, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
        """A file as an array; raises InputError if its size is wrong."""
        path, size = self.directory / name, math.prod(shape) * dtype.itemsize
        # A symbolic link could point to any file of the machine that serves the index.
        if path.is_symlink() or not path.is_file():
            raise self._damaged(name, "no such file")
        if path.stat().st_size != size:
            raise self._damaged(name, f"{path.stat().st_size:,} bytes, not {size:,}")
        # An empty file cannot be mapped.
        return np.memmap(path, dtype, "r", shape=shape) if size else np.empty(shape, dtype)

    def _damaged(self, name: str, what: str) -> InputError:
        return InputError(what, Place(str(self.directory / name)), _BUILD_AGAIN)


def model_to_load(index: ImageIndex, model: str = "") -> str:
    """The model for a search: the given one, or the folder named in the index.

    Raises:
        InputError: if the index names an address. An index may come from an untrusted source, so
            addresses in it are not fetched unless the user gives them.
        MissingInputError: if the folder named in the index does not exist.
    """
    if model:
        return model
    named = index.header.model
    if "://" in named:
        raise InputError(f"the index names {named}", remedy="to fetch it, give it as <model>")
    if not Path(named).exists():
        raise MissingInputError(
            f"the index names {named}, which does not exist here",
            remedy="give the path of this model as <model>",
        )
    return named


def read_header(directory: str | Path) -> Header:
    """The ``Header`` of a finished index.

    Raises:
        MissingInputError: if there is no header.
        InputError: if it is not a header, or its values are impossible.
    """
    path = Path(directory) / HEADER
    place = Place(str(path))
    if path.is_symlink() or not path.is_file():
        raise MissingInputError(
            f"no finished index in {directory}", remedy="make one with recipes/search.py index"
        )
    try:
        if path.stat().st_size > _MAX_HEADER_BYTES:
            raise ValueError
        fields = json.loads(path.read_bytes())
        header = Header(**fields)
    except (ValueError, TypeError, RecursionError):
        raise InputError("not a header of an index", place) from None
    if header.kind != KIND or header.version != VERSION:
        raise InputError("of another kind or version", place, _BUILD_AGAIN)
    if fault := _fault(header):
        raise InputError(fault, place, _BUILD_AGAIN)
    return header


def _fault(header: Header) -> str | None:
    """The fault in a header, or None."""
    for field in dataclasses.fields(Header):
        value = getattr(header, field.name)
        kind = int if field.type is int else str
        if type(value) is not kind:
            return f"{field.name} is not {kind.__name__}"
    if not re.fullmatch(r"[0-9a-f]{64}", header.fingerprint):
        return "fingerprint is invalid"
    if header.precision not in PRECISIONS:
        return f"precision is not one of {', '.join(PRECISIONS)}"
    if not 0 < header.width <= _MAX_WIDTH or header.count < 1:
        return "width or count is out of range"
    if not 0 <= header.lists <= header.count or header.unreadable < 0:
        return "lists or unreadable is out of range"
    return None
