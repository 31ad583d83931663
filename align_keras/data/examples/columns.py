"""Which columns or fields of a source hold what, and an example from a dict of them."""

import dataclasses
import functools
from collections.abc import Callable, Mapping

from align_keras.data.examples.example import Example, as_label, as_text, caption_fault
from align_keras.errors import InputError, Place

CAPTION_COLUMNS = ("captions", "caption", "txt", "text")
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
    """What marks unsafe content; empty: nothing does."""
    carry: tuple[str, ...] = ()
    """What is copied into the records, as ``COLUMN`` or ``FIELD=COLUMN``."""
    select: tuple[str, ...] = ()
    """Only rows with these values are read, as ``COLUMN=VALUE``."""
    image_id: tuple[str, ...] = ("image_id", "url", "key")
    """Fields of shards that identify the image, the first there is."""

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

    def selects(self, row: Mapping | None) -> bool:
        """Whether a row has every selected value; one that is no object stays, to be counted."""
        conditions = (condition.partition("=") for condition in self.select)
        return row is None or all(str(row.get(column)) == value for column, _, value in conditions)

    def texts_of(self, row: Mapping) -> tuple[object, ...]:
        """What stands in a row where captions are expected; of a row without any, one None."""
        names = [self.caption] if self.caption else CAPTION_COLUMNS
        values = [listed(row[name]) for name in names if row.get(name)]
        usable = (value for value in values if any(caption_fault(text) is None for text in value))
        return next(usable, values[0] if values else (None,))


#: What training reads in a shard, and evaluation of one therefore too.
PACKED = Columns(caption="txt", image_id=("image_id",))


def listed(value: object) -> tuple[object, ...]:
    """The items of a list, or a value by itself."""
    return tuple(value) if isinstance(value, list) else (value,)


def example_of(
    fields: Mapping | None,
    columns: Columns,
    place: Place,
    key: str,
    image_id: str,
    load: Callable[[], bytes],
    fault: str | None = None,
) -> Example:
    """An ``Example`` from a dict of fields, None where they cannot be read."""
    fields = fields or {}
    values = {field: fields.get(column) for field, column in columns.carried.items()}
    return Example(
        place=place,
        image_id=image_id,
        load=functools.partial(_refuse, fault) if fault else load,
        texts=columns.texts_of(fields),
        label=as_label(fields.get("label")),
        class_name=as_text(fields.get("class_name")),
        size=_size_of(fields),
        unsafe=fields.get(columns.unsafe) if columns.unsafe else None,
        carried={field: value for field, value in values.items() if value is not None},
        fault=fault,
        key=key,
    )


def _size_of(fields: Mapping) -> tuple[int, int] | None:
    """Width and height on the web, as img2dataset names them."""
    width, height = fields.get("original_width"), fields.get("original_height")
    if isinstance(width, int) and isinstance(height, int) and width > 0 and height > 0:
        return width, height
    return None


def _refuse(fault: str) -> bytes:
    """The ``load`` of an example with a fault."""
    raise OSError(fault)


def no_image() -> bytes:
    """The ``load`` of an example without an image."""
    raise FileNotFoundError("no image")
