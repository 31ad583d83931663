"""What every recipe does alike: reads flags, ends in one line, and says when TensorFlow loads.

Importing this module loads neither TensorFlow nor Keras, so that flags, settings, ``--help`` and
missing files are answered at once.
"""

import contextlib
import dataclasses
import importlib.machinery
import importlib.util
import os
import re
import signal
import sys
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

import tyro

import align_keras
from align_keras import full_disk, lazy, progress, quiet, signals
from align_keras.errors import InputError, concerning
from align_keras.paths import PathMark
from align_keras.remote_files import check_file_system

T = TypeVar("T")

_START = "reading settings and data"


def run(name: str, parse: Callable[[], T], main: Callable[[T], Any]) -> Any:
    """Runs a recipe: ``main(parse())``.

    TensorFlow takes seconds to load. It does so when something first needs it: ``main`` looks at
    settings and local files before it imports what loads TensorFlow. A line on standard error
    says so then, and ``progress`` shows every other wait. An address such as ``gs://`` among the
    settings needs TensorFlow before ``main``.

    ValueError, OSError, FloatingPointError and TensorFlow's errors end the process with one line
    on standard error and exit code 1, and so does a full disk, whatever its error; others keep
    their stack trace. After Ctrl-C, SIGTERM and SIGHUP unfinished work is removed, and the
    process ends with one line and exit code 130, 143 or 129; a second signal ends it at once.

    Args:
        name: of the recipe, such as ``pretrain.py``; it begins the line.
        parse: reads the settings; without TensorFlow.
        main: does the work.

    Returns:
        What ``main`` returns.
    """
    # If align_keras was imported first, this variable is still set.
    os.environ.pop("ALIGN_KERAS_IMPORT", None)
    full_disk.ignore_unraisable()
    with (
        signals.handled(name),
        progress.shown(_START),
        quiet.python_libraries(),
        quiet.c_libraries(),
        _importing_quietly(),
    ):
        try:
            settings = parse()
            check_file_systems(settings)
            return main(settings)
        except KeyboardInterrupt as stop:
            _end_interrupted(name, stop)
        except Exception as error:
            # A library may make another error of a signal.
            if signals.stop_requested():
                _end_interrupted(name, signals.interrupt())
            shown = full_disk.as_no_space(error) or error
            if is_users(shown):
                sys.exit(f"{name}: {printable(one_line(shown))}")
            raise


def _end_interrupted(name: str, stop: KeyboardInterrupt) -> NoReturn:
    """Ends the process with a line and the exit code of a signal."""
    # Without number where no handler of a command is, such as outside the main thread.
    line, code = "interrupted", 128 + signal.SIGINT
    if isinstance(stop, signals.Interrupted):
        line, code = stop.describe(flag_of), stop.exit_code
    # A bar would be drawn once more, after the line.
    progress.close()
    # A closed terminal takes no line.
    with contextlib.suppress(OSError):
        print(f"{name}: {printable(line)}", file=sys.stderr, flush=True)
    sys.exit(code)


def parse(
    settings_class: type[T],
    arguments: Sequence[str] | None,
    default: T | None = None,
    **options: Any,
) -> T:
    """Reads flags into a settings class.

    Args:
        settings_class: a dataclass; its fields are the flags.
        arguments: the flags; None for those of the process.
        default: settings that the flags override; None for the defaults of the class.
        **options: of ``tyro.cli``, such as ``description``.

    Returns:
        The settings, as of ``with_paths``. ``--help`` and an unknown flag end the process.

    Raises:
        InputError: as ``with_paths``.
    """
    if default is not None:
        options["default"] = default
    return with_paths(tyro.cli(settings_class, args=arguments, **options))


def parse_command(commands: Mapping[str, type], **options: Any) -> Any:
    """As ``parse``, where the first argument of the process names a class of settings."""
    return with_paths(tyro.extras.subcommand_cli_from_dict(dict(commands), **options))


