"""Text columns of a Parquet table, read without a Python object per row."""

from collections.abc import Iterator, Sequence
from typing import Any

from align_keras.data.examples.tables import opened_parquet

#: Types of text columns, as ``types_of`` names them.
TEXT_TYPES = ("string", "large_string")


def types_of(table: str) -> dict[str, str]:
    """Arrow types of a Parquet table's columns, by column name.

    Raises:
        InputError: as in ``tables.read_table``.
    """
    with opened_parquet(table) as file:
        return {field.name: str(field.type) for field in file.schema_arrow}


def count_rows(table: str) -> int:
    """The number of rows of a Parquet table; raises the errors of ``types_of``."""
    with opened_parquet(table) as file:
        return file.metadata.num_rows


def read_texts(table: str, columns: Sequence[str]) -> Iterator[Any]:
    """Yields the given columns as a series of ``pyarrow.RecordBatch``.

    Args:
        table: path of a Parquet table.
        columns: names of text columns.

    Raises:
        InputError: as in ``tables.read_table``.
    """
    import pyarrow

    with opened_parquet(table) as file:
        for batch in file.iter_batches(columns=list(columns)):
            own = batch.select(list(columns))
            try:
                own.validate(full=True)
            except pyarrow.ArrowInvalid:
                own.to_pylist()  # raises the error that a reader of rows would
                raise
            yield own
