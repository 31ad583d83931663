"""Shared by all recipes: reads flags, reports errors in one line, announces TensorFlow's loading.

Importing this module loads neither TensorFlow nor Keras, so that ``--help`` and errors about flags,
settings and missing files appear at once.
"""

import contextlib
import importlib.machinery
import importlib.util
import inspect
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

import tyro

import align_keras
from align_keras import full_disk, lazy, progress, quiet, signals
from align_keras.errors import InputError
from align_keras.runs import arguments as mistakes
from align_keras.runs import completion
from align_keras.runs.flags import flag_of, flags_of
from align_keras.runs.help_page import HELP, HELP_ALL, format_commands, format_help
from align_keras.runs.path_settings import check_file_systems, setting_of, with_paths

T = TypeVar("T")

_START = "reading settings and data"


def run(name: str, parse: Callable[[], T], main: Callable[[T], Any]) -> Any:
    """Runs a recipe: ``main(parse())``.

    TensorFlow takes seconds to load, so it loads only when it is needed: ``main`` checks settings
    and local files first. A line on standard error announces the loading, and ``progress`` shows
    every other wait. If a setting is an address such as ``gs://``, TensorFlow loads before
    ``main``.

    ValueError, OSError, FloatingPointError, TensorFlow's errors and errors caused by a full disk
    end the process with one line on standard error and exit code 1. Other errors keep their stack
    trace. Ctrl-C, SIGTERM and SIGHUP remove unfinished work and end the process with one line and
    exit code 130, 143 or 129. A second signal ends it at once.

    Args:
        name: name of the recipe, such as ``pretrain.py``; error lines begin with it.
        parse: reads the settings, without TensorFlow.
        main: does the work.

    Returns:
        The result of ``main``.
    """
    # If align_keras was imported first, this variable is still set.
    os.environ.pop("ALIGN_KERAS_IMPORT", None)
    full_disk.ignore_unraisable()
    with (
        signals.handled(name),
        quiet.python_libraries(),
        quiet.c_libraries(),
        _importing_quietly(),
    ):
        settings: Any = None
        try:
            settings = parse()
            check_file_systems(settings)
            # Not earlier: --help and errors about flags are printed without another line.
            with progress.shown(_START):
                return main(settings)
        except KeyboardInterrupt as stop:
            _end_interrupted(name, stop)
        except Exception as error:
            # A library may turn a signal into another error.
            if signals.stop_requested():
                _end_interrupted(name, signals.interrupt())
            shown = full_disk.as_no_space(error) or error
            if is_users(shown):
                flag = _flag_in(settings, shown)
                sys.exit(f"{name}: {flag}{printable(one_line(shown))}")
            raise


def _end_interrupted(name: str, stop: KeyboardInterrupt) -> NoReturn:
    """Ends the process with a line and the exit code of a signal."""
    # A stop without a signal number comes from code without a signal handler, such as a second
    # thread.
    line, code = "interrupted", 128 + signal.SIGINT
    if isinstance(stop, signals.Interrupted):
        line, code = stop.describe(flag_of), stop.exit_code
    # Otherwise a bar would be drawn once more after the line.
    progress.close()
    # The terminal may be closed already.
    with contextlib.suppress(OSError):
        print(f"{name}: {printable(line)}", file=sys.stderr, flush=True)
    sys.exit(code)


def parse(
    settings_class: type[T],
    arguments: Sequence[str] | None,
    default: T | None = None,
    description: str = "",
    command: str = "",
) -> T:
    """Reads flags into a settings class.

    ``--help``, ``--help-all`` and ``--completion`` print and end the process.

    Args:
        settings_class: a dataclass; its fields are the flags. Those marked ``COMMON`` are shown by
            ``--help``.
        arguments: the flags; None for those of the process.
        default: settings that the flags override; None for the defaults of the class.
        description: description of the recipe, for the help.
        command: command of the recipe whose flags these are; empty if the recipe has no commands.

    Returns:
        The settings, after ``with_paths``.

    Raises:
        InputError: as in ``with_paths`` and ``arguments.check``.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    flags = flags_of(settings_class, default)
    typed = " ".join(filter(None, [_typed(), command]))
    asked = set(given)
    if asked & {"-h", HELP, HELP_ALL}:
        _print_and_end(format_help(typed, description, flags, HELP_ALL in asked))
    if shell := completion.shell_of(given):
        _print_and_end(completion.script(settings_class, default, shell))
    mistakes.check(given, flags)
    options: Any = {} if default is None else {"default": default}
    return with_paths(tyro.cli(settings_class, args=given, **options))


def parse_command(commands: Mapping[str, type], description: str = "") -> Any:
    """Like ``parse``, if the first argument of the process names a class of settings."""
    given = sys.argv[1:]
    first = given[0] if given else ""
    if first in ("-h", HELP, HELP_ALL):
        _print_and_end(format_commands(_typed(), description, commands))
    if shell := completion.shell_of(given):
        _print_and_end(completion.script_of_commands(commands, shell))
    name = mistakes.choose_command(first, commands)
    about = inspect.getdoc(commands[name]) or ""
    return parse(commands[name], given[1:], description=about, command=name)


def _typed() -> str:
    """The command that started the process, without its arguments."""
    return f"python {sys.argv[0]}"


def _print_and_end(text: str) -> NoReturn:
    print(text.rstrip())
    sys.exit()


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


def _flag_in(settings: Any, error: BaseException) -> str:
    """The flag with the path that an error of the operating system is about, and a colon; or ""."""
    if not isinstance(error, OSError) or not isinstance(error.filename, str):
        return ""
    setting = setting_of(settings, error.filename)
    return f"{flag_of(setting)}: " if setting else ""


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
    """Inside the block, the first import of TensorFlow is announced and quiet."""
    finder = _QuietFinder()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # TensorFlow was imported
            sys.meta_path.remove(finder)


class _QuietFinder:
    """An import hook that acts only on the first import of TensorFlow."""

    def find_spec(self, name: str, *_: Any) -> importlib.machinery.ModuleSpec | None:
        """The loader of a module, None for other modules; a hook of Python."""
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
            with progress.announced(lazy.LOADING), quiet.importing(), lazy.importing():
                execute(module)
                _look_for_devices(module)

        found.loader.exec_module = exec_module  # type: ignore[method-assign]
        return found


def load_quietly() -> None:
    """Imports TensorFlow and lists its devices, and hides the lines that these print (``quiet``).

    If ``TF_CPP_MIN_LOG_LEVEL`` is set, nothing is hidden: 0 shows why a GPU is not found.
    """
    with quiet.importing():
        import tensorflow as tf

        _look_for_devices(tf)


def _look_for_devices(tf: Any) -> None:
    # Physical devices: listing logical devices would start the runtime, which multi-worker and TPU
    # strategies must do themselves.
    tf.config.list_physical_devices()