def with_paths(settings: T) -> T:
    """Settings with every path read as ``PathMark.read`` does: ``~`` is the home folder.

    Args:
        settings: a dataclass, in which others may be. A field that is a path is marked so:
            ``workdir: Annotated[str, paths.LOCAL]``.

    Raises:
        InputError: names the field that holds an address of a kind that is not supported.
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
    """Checks that TensorFlow has the file system of every path, such as ``gs://``.

    Args:
        settings: as of ``with_paths``; only a dataclass has paths.

    Raises:
        InputError: names the field that holds an address of an unknown one.
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


def _fields_of(settings: Any) -> Iterator[tuple[str, Any, PathMark | None]]:
    """Name, value and mark of the fields that are paths, and of those that hold others."""
    hints = typing.get_type_hints(type(settings), include_extras=True)
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            yield field.name, value, None
        for mark in getattr(hints[field.name], "__metadata__", ()):
            if isinstance(mark, PathMark):
                yield field.name, value, mark


def flag_of(name: str) -> str:
    """The flag of a setting: ``batch_size`` -> ``--batch-size``."""
    return "--" + name.replace("_", "-")


def is_users(error: BaseException) -> bool:
    """Whether an error ends a command in one line.

    ValueError, OSError, FloatingPointError and TensorFlow's errors end in one line; others keep
    their stack trace.
    """
    kinds = (ValueError, OSError, FloatingPointError)
    return isinstance(error, kinds) or _is_tensorflows(error)


def one_line(error: BaseException) -> str:
    """What an error says, in one line, with settings named as flags."""
    if isinstance(error, InputError):
        return error.describe(flag_of)
    if _is_tensorflows(error):
        return _without_the_graph(error)
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error) or type(error).__name__


def printable(text: str) -> str:
    """A text in one line that cannot steer a terminal, whatever data it quotes."""
    text = " ".join(text.splitlines())
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text
    )


def _is_tensorflows(error: BaseException) -> bool:
    tensorflow = sys.modules.get("tensorflow")
    return tensorflow is not None and isinstance(error, tensorflow.errors.OpError)


def _without_the_graph(error: Any) -> str:
    """The message of a TensorFlow error, without the graph that TensorFlow puts around it."""
    from align_keras import distribution

    if lost := distribution.lost_workers(error):
        return f"{lost}; start all workers again with the same command"
    if asserted := re.search(r"assertion failed: \[(.*?)[\s.]*\]", error.message):
        return asserted[1]
    noise = ("Graph execution error", "Detected at", "<stack traces", "\t")
    lines = (line for line in error.message.splitlines() if line and not line.startswith(noise))
    return next(lines, type(error).__name__)


@contextlib.contextmanager
def _importing_quietly() -> Iterator[None]:
    """Within, the first import of TensorFlow is announced, and is as ``load_quietly``."""
    finder = _QuietFinder()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # TensorFlow was imported
            sys.meta_path.remove(finder)


class _QuietFinder:
    """Finds TensorFlow for Python's import, once."""

    def find_spec(self, name: str, *_: Any) -> importlib.machinery.ModuleSpec | None:
        """Python's hook: the module's loader; None for other modules."""
        if name in ("tensorflow", "keras"):
            align_keras.check_backend(os.environ["KERAS_BACKEND"])
        if name != "tensorflow":
            return None
        sys.meta_path.remove(self)
        found = importlib.util.find_spec(name)
        if found is None or found.loader is None:
            return found
        execute = found.loader.exec_module

        def exec_module(module: Any) -> None:
            progress.tell("loading TensorFlow")
            with progress.working("loading TensorFlow"), quiet.importing(), lazy.importing():
                execute(module)
                _look_for_devices(module)

        found.loader.exec_module = exec_module  # type: ignore[method-assign]
        return found


def load_quietly() -> None:
    """Imports TensorFlow and looks for its devices without a line of theirs, as ``quiet`` says.

    With ``TF_CPP_MIN_LOG_LEVEL`` nothing is hidden: 0 tells why a GPU is not found.
    """
    with quiet.importing():
        import tensorflow as tf

        _look_for_devices(tf)


def _look_for_devices(tf: Any) -> None:
    # Physical ones: asking for logical ones would start the runtime, which strategies of several
    # workers and TPUs must do themselves.
    tf.config.list_physical_devices()
