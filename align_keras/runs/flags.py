"""The flags of a class of settings: their names, types and help texts, read from its fields.

tyro turns the fields into a parser. The help pages and error messages need the same facts, which
tyro does not expose.
"""

import ast
import dataclasses
import inspect
import itertools
import textwrap
import types
import typing
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import tyro

from align_keras.paths import PathMark
from align_keras.runs.settings import COMMON, Heading

#: Marks a nested class whose flags have no prefix; groups inside it keep their prefixes.
WITHOUT_PREFIX = tyro.conf.arg(name="")
#: The default of a required flag.
REQUIRED = dataclasses.MISSING


@dataclasses.dataclass(frozen=True)
class Flag:
    """A setting on the command line."""

    name: str
    """The setting's name in errors: ``batch_size``, or ``head.steps`` in a group."""
    kind: Any
    """The type of the setting, without marks."""
    marks: tuple[Any, ...]
    """The annotations other than the type."""
    default: Any
    """The value if the flag is not given; ``REQUIRED`` if it must be given."""
    part: str
    """The group of the flag in the help; empty for none."""
    owner: type
    """The class that has the field."""

    @property
    def is_positional(self) -> bool:
        """Whether the value is given without a flag name."""
        return tyro.conf.Positional in self.marks

    @property
    def is_common(self) -> bool:
        """Whether the short help shows the flag."""
        return COMMON in self.marks or self.default is REQUIRED

    @property
    def is_path(self) -> bool:
        """Whether the value is a path, an address or a pattern."""
        return any(isinstance(mark, PathMark) for mark in self.marks)

    @property
    def is_switch(self) -> bool:
        """Whether the flag takes no value, such as ``--restart`` and ``--no-restart``."""
        return self.kind is bool

    @property
    def takes_many(self) -> bool:
        """Whether any number of values may follow the flag."""
        return typing.get_origin(self.kind) is tuple

    @property
    def kinds(self) -> tuple[Any, ...]:
        """The types of a single value."""
        kind = typing.get_args(self.kind)[0] if self.takes_many else self.kind
        is_union = typing.get_origin(kind) in (types.UnionType, typing.Union)
        return typing.get_args(kind) if is_union else (kind,)

    @property
    def choices(self) -> tuple[str, ...]:
        """The allowed values; empty if any value is allowed."""
        found: list[str] = []
        for kind in self.kinds:
            if typing.get_origin(kind) is Literal:
                found += map(str, typing.get_args(kind))
            elif kind is bool:
                found += ["True", "False"]
        return (*found, "None") if found and types.NoneType in self.kinds else tuple(found)

    def spellings(self) -> tuple[str, ...]:
        """The setting names of the flag; a switch has a second name that begins with ``no_``."""
        group, dot, own = self.name.rpartition(".")
        return (self.name, f"{group}{dot}no_{own}") if self.is_switch else (self.name,)


def flag_of(name: str) -> str:
    """The flag of a setting: ``batch_size`` -> ``--batch-size``."""
    return "--" + name.replace("_", "-")


def flags_of(settings_class: type, default: Any = None) -> list[Flag]:
    """The flags of a class of settings, in the order of its fields; fixed fields have no flag.

    Args:
        settings_class: a dataclass, which may contain other dataclasses.
        default: an instance with the default values; None for the defaults of the class.
    """
    return list(_walk(settings_class, default, "", ""))


def _walk(settings_class: type, default: Any, prefix: str, part: str) -> Iterator[Flag]:
    hints = typing.get_type_hints(settings_class, include_extras=True)
    for field in dataclasses.fields(settings_class):
        kind, marks = _unmarked(hints[field.name])
        value = getattr(default, field.name) if default is not None else _default_of(field)
        if dataclasses.is_dataclass(kind):
            is_flat = tyro.conf.OmitArgPrefixes in marks or WITHOUT_PREFIX in marks
            own = prefix if is_flat else f"{prefix}{field.name}."
            yield from _walk(typing.cast(type, kind), value, own, field.name)
            continue
        if tyro.conf.Fixed in marks:
            continue
        part = next((mark.title for mark in marks if isinstance(mark, Heading)), part)
        yield Flag(prefix + field.name, kind, marks, value, part, settings_class)


def _unmarked(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    if typing.get_origin(hint) is Annotated:
        return hint.__origin__, hint.__metadata__
    return hint, ()


def _default_of(field: dataclasses.Field) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return REQUIRED if field.default is tyro.MISSING else field.default


def texts_of(settings_class: type) -> dict[str, str]:
    """The docstrings below the fields of a class and its bases, by field."""
    found: dict[str, str] = {}
    for own in reversed(settings_class.__mro__):
        if not dataclasses.is_dataclass(own):
            continue
        [tree] = ast.parse(textwrap.dedent(inspect.getsource(own))).body
        for field, text in itertools.pairwise(typing.cast(ast.ClassDef, tree).body):
            match field, text:
                case (
                    ast.AnnAssign(target=ast.Name(id=name)),
                    ast.Expr(value=ast.Constant(value=str(doc))),
                ):
                    found[name] = " ".join(doc.split())
    return found
