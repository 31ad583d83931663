"""Checks the columns of a table before rows are read or anything is loaded.

This module does not import TensorFlow, so a misspelt name is reported at once.
"""

from collections.abc import Collection, Sequence

from align_keras import paths
from align_keras.data.examples.columns import Columns
from align_keras.data.examples.example import as_text, storable
from align_keras.data.examples.tables import RowFault, ending_of, header_of, read_table
from align_keras.errors import InputError, Place
from align_keras.wording import listed


def check_data(data: str, select: Sequence[str], needs: str = "") -> None:
    """Calls ``check_columns`` if the data set is a table.

    Args:
        data: as in ``opening.open_examples``.
        select: conditions, as ``COLUMN=VALUE``.
        needs: ``captions`` or ``class``, needed in addition to the image; empty for neither.
    """
    # Remote tables are checked when they are opened, which needs TensorFlow.
    if ending_of(data) and not paths.is_remote(data) and not paths.path_of(data).is_dir():
        check_columns(data, Columns(select=tuple(select)), ("image", needs))


def check_columns(
    path: str | paths.AnyPath, columns: Columns, needs: Collection[str] = ("image",)
) -> None:
    """Raises InputError if a table lacks a column that is required or was named by the user.

    For CSV, TSV and Parquet, only the header is read. For JSONL, rows are read until every column
    has been found.

    Args:
        path: path of the table.
        columns: ``Columns``.
        needs: which of ``image``, ``captions`` and ``class`` must be there.

    Raises:
        InputError: also if the table cannot be read, as in ``tables.read_table``.
    """
    place = Place(str(path))
    header = header_of(path)
    if header is not None:
        # An empty file also has no rows; the reader of the rows reports that.
        if any(header):
            columns.check(header, place, needs)
        return
    found: dict[str, None] = {}
    fault = None
    for _, row in read_table(path):
        if isinstance(row, RowFault) or row.keys() <= found.keys():
            continue
        found.update(dict.fromkeys(row))
        try:
            columns.check(found, place, needs)
        except InputError as error:
            fault = error
        else:
            return
    if fault is not None:
        raise fault


def values_of(path: str | paths.AnyPath, select: Sequence[str]) -> str:
    """The values in a table when no row has the selected ones, as "split is train, test".

    Args:
        path: path of the table.
        select: conditions, as ``COLUMN=VALUE``. All values of these columns are named, or the first
            ones if there are many.
    """
    found: dict[str, dict[str, None]] = {item.partition("=")[0]: {} for item in select}
    for _, row in read_table(path):
        if not isinstance(row, RowFault):
            for column in found.keys() & row.keys():
                value = row[column]
                found[column][as_text(value) or str(value)] = None
    values = {column: listed([storable(one)[:40] for one in own]) for column, own in found.items()}
    return "; ".join(f"{column} is {own}" for column, own in values.items() if own)
