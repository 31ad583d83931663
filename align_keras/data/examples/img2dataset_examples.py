"""img2dataset's formats other than TFRecord: tar (webdataset), Parquet, and files with Parquet."""

import functools
import json
import os
import tarfile
from collections.abc import Callable, Iterator

from align_keras import paths
from align_keras.data import file_kinds
from align_keras.data.examples import image_files
from align_keras.data.examples.columns import Columns, listing, no_name
from align_keras.data.examples.example import decoded
from align_keras.data.examples.shard_examples import Entry, ShardExamples
from align_keras.data.examples.tables import RowFault, read_table
from align_keras.errors import InputError, Place

#: Endings of tar files. Compressed ones are rejected, with advice.
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")


class TarExamples(ShardExamples):
    """img2dataset's ``webdataset``: files with the same name and different extensions form a pair.

    The extension begins at the first dot, as in webdataset. If that would give one sample several
    images, it begins at the last dot. Folders and hidden files are skipped.
    """

    default_columns = Columns()

    def _entries(self, part: str) -> Iterator[Entry]:
        try:
            with (
                paths.path_of(part).open("rb") as file,
                tarfile.open(fileobj=file, mode="r:") as archive,
            ):
                for sample in _samples(archive):
                    yield _entry(part, archive, sample)
        except (tarfile.TarError, EOFError, OSError) as error:
            if isinstance(error, tarfile.ReadError):
                with paths.path_of(part).open("rb") as file:
                    head = file.read(file_kinds.HEAD_BYTES)
                file_kinds.check_shard(part, head, file_kinds.TAR)
            reason = " ".join(str(error).split())
            raise InputError(
                f"not readable as a tar file ({reason})",
                Place(part),
                "remove it or download it again",
            ) from None

    @functools.cached_property
    def count(self) -> int:
        """The number of pairs."""
        return sum(1 for part in self.parts for _ in self._entries(part))


#: The files of a sample by extension, without the leading dot.
_Sample = dict[str, tarfile.TarInfo]


def _samples(archive: tarfile.TarFile) -> Iterator[_Sample]:
    """Yields the files of a tar grouped into samples, in the order of their first files.

    The files of a sample need not be adjacent. A file whose extension the sample already has begins
    another sample.
    """
    found: dict[str, list[_Sample]] = {}
    for member in archive:
        folder, base = os.path.split(os.path.normpath(member.name))
        names = [name for name in (*folder.split(os.sep), base) if name != ".."]
        if any(map(image_files.is_hidden, names)) or not member.isfile():
            continue
        name, _, extension = base.partition(".")
        samples = found.setdefault(os.path.join(folder, name), [{}])
        if extension.lower() in samples[-1]:
            samples.append({})
        samples[-1][extension.lower()] = member
    for samples in found.values():
        for sample in samples:
            yield from _by_last_dot(sample)


def _by_last_dot(sample: _Sample) -> list[_Sample]:
    """Divides files whose names have several dots, unless they form one image and its fields."""
    parts: dict[str, _Sample] = {}
    for extension, member in sample.items():
        more, _, last = extension.rpartition(".")
        parts.setdefault(more, {})[last] = member
    with_image = [part for part in parts.values() if _image_in(part)]
    if "" in parts and _image_in(parts[""]):
        # A second image without a text is a further field of the sample, such as a mask.
        own = [part for part in with_image if part is not parts[""] and len(part) > 1]
    else:
        complete = [part for part in with_image if len(part) > 1]
        own = list(parts.values()) if complete or len(with_image) > 1 else []
    taken = {id(member) for part in own for member in part.values()}
    rest = {name: member for name, member in sample.items() if id(member) not in taken}
    return [*([rest] if rest else []), *own]


def _image_in(sample: _Sample) -> str | None:
    """The extension of a sample's image; None if it has no image."""
    return next((end[1:] for end in image_files.IMAGE_SUFFIXES if end[1:] in sample), None)


def _entry(part: str, archive: tarfile.TarFile, sample: _Sample) -> Entry:
    def read(extension: str) -> bytes | None:
        file = archive.extractfile(sample[extension]) if extension in sample else None
        return file.read() if file else None

    fields, fault = {}, None
    try:
        fields = dict(json.loads(read("json") or "{}"))
    except (ValueError, TypeError, RecursionError):
        fault = "not a JSON object"
    if (text := read("txt")) is not None:
        fields["txt"] = decoded(text)
    extensions = [extension or "a file without extension" for extension in sample]
    found = tuple(dict.fromkeys([*extensions, *fields]))
    image = _image_in(sample)
    load: Callable[[], bytes] = image_files.no_image(f"no jpg; has {listing(extensions)}")
    if image:
        load = functools.partial(_read_member, part, sample[image])
    return Entry(fields, load, fault, found)


def _read_member(part: str, member: tarfile.TarInfo) -> bytes:
    """The bytes of a member of a tar file, which may be closed by now."""
    with paths.path_of(part).open("rb") as file:
        file.seek(member.offset_data)
        return file.read(member.size)


class ParquetExamples(ShardExamples):
    """img2dataset's formats ``parquet`` (embedded images) and ``files`` (images in folders)."""

    default_columns = Columns()

    def _entries(self, part: str) -> Iterator[Entry]:
        folder = paths.path_of(part).with_suffix("")
        for _, row in read_table(part):
            if isinstance(row, RowFault):
                yield Entry({}, image_files.no_image(), row.reason)
                continue
            found = tuple(row)
            jpg = _embedded(row)
            fault = None
            load: Callable[[], bytes] = functools.partial(bytes, jpg or b"")
            if row.get("status", "success") != "success":
                fault = "not downloaded"
            elif not jpg and row.get("key") in (None, ""):
                load = image_files.no_image(no_name(["jpg", "key"], found, "field"))
            elif not jpg:
                load = functools.partial(image_files.read_file, folder / f"{row['key']}.jpg")
            yield Entry(row, load, fault, found)

    @functools.cached_property
    def count(self) -> int:
        """The number of rows."""
        return sum(1 for part in self.parts for _ in self._entries(part))


def _embedded(row: dict) -> bytes | None:
    """Removes and returns a row's encoded image, in img2dataset's or Hugging Face's layout."""
    for name in ("jpg", "image"):
        value = row.get(name)
        value = value.get("bytes") if isinstance(value, dict) else value
        if isinstance(value, bytes) and value:
            row.pop(name)
            return value
    return None
