"""Columns of texts of a Parquet table, read without a Python object for each row."""

from collections.abc import Iterator, Sequence
from typing import Any

from align_keras.data.examples.tables import opened_parquet

#: The types of columns of texts, as ``types_of`` names them.
TEXT_TYPES = ("string", "large_string")


def types_of(table: str) -> dict[str, str]:
    """The types of a Parquet table's columns by their names, as Arrow calls them.

    Raises:
        InputError: as in ``tables.read_table``.
    """
    with opened_parquet(table) as file:
        return {field.name: str(field.type) for field in file.schema_arrow}


def count_rows(table: str) -> int:
    """How many rows a Parquet table has; raises as ``types_of``."""
    with opened_parquet(table) as file:
        return file.metadata.num_rows


def read_texts(table: str, columns: Sequence[str]) -> Iterator[Any]:
    """Yields a ``pyarrow.RecordBatch`` of these columns after another.

    Args:
        table: path of a Parquet table.
        columns: names of columns of texts.

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
                own.to_pylist()  # raises what a reader of rows would
                raise
            yield own
