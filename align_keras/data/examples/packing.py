"""Tables of captions, folders of images, and what makes a pair unusable."""

import csv
import io
import json
import lzma
import re
import zipfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from align_keras.preprocessing.images import MAX_PIXELS

CAPTION_COLUMNS = ("captions", "caption", "txt", "text")
# A field of a TSV: quoted up to the next tab, its inner quotes doubled, or as it stands.
_TSV_FIELD = re.compile(r'(?:^|\t)("(?:[^"]|"")*"(?=\t|$)|[^\t]*)')
#: A longer file is no photograph; of an archive a megabyte can unpack to gigabytes.
MAX_FILE_BYTES = 1 << 28
#: What zip raises on a damaged, encrypted or unknown member, and the file system on a file.
UNREADABLE = (OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error, lzma.LZMAError)


def read_table(path, flag="--captions"):
    """Reads rows from JSONL, CSV, TSV or Parquet, by the file's extension.

    A TSV holds one row a line. A quote in it is a character like others, unless it and another
    enclose a field whose inner quotes are doubled, as pandas writes one.

    Args:
        path: the table.
        flag: what named it, for messages.

    Yields:
        ``(where, row)``: the place in the file for a message, and a dict, or None for a line
        of JSONL that is no JSON object.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the extension is another one, the file is not UTF-8 or unreadable, a quote
            of a CSV is not closed, or pyarrow is missing for Parquet.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{flag}: no file {path}")
    extension = path.suffix.lower()
    if extension == ".parquet":
        yield from _read_parquet(path, flag)
        return
    readers = {".jsonl": _read_jsonl, ".csv": _read_csv, ".tsv": _read_tsv}
    if extension not in readers:
        raise ValueError(f"--captions: {path} must end in .jsonl, .csv, .tsv or .parquet")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from readers[extension](file, path)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"--captions: {path} is not UTF-8 ({error.reason} near byte {error.start}); "
            "convert it, for example with iconv"
        ) from None


def _read_jsonl(file, _):
    for number, line in enumerate(file, 1):
        if line.strip():
            yield f"line {number}", _parse_object(line)


def _read_csv(file, path):
    # Strict: a quote that is not closed would take the rows after it into its field.
    reader = csv.DictReader(file, strict=True)
    first = 1
    try:
        if reader.fieldnames is not None:
            first = reader.line_num + 1
        for row in reader:
            yield f"line {reader.line_num}", row
            first = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(
            f"--captions: {path}: the row from line {first} on: {error}; close its quotes, and "
            "double those inside a field"
        ) from None


def _read_tsv(file, _):
    header = None
    for number, line in enumerate(file, 1):
        line = line.rstrip("\r\n")
        fields = line.split("\t")
        # A quoted field may hold a tab; a caption that begins with a quote is no such field.
        if header and len(fields) > len(header):
            fields = _TSV_FIELD.findall(line)
        fields = [_unquote(field) for field in fields]
        if header is None:
            header = fields
        elif line:
            yield f"line {number}", dict(zip(header, fields, strict=False))


def _unquote(field):
    inner = field[1:-1]
    quoted = len(field) > 1 and field[0] == field[-1] == '"'
    if quoted and '"' not in inner.replace('""', ""):
        return inner.replace('""', '"')
    return field


def _parse_object(line):
    try:
        row = json.loads(line)
    except json.JSONDecodeError:
        return None
    return row if isinstance(row, dict) else None


def _read_parquet(path, flag):
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ValueError(
            f"{flag}: Parquet needs pyarrow; pip install 'align-keras[data]'"
        ) from None
    try:
        batches = pyarrow.parquet.ParquetFile(path).iter_batches()
        number = 0
        for batch in batches:
            for row in batch.to_pylist():
                number += 1
                yield f"row {number}", row
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{flag}: {path} is not readable as Parquet: {error}") from None


class ImageFolder:
    """Reads image files from a folder, and members of the zip archives in it.

    Args:
        directory: the folder.

    Raises:
        FileNotFoundError: if it does not exist.
    """

    def __init__(self, directory):
        self.directory = Path(directory)
        if not self.directory.is_dir():
            raise FileNotFoundError(f"--images: no folder {directory}")
        self._archives = {}

    def read(self, image, archive=None):
        """The bytes of a file, or of a member of ``archive``; FileNotFoundError if absent."""
        if not archive:
            path = self.directory / image
            if not path.is_file():
                raise FileNotFoundError(path)
            return path.read_bytes()
        if archive not in self._archives:
            # Opened once: opening reads the list of all members.
            self._archives[archive] = zipfile.ZipFile(self.directory / archive)
        try:
            member = self._archives[archive].getinfo(image)
        except KeyError:
            raise FileNotFoundError(f"{archive}: {image}") from None
        if member.file_size > MAX_FILE_BYTES:
            raise zipfile.BadZipFile(f"more than {MAX_FILE_BYTES >> 20} MiB")
        return self._archives[archive].read(member)


def image_size(data):
    """Width and height of an encoded image by its header, or None if there is none to read."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.size
    except Exception:  # as in to_jpeg, which says why
        return None


def to_jpeg(data):
    """Checks that an image decodes; a JPEG keeps its bytes, others become JPEG.

    Raises:
        ValueError: with the reason, if it does not decode.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError("image has too many pixels")
            image.load()
            # MPO is a JPEG with a preview behind it, as phones write.
            if image.format in ("JPEG", "MPO") and image.mode in ("RGB", "L"):
                return data
            encoded = io.BytesIO()
            _flatten(image).save(encoded, "JPEG", quality=95)
            return encoded.getvalue()
    except Image.DecompressionBombError:
        raise ValueError("image has too many pixels") from None
    except Exception as error:  # Pillow's readers raise whatever the bytes lead them to
        if str(error) == "image has too many pixels":
            raise
        raise ValueError("image does not decode") from None


def _flatten(image):
    """To RGB, with white behind what is transparent."""
    if image.mode.startswith("I;16"):
        # Pillow would cut all above 255.
        return Image.fromarray((np.asarray(image) >> 8).astype("uint8")).convert("RGB")
    if image.mode not in ("RGBA", "LA", "PA") and "transparency" not in image.info:
        return image.convert("RGB")
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")


def captions_of(row, caption_column=None):
    """The captions of one row, a list; of a row without any, a list of one None."""
    columns = [caption_column] if caption_column else CAPTION_COLUMNS
    value = next((row[name] for name in columns if row.get(name)), None)
    return value if isinstance(value, list) else [value]


def carried_columns(carry):
    """The column that each carried field comes from, by field.

    Args:
        carry: ``COLUMN``, or ``FIELD=COLUMN`` under another name.

    Raises:
        ValueError: if a field is one that every record has.
    """
    fields = [item.partition("=") for item in carry]
    carried = {field: column or field for field, _, column in fields}
    if taken := carried.keys() & {"jpg", "txt", "key", "image_id"}:
        raise ValueError(f"--carry: {min(taken)} is a field of its own; choose another name")
    return carried


def caption_fault(caption):
    """Why a caption cannot be used, or None."""
    if not isinstance(caption, str):
        return "no caption"
    return None if caption.strip() else "empty caption"
