"""What all recipes share: reading flags, errors in one line, and the message that TensorFlow loads.

Importing this module loads neither TensorFlow nor Keras, so that ``--help`` and errors about flags,
settings and missing files appear at once.
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
from align_keras import full_disk, lazy, signals
from align_keras.errors import InputError, concerning
from align_keras.paths import PathMark
from align_keras.remote_files import check_file_system

T = TypeVar("T")


def run(name: str, parse: Callable[[], T], main: Callable[[T], Any]) -> Any:
    """Runs a recipe: ``main(parse())``.

    TensorFlow takes seconds to load, so it loads only when something needs it: ``main`` checks
    settings and local files first. A line on standard error announces the loading. If a setting
    is an address such as ``gs://``, TensorFlow loads before ``main``.

    ValueError, OSError, FloatingPointError, TensorFlow's errors and a full disk (whatever its
    exception) end the process with one line on standard error and exit code 1. Other errors keep
    their stack trace. Ctrl-C, SIGTERM and SIGHUP remove unfinished work and end the process with
    one line and exit code 130, 143 or 129; a second signal ends it at once.

    Args:
        name: name of the recipe, such as ``pretrain.py``; error lines begin with it.
        parse: reads the settings, without TensorFlow.
        main: does the work.

    Returns:
        What ``main`` returns.
    """
    # If align_keras was imported first, this variable is still set.
    os.environ.pop("ALIGN_KERAS_IMPORT", None)
    full_disk.ignore_unraisable()
    with signals.handled(name), _importing_quietly():
        try:
            settings = parse()
            check_file_systems(settings)
            return main(settings)
        except KeyboardInterrupt as stop:
            _end_interrupted(name, stop)
        except Exception as error:
            # A library may turn a signal into another error.
            if signals.stop_requested():
                _end_interrupted(name, signals.interrupt())
            shown = full_disk.as_no_space(error) or error
            if is_users(shown):
                sys.exit(f"{name}: {printable(one_line(shown))}")
            raise


def _end_interrupted(name: str, stop: KeyboardInterrupt) -> NoReturn:
    """Ends the process with a line and the exit code of a signal."""
    # A stop without a signal number comes from where no handler is set, such as a second thread.
    line, code = "interrupted", 128 + signal.SIGINT
    if isinstance(stop, signals.Interrupted):
        line, code = stop.describe(flag_of), stop.exit_code
    # The terminal may be closed already.
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
        arguments: the flags; None for the flags of the process.
        default: settings that the flags override; None for the class's defaults.
        **options: of ``tyro.cli``, such as ``description``.

    Returns:
        The settings, with paths as read by ``with_paths``. ``--help`` and unknown flags end the
        process.

    Raises:
        InputError: as in ``with_paths``.
    """
    if default is not None:
        options["default"] = default
    return with_paths(tyro.cli(settings_class, args=arguments, **options))


def parse_command(commands: Mapping[str, type], **options: Any) -> Any:
    """Like ``parse``, but the first argument of the process selects the settings class."""
    return with_paths(tyro.extras.subcommand_cli_from_dict(dict(commands), **options))


def with_paths(settings: T) -> T:
    """Settings with every path expanded by ``PathMark.read``: ``~`` becomes the home folder.

    Args:
        settings: a dataclass, which may hold other dataclasses. A field that is a path has a
            mark: ``workdir: Annotated[str, paths.LOCAL]``.

    Raises:
        InputError: if an address is of an unsupported kind; names its field.
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
        settings: as returned by ``with_paths``; anything but a dataclass has no paths.

    Raises:
        InputError: if a file system is unknown; names the field of the address.
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
    """Name, value and mark of each path; mark None for a field that is a dataclass."""
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
    """Whether a command reports an error in one line, without a stack trace.

    True for ValueError, OSError, FloatingPointError and TensorFlow's errors.
    """
    kinds = (ValueError, OSError, FloatingPointError)
    return isinstance(error, kinds) or _is_tensorflows(error)


def one_line(error: BaseException) -> str:
    """The message of an error, in one line, with settings named as flags."""
    if isinstance(error, InputError):
        return error.describe(flag_of)
    if _is_tensorflows(error):
        return _without_the_graph(error)
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error) or type(error).__name__


def printable(text: str) -> str:
    """A text in one line, without the control characters that quoted data may contain."""
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
    """Inside, the first import of TensorFlow is announced and is as quiet as ``load_quietly``."""
    finder = _QuietFinder()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # TensorFlow was imported
            sys.meta_path.remove(finder)


class _QuietFinder:
    """An import hook that acts on the first import of TensorFlow only."""

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
            print("loading TensorFlow", file=sys.stderr, flush=True)
            with _quiet(), lazy.importing():
                execute(module)
                _look_for_devices(module)

        found.loader.exec_module = exec_module  # type: ignore[method-assign]
        return found


def load_quietly() -> None:
    """Imports TensorFlow and lists its devices while file descriptor 2 points to /dev/null.

    TensorFlow's libraries write to this descriptor during the import, bypassing ``sys.stderr`` and
    ``TF_CPP_MIN_LOG_LEVEL``; the one line of an error would be lost among their lines. If that
    variable is set, nothing is hidden: 0 shows why a GPU is not found.
    """
    with _quiet():
        import tensorflow as tf

        _look_for_devices(tf)


def _look_for_devices(tf: Any) -> None:
    # Physical devices: listing logical devices would start the runtime, which multi-worker and TPU
    # strategies must do themselves.
    tf.config.list_physical_devices()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        yield
        return
    # Real failures are raised as exceptions. A warning per corrupt image would break the progress
    # bar, and some lines that the libraries label as errors are none, such as oneDNN's op list.
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        with signals.ending_at_once(kept):
            yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
