"""Reads settings that are paths, and checks their file systems."""

import dataclasses
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from align_keras.errors import concerning
from align_keras.paths import PathMark, scheme
from align_keras.remote_files import check_file_system

T = TypeVar("T")


def with_paths(settings: T) -> T:
    """Settings with every path read by ``PathMark.read``, which expands ``~`` to the home folder.

    Args:
        settings: a dataclass, which may contain other dataclasses. Path fields are marked, for
            example ``workdir: Annotated[str, paths.LOCAL]``.

    Raises:
        InputError: if an address is of an unsupported kind; names the field.
    """
    read: dict[str, Any] = {}
    for name, value, mark in _fields_of(settings):
        if mark is None:
            read[name] = with_paths(value)
        else:
            with concerning(name):
                read[name] = mark.read(value)
    return dataclasses.replace(settings, **read)  # type: ignore[type-var]


def check_file_systems(settings: Any) -> None:
    """Checks that TensorFlow supports the file system of every path, such as ``gs://``.

    Args:
        settings: result of ``with_paths``; objects other than dataclasses have no paths.

    Raises:
        InputError: if an address has an unknown file system; names the field.
    """
    if not dataclasses.is_dataclass(settings):
        return
    for name, value, mark in _fields_of(settings):
        if mark is None:
            check_file_systems(value)
            continue
        with concerning(name):
            for address in mark.remote_parts(value):
                check_file_system(address)


def setting_of(settings: Any, file: str) -> str:
    """The name of the path setting that a file belongs to; empty if there is none, or several.

    A file belongs to a setting that names it, a folder above it, or something below it.

    Args:
        settings: as in ``check_file_systems``.
        file: path of a local file or folder.
    """
    if not dataclasses.is_dataclass(settings):
        return ""
    place = Path(file).absolute()
    found = []
    for name, value, mark in _fields_of(settings):
        if mark is None:
            found.append(setting_of(value, file))
        elif isinstance(value, str) and value and not scheme(value):
            own = Path(value).absolute()
            if own.is_relative_to(place) or place.is_relative_to(own):
                found.append(name)
    names = sorted(filter(None, found))
    return names[0] if len(names) == 1 else ""


def _fields_of(settings: Any) -> Iterator[tuple[str, Any, PathMark | None]]:
    """Name, value and mark of path fields, and of fields that contain other dataclasses."""
    hints = typing.get_type_hints(type(settings), include_extras=True)
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            yield field.name, value, None
        for mark in getattr(hints[field.name], "__metadata__", ()):
            if isinstance(mark, PathMark):
                yield field.name, value, mark
