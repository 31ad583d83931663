"""The images to be indexed, of a folder, a table or shards, in an order that does not change."""

import dataclasses
import functools
import hashlib
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

from align_keras.data import records
from align_keras.data.examples import packing, sources

_TABLES = (".jsonl", ".csv", ".tsv", ".parquet")
_IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp")
_FLAG = "--images"


@dataclasses.dataclass(frozen=True)
class SourceImage:
    """One image that is to be indexed."""

    name: str
    """Tells it from all others: a path, an archive's member or the id in a record."""
    load: Callable[[], bytes]
    """Reads the encoded image; raises what ``packing.UNREADABLE`` names, or a ValueError."""
    caption: str = ""
    """Its first caption, where the data has one."""


@dataclasses.dataclass(frozen=True)
class ImageSource:
    """Images that can be read again, from the first one on."""

    read: Callable
    """Returns an iterator of ``SourceImage``, each name once."""
    count: int
    """How many there are at most."""
    fingerprint: str
    """Another one if an image was added, removed, renamed or written since: of names, sizes and
    times of change, not of every byte."""


def open_images(images, select=()):
    """Opens the images of ``--images``.

    Args:
        images: a folder, with all that is below it, links followed once; a table (``.jsonl``,
            ``.csv``, ``.tsv``, ``.parquet``) as of ``prepare_data.py``, also of members of zip
            archives; or a quoted pattern of TFRecord shards.
        select: only rows of a table with these values, as ``COLUMN=VALUE``.

    Returns:
        An ``ImageSource``.

    Raises:
        FileNotFoundError, ValueError: one line that names the flag and the mend.
    """
    path = Path(images)
    is_table = path.suffix.lower() in _TABLES
    if select and not is_table:
        raise ValueError(f"--select: {images} is no table, so it has no rows to select")
    if path.is_dir():
        source = _open_folder(path)
    elif is_table:
        source = _open_table(path, tuple(select))
    else:
        source = _open_shards(records.find_shards(images, _FLAG))
    if not source.count:
        what = f"no row with {' and '.join(select)}" if select else "no image in it"
        raise ValueError(f"{_FLAG}: {images}: {what}; images end in {', '.join(_IMAGES)}")
    return source


def read_file(path):
    """The bytes of a regular file of a photograph's size; OSError or ValueError otherwise."""
    found = os.stat(path)
    # A pipe would block for ever.
    if not stat.S_ISREG(found.st_mode):
        raise ValueError("not a file")
    if found.st_size > packing.MAX_FILE_BYTES:
        raise ValueError(f"more than {packing.MAX_FILE_BYTES >> 20} MiB")
    return Path(path).read_bytes()


# === Folders ===


def _open_folder(folder):
    files = sorted(_walk(folder))
    names = [os.path.relpath(file, folder) for file in files]

    def read():
        for name, file in zip(names, files, strict=True):
            yield SourceImage(name, functools.partial(read_file, file))

    digest = _digest((name, *_state(file)) for name, file in zip(names, files, strict=True))
    return ImageSource(read, len(files), digest)


def _walk(folder):
    """Yields the paths of all images below; a folder that links lead to again is read once."""
    seen, waiting = set(), [os.fspath(folder)]
    while waiting:
        current = waiting.pop()
        found = os.stat(current)
        if (found.st_dev, found.st_ino) in seen:
            continue
        seen.add((found.st_dev, found.st_ino))
        # In order, so that of two ways to a folder it is always the same that counts.
        entries = sorted(os.scandir(current), key=lambda entry: entry.name)
        waiting.extend(entry.path for entry in reversed(entries) if _is_folder(entry))
        for entry in entries:
            if entry.name.lower().endswith(_IMAGES) and not _is_folder(entry):
                yield entry.path


def _is_folder(entry):
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _state(file):
    """Size and time of change; of a file that is not there, or a link to itself, nothing."""
    try:
        found = os.stat(file)
    except OSError:
        return ()
    return found.st_size, found.st_mtime_ns


# === Tables ===


def _open_table(path, select):
    columns = sources.Columns(select=select)
    rows = {}
    try:
        for where, row in packing.read_table(path, _FLAG):
            if row is None or not columns.selects(row):
                continue
            name, archive = row.get("image"), row.get("archive") or ""
            if not isinstance(name, str) or not isinstance(archive, str):
                raise ValueError(f"{_FLAG}: {path} {where}: no image column")
            caption = next((text for text in packing.captions_of(row) if text), "")
            # A table may have a row for each caption of an image.
            rows.setdefault((archive, name), str(caption))
    except ValueError as error:
        raise ValueError(str(error).replace("--captions:", f"{_FLAG}:", 1)) from None
    folder = packing.ImageFolder(path.parent)

    def load(name, archive):
        return folder.read(name, archive) if archive else read_file(folder.directory / name)

    def read():
        for (archive, name), caption in rows.items():
            full_name = f"{archive}/{name}" if archive else name
            yield SourceImage(full_name, functools.partial(load, name, archive), caption)

    state = functools.cache(lambda file: _state(folder.directory / file))
    digest = _digest((*row, caption, *state(row[0] or row[1])) for row, caption in rows.items())
    return ImageSource(read, len(rows), digest)


# === Shards ===


def _open_shards(shards):
    def read():
        seen = set()
        for shard in shards:
            for index, record in enumerate(records.read_frames(shard)):
                image = _image_of_record(record, f"{os.path.basename(shard)} record {index}")
                if image.name not in seen:
                    seen.add(image.name)
                    yield image

    count = sum(records.count_records(shard) for shard in shards)
    return ImageSource(
        read, count, _digest((os.path.basename(shard), *_state(shard)) for shard in shards)
    )


def _image_of_record(record, where):
    def corrupt():
        raise ValueError("corrupt record")

    try:
        fields = records.parse_pair(record or b"\xff")
    except ValueError:
        return SourceImage(where, corrupt)
    name, caption = fields.get("image_id", where), fields.get("txt", "")
    name, caption = (
        value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
        for value in (name, caption)
    )
    return SourceImage(name, functools.partial(fields.get, "jpg", b""), caption)


def _digest(rows):
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row).encode() + b"\n")
    return digest.hexdigest()
