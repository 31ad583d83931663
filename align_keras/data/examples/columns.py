"""Which columns or fields of a source hold the image, captions and so on; examples from dicts."""

import dataclasses
import functools
from collections.abc import Callable, Collection, Iterator, Mapping

from align_keras.data.examples import image_files, text_lists
from align_keras.data.examples.example import (
    Example,
    NoCaption,
    as_label,
    as_text,
    caption_fault,
    is_absent,
    storable,
)
from align_keras.errors import InputError, Place
from align_keras.wording import listed, meant

CAPTION_COLUMNS = ("captions", "caption", "txt", "text")
#: Original width and height of an image on the web, under img2dataset's names.
SIZES = ("original_width", "original_height")
_OWN_FIELDS = {"jpg", "txt", "key", "image_id"}


@dataclasses.dataclass(frozen=True)
class Columns:
    """The column or field for each kind of content in a source; part of a command's settings.

    Raises:
        InputError: if ``select`` or ``carry`` is invalid; the error names the setting.
    """

    image: str = "image"
    """Path of the image; for tables only."""
    archive: str = "archive"
    """Name of a zip archive in the image folder that holds the image; for tables only, optional."""
    caption: str = ""
    """The caption or a list of captions; empty: the first of ``CAPTION_COLUMNS`` that exists."""
    unsafe: str = ""
    """Column that marks unsafe content; empty: none."""
    carry: tuple[str, ...] = ()
    """Columns to copy into the records, as ``COLUMN`` or ``FIELD=COLUMN``."""
    select: tuple[str, ...] = ()
    """Only rows with these values are read, given as ``COLUMN=VALUE``."""
    image_id: tuple[str, ...] = ("image_id", "url", "key")
    """Fields of shards that identify the image; the first that exists is used."""
    has_lists: bool = True
    """Whether a caption may be a list written as text."""

    def __post_init__(self) -> None:
        """Checks the values."""
        for condition in self.select:
            if "=" not in condition:
                raise InputError(f"{condition!r} must be COLUMN=VALUE", setting="select")
        if taken := self.carried.keys() & _OWN_FIELDS:
            raise InputError(
                f"{min(taken)} is a field that every record has",
                remedy="choose another name",
                setting="carry",
            )

    @functools.cached_property
    def carried(self) -> dict[str, str]:
        """The column of each carried field."""
        fields = [item.partition("=") for item in self.carry]
        return {field: column or field for field, _, column in fields}

    def selects(self, row: object) -> bool:
        """Whether a row has every selected value. Rows that are not objects pass, to be counted."""
        conditions = (condition.partition("=") for condition in self.select)
        return not isinstance(row, Mapping) or all(
            value in (str(row.get(column)), as_text(row.get(column)))
            for column, _, value in conditions
        )

    def texts_of(
        self, row: Mapping, found: Collection[str] | None = None, noun: str = "column"
    ) -> tuple[object, ...]:
        """The values of a row's caption columns; a single NoCaption if there are no such columns.

        Args:
            row: values by column.
            found: column names for the message, if they differ from those of the row.
            noun: the word for a column in the message.
        """
        there = [name for name in self.caption_names if name in row]
        if not there:
            names = row if found is None else found
            return (NoCaption(no_name(self.caption_names, names, noun)),)
        values = [self._listed(name, row[name]) for name in there]
        usable = (value for value in values if any(caption_fault(text) is None for text in value))
        stated = (value for value in values if not all(map(_is_blank, value)))
        return next(usable, next(stated, values[0]))

    def _listed(self, name: str, value: object) -> tuple[object, ...]:
        """The captions in a field: the items of a list, or of a list written as text."""
        if isinstance(value, str) and self.has_lists:
            value = text_lists.parsed(value, is_list=name == "captions")
        return tuple(value) or (None,) if isinstance(value, list) else (value,)

    @property
    def caption_names(self) -> tuple[str, ...]:
        """The columns that may hold captions."""
        return (self.caption,) if self.caption else CAPTION_COLUMNS

    def check(
        self,
        names: Collection[str],
        place: Place,
        needs: Collection[str],
        noun: str = "column",
        of_users: Collection[str] = ("archive_column", "unsafe_field", "carry", "select"),
    ) -> None:
        """Raises InputError if a column is missing that is required or was named by the user.

        Args:
            names: the columns of the table.
            place: place of the table.
            needs: which of ``image``, ``captions`` and ``class`` must be there.
            noun: the word for a column in the message.
            of_users: settings whose columns must also exist if the user gave them.
        """
        for setting, choices in self._wanted(needs):
            is_asked = setting in ("", "image_column", "caption_column", *of_users)
            if is_asked and not any(name in names for name in choices):
                problem = no_name(choices, names, noun)
                raise InputError(problem, place, _nearest(choices, names), setting)

    def _wanted(self, needs: Collection[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Yields for each need the setting that named a column, or "", and the allowed columns."""
        if "image" in needs:
            yield "image_column" if self.image != Columns.image else "", (self.image,)
        if "captions" in needs:
            yield "caption_column" if self.caption else "", self.caption_names
        if "class" in needs:
            yield "", ("class_name", "label")
        if self.archive != Columns.archive:
            yield "archive_column", (self.archive,)
        if self.unsafe:
            yield "unsafe_field", (self.unsafe,)
        yield from (("carry", (column,)) for column in self.carried.values())
        yield from (("select", (item.partition("=")[0],)) for item in self.select)


#: The fields of a shard that training reads; evaluation of shards reads the same ones.
PACKED = Columns(caption="txt", image_id=("image_id",), has_lists=False)


def no_name(wanted: Collection[str], found: Collection[str], noun: str = "column") -> str:
    """Names missing and existing columns: ``no column image, only filepath, title``."""
    *firsts, last = wanted
    missing = f"{', '.join(firsts)} or {last}" if firsts else last
    others = f"only {listing(found)}" if any(found) else "and no other"
    return f"no {noun} {missing}, {others}"


def listing(names: Collection[str]) -> str:
    """Names for a message; a long list is shortened."""
    return listed([storable(name)[:40] for name in names if name]) or "nothing"


def _nearest(wanted: Collection[str], found: Collection[str]) -> str:
    """The name that was probably meant."""
    names = [storable(name) for name in found if name]
    return next(filter(None, (meant(name, names) for name in wanted)), "")


def _is_blank(value: object) -> bool:
    return is_absent(value) or (isinstance(value, str) and not value.strip())


def example_of(
    fields: Mapping | None,
    columns: Columns,
    place: Place,
    key: str,
    image_id: str,
    load: Callable[[], bytes],
    fault: str | None = None,
    found: Collection[str] | None = None,
    noun: str = "column",
) -> Example:
    """An ``Example`` from a dict of fields; ``fields`` is None if they cannot be read.

    Args:
        fields: values by column or field name.
        columns: the column or field for each kind of content.
        place: as in ``Example``.
        key: as in ``Example``.
        image_id: as in ``Example``; characters that UTF-8 cannot hold are escaped.
        load: as in ``Example``.
        fault: as in ``Example``.
        found: names for messages, if they differ from those of ``fields``.
        noun: the word for a field in messages.
    """
    fields = fields or {}
    names = tuple(fields if found is None else found)
    values = {field: fields.get(column) for field, column in columns.carried.items()}
    return Example(
        place=place,
        image_id=storable(image_id),
        load=image_files.no_image(fault) if fault else load,
        texts=columns.texts_of(fields, names, noun),
        label=as_label(fields.get("label")),
        class_name=as_text(fields.get("class_name")),
        size=_size_of(fields),
        unsafe=fields.get(columns.unsafe) if columns.unsafe else None,
        carried={field: value for field, value in values.items() if not is_absent(value)},
        fault=fault,
        key=key,
        found=names,
    )


def _size_of(fields: Mapping) -> tuple[int, int] | None:
    width, height = (fields.get(name) for name in SIZES)
    if isinstance(width, int) and isinstance(height, int) and width > 0 and height > 0:
        return width, height
    return None
