"""Shared by the settings of all runs: parts, bounds, flat names and JSON.

A class of settings is composed of parts, which are small frozen dataclasses. A builder gets only
the part that it needs. Outside, settings are flat: ``batch_size`` is a flag and a key of
``settings.json``, whatever part it belongs to. A group, such as the phase ``head``, keeps its name:
``head.learning_rate``.

Annotations of a field state its bounds, whether it is a path, and whether a resumed run may change
it::

    log_every: Annotated[int, AtLeast(1), FREE_ON_RESUME] = 100
"""

import dataclasses
import json
import typing
from collections.abc import Iterator
from typing import Any, Self

from align_keras.errors import InputError, concerning
from align_keras.paths import AnyPath, PathMark

#: Marks a setting that a resumed run may change: where the run works, what it reports, and when.
FREE_ON_RESUME = "free on resume"
#: Marks a setting of most commands; the short help shows only these.
COMMON = "common"


@dataclasses.dataclass(frozen=True)
class Heading:
    """Marks the first setting of a group in a class without parts; the help shows the title."""

    title: str


@dataclasses.dataclass(frozen=True)
class Bound:
    """A bound on a setting: a number, or the name of another setting."""

    limit: float | str


class AtLeast(Bound):
    """The setting is at least the limit."""

    wrong, remedy, other = "below", "raise <{name}> to {limit} or more", "lower"

    def holds(self, value: float, limit: float) -> bool:
        """Whether a value is within the bound; NaN never is."""
        return value >= limit


class AtMost(Bound):
    """The setting is at most the limit."""

    wrong, remedy, other = "above", "lower <{name}> to {limit} or less", "raise"

    def holds(self, value: float, limit: float) -> bool:
        """Whether a value is within the bound."""
        return value <= limit


class Above(Bound):
    """The setting is above the limit."""

    wrong, remedy, other = "not above", "raise <{name}>", "lower"

    def holds(self, value: float, limit: float) -> bool:
        """Whether a value is within the bound."""
        return value > limit


class Below(Bound):
    """The setting is below the limit."""

    wrong, remedy, other = "not below", "lower <{name}>", "raise"

    def holds(self, value: float, limit: float) -> bool:
        """Whether a value is within the bound."""
        return value < limit


class Part:
    """Base class of parts; the name of a part does not occur in the names of its settings."""


class Settings:
    """Base class of frozen dataclasses of settings. All fields have defaults."""

    def flat(self) -> dict[str, Any]:
        """Every setting by name; a setting in a group is called ``head.steps``, for example."""
        return {name: value for name, value, _ in _leaves(self)}

    def of_all_workers(self) -> dict[str, Any]:
        """The settings that all workers must share; a path becomes ``given`` or ``none``.

        Names of hubs, TFDS sets and presets are kept.
        """
        found = {}
        for name, value, marks in _leaves(self):
            path_marks = [mark for mark in marks if isinstance(mark, PathMark)]
            is_path = path_marks and not any(mark.is_name(value) for mark in path_marks)
            found[name] = ("given" if value else "none") if is_path else value
        return found

    def replace(self, **values: Any) -> Self:
        """A copy with other values, by setting name: ``settings.replace(steps=5)``.

        Raises:
            TypeError: if a setting does not exist.
        """
        replaced = {}
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            part = getattr(self, field.name)
            if isinstance(part, Part):
                names = {own.name for own in dataclasses.fields(part)}  # type: ignore[arg-type]
                own = {name: values.pop(name) for name in names & values.keys()}
                replaced[field.name] = dataclasses.replace(part, **own)  # type: ignore[type-var]
            elif field.name in values:
                replaced[field.name] = values.pop(field.name)
        if values:
            raise TypeError(f"no setting {', '.join(sorted(values))}")
        return dataclasses.replace(self, **replaced)  # type: ignore[type-var]

    def check(self) -> None:
        """Checks paths, and every value against its bounds; None passes, since it is not yet known.

        Raises:
            InputError: if a value is invalid; names the setting and the remedy.
        """
        values = self.flat()
        for name, value, marks in _leaves(self):
            for mark in marks:
                if isinstance(mark, PathMark):
                    with concerning(name):
                        mark.check(value)
        found = [
            (name, value, bound)
            for name, value, marks in _leaves(self)
            for bound in marks
            if isinstance(bound, Bound)
        ]
        # Bounds by numbers come first, so that an invalid setting is not blamed on another one.
        for name, value, bound in sorted(found, key=lambda one: isinstance(one[2].limit, str)):
            _check_bound(name, value, bound, values)

    def as_json(self) -> str:
        """The settings as JSON text: flat, with groups as objects."""
        values: dict[str, Any] = {}
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            is_value = not dataclasses.is_dataclass(value) or isinstance(value, type)
            own = value if is_value else dataclasses.asdict(value)
            values |= own if isinstance(value, Part) else {field.name: own}
        return json.dumps(values, indent=2) + "\n"

    def check_resumable(self, before: dict[str, Any], workdir: AnyPath) -> None:
        """Checks that a run that began with other settings may continue with these settings.

        Args:
            before: contents of the run's ``settings.json``; missing settings have their defaults.
            workdir: the run's directory.

        Raises:
            InputError: if a setting must not differ; names the setting.
        """
        began = dotted(json.loads(type(self)().as_json())) | dotted(before)
        now = dotted(json.loads(self.as_json()))
        # The warm-up comes last: its default follows from the steps, which are then to blame.
        for name, _, marks in sorted(_leaves(self), key=lambda leaf: leaf[0] == "warmup_steps"):
            if FREE_ON_RESUME not in marks and began[name] != now[name]:
                remedy = "resume with that, or give another <workdir>"
                if name == "steps":
                    # The learning-rate schedule depends on the total number of steps.
                    remedy = (
                        "resume with that, or train its model further with "
                        f"<model>={workdir} in another <workdir>"
                    )
                raise InputError(
                    f"the run in {workdir} began with {began[name]!r}, not {now[name]!r}",
                    remedy=remedy,
                    setting=name,
                )


def _leaves(part: Any, prefix: str = "") -> Iterator[tuple[str, Any, tuple[Any, ...]]]:
    """Name, value and marks of every setting."""
    hints = typing.get_type_hints(type(part), include_extras=True)
    for field in dataclasses.fields(part):
        value = getattr(part, field.name)
        if isinstance(value, Part):
            yield from _leaves(value, prefix)
        elif dataclasses.is_dataclass(value):
            yield from _leaves(value, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, value, getattr(hints[field.name], "__metadata__", ())


def _check_bound(name: str, value: Any, bound: Any, values: dict[str, Any]) -> None:
    related = isinstance(bound.limit, str)
    limit = values[bound.limit] if related else bound.limit
    if value is None or limit is None or bound.holds(value, limit):
        return
    remedy = bound.remedy.format(name=name, limit=limit)
    if related:
        remedy += f", or {bound.other} <{bound.limit}>"
    raise InputError(f"{value} is {bound.wrong} {limit}", remedy=remedy, setting=name)


def dotted(values: dict[str, Any]) -> dict[str, Any]:
    """``{"head": {"steps": 3}}`` -> ``{"head.steps": 3}``."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            found |= {f"{name}.{own}": one for own, one in value.items()}
        else:
            found[name] = value
    return found
