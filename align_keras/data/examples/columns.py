"""Which columns or fields of a source hold what, and an example from a dict of them."""

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
#: Width and height on the web, as img2dataset names them.
SIZES = ("original_width", "original_height")
_OWN_FIELDS = {"jpg", "txt", "key", "image_id"}


@dataclasses.dataclass(frozen=True)
class Columns:
    """Which columns or fields of a source hold what; a part of a command's settings.

    Raises:
        InputError: if ``select`` or ``carry``, which it names, cannot be understood.
    """

    image: str = "image"
    """Path of the image; of tables alone."""
    archive: str = "archive"
    """Name of a zip beside the images that holds it; of tables alone, may be absent."""
    caption: str = ""
    """The caption or a list of them; empty: the first there is of ``CAPTION_COLUMNS``."""
    unsafe: str = ""
    """Column that marks unsafe content; empty: none."""
    carry: tuple[str, ...] = ()
    """Columns to copy into the records, as ``COLUMN`` or ``FIELD=COLUMN``."""
    select: tuple[str, ...] = ()
    """Only rows with these values are read, as ``COLUMN=VALUE``."""
    image_id: tuple[str, ...] = ("image_id", "url", "key")
    """Fields of shards that identify the image, the first there is."""
    has_lists: bool = True
    """Whether a caption may be a list that is written as text."""

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
        """Whether a row has every selected value; rows that are no objects stay, to be counted."""
        conditions = (condition.partition("=") for condition in self.select)
        return not isinstance(row, Mapping) or all(
            value in (str(row.get(column)), as_text(row.get(column)))
            for column, _, value in conditions
        )

    def texts_of(
        self, row: Mapping, found: Collection[str] | None = None, noun: str = "column"
    ) -> tuple[object, ...]:
        """The values of a row's caption columns; one NoCaption if there are none.

        Args:
            row: its values by column.
            found: names for the message, if they are others than the row's.
            noun: what a column is called there.
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
        """The captions in a field: a list's items, also of a list that is written as text."""
        if isinstance(value, str) and self.has_lists:
            value = text_lists.parsed(value, is_list=name == "captions")
        return tuple(value) or (None,) if isinstance(value, list) else (value,)

    @property
    def caption_names(self) -> tuple[str, ...]:
        """The columns in which captions are looked for."""
        return (self.caption,) if self.caption else CAPTION_COLUMNS

    def check(
        self,
        names: Collection[str],
        place: Place,
        needs: Collection[str],
        noun: str = "column",
        of_users: Collection[str] = ("archive_column", "unsafe_field", "carry", "select"),
    ) -> None:
        """Raises InputError if a column is missing that is needed or was named.

        Args:
            names: the columns that are there.
            place: place of the table.
            needs: which of ``image``, ``captions`` and ``class`` must be there.
            noun: what a column is called there.
            of_users: settings whose columns must be there too, if they were given.
        """
        for setting, choices in self._wanted(needs):
            is_asked = setting in ("", "image_column", "caption_column", *of_users)
            if is_asked and not any(name in names for name in choices):
                problem = no_name(choices, names, noun)
                raise InputError(problem, place, _nearest(choices, names), setting)

    def _wanted(self, needs: Collection[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Columns of which one is needed, and the setting that named them or an empty string."""
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


#: What training reads in a shard, and evaluation of one therefore too.
PACKED = Columns(caption="txt", image_id=("image_id",), has_lists=False)


def no_name(wanted: Collection[str], found: Collection[str], noun: str = "column") -> str:
    """Says which columns are missing and which exist: ``no column image, only filepath, title``."""
    *firsts, last = wanted
    missing = f"{', '.join(firsts)} or {last}" if firsts else last
    return f"no {noun} {missing}, only {listing(found)}"


def listing(names: Collection[str]) -> str:
    """Names for a message, shortened if there are many."""
    shown = [storable(name)[:40] for name in names if name]
    return listed(shown) or "nothing"


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
        fields: values by the names of columns or fields.
        columns: which of them hold what.
        place: as in ``Example``, like ``key``, ``image_id``, ``load`` and ``fault``.
        key: likewise.
        image_id: likewise; what cannot be written as UTF-8 is escaped.
        load: likewise.
        fault: likewise.
        found: the names for messages, if they are not those of ``fields``.
        noun: what a field is called there.
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
