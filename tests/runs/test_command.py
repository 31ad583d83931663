import dataclasses
import os
import subprocess
import sys
from typing import Annotated

import pytest
import tensorflow as tf
from conftest import ROOT

from align_keras import paths
from align_keras.data import pipeline, records
from align_keras.data.shard_writer import ShardWriter
from align_keras.errors import InputError, Place
from align_keras.runs import command


def end_of(error):
    """The exit code or message of the process if ``main`` raises an error."""

    def main(_):
        raise error

    with pytest.raises(SystemExit) as stopped:
        command.run("recipe.py", dict, main)
    return stopped.value.code


def test_an_input_error_ends_in_one_line_that_names_the_flags():
    error = InputError(
        "8 is too small",
        Place("x.csv", "line 3"),
        "raise it, or lower <head.eval_size>",
        "batch_size",
    )
    assert end_of(error) == (
        "recipe.py: --batch-size: x.csv line 3: 8 is too small; raise it, or lower --head.eval-size"
    )


def test_other_errors_of_the_user_end_in_one_line():
    assert (
        end_of(ValueError("two\nlines \x1b[31m"))
        == "recipe.py: two lines \N{REPLACEMENT CHARACTER}[31m"
    )
    assert end_of(FileNotFoundError(2, "No such file", "x.csv")) == "recipe.py: x.csv: No such file"
    assert end_of(FloatingPointError("nan")) == "recipe.py: nan"


@dataclasses.dataclass
class Places:
    index: Annotated[str, paths.LOCAL] = "runs/index"
    images: Annotated[str, paths.DATA] = "ram://b/photos"
    sheet: Annotated[str, paths.LOCAL] = "sheet.png"
    title: str = "none"


@pytest.mark.parametrize(
    ("file", "flag"),
    [
        ("runs", "--index: "),  # the folder above is missing
        ("runs/index", "--index: "),
        ("runs/index/a.bin", "--index: "),
        ("sheet.png", "--sheet: "),
        (".", ""),  # of two flags
        ("none", ""),
        ("photos", ""),
    ],
)
def test_an_error_of_a_path_names_the_flag_that_gave_it(file, flag):
    def main(_):
        raise PermissionError(13, "Permission denied", os.path.abspath(file))

    with pytest.raises(SystemExit) as stopped:
        command.run("recipe.py", Places, main)
    assert stopped.value.code == f"recipe.py: {flag}{os.path.abspath(file)}: Permission denied"


def test_of_a_tensorflow_error_only_the_reason_is_printed():
    @tf.function
    def count(words):
        tf.debugging.assert_positive(words, "no word in it")
        return words

    with pytest.raises(tf.errors.OpError) as raised:
        count(tf.constant(-1))
    assert end_of(raised.value) == "recipe.py: no word in it"
    error = tf.errors.ResourceExhaustedError(None, None, "Graph execution error:\n\nno memory\n\tx")
    assert end_of(error) == "recipe.py: no memory"


def test_of_a_pipelines_error_only_the_reason_is_printed(preprocessor, tmp_path):
    with ShardWriter(str(tmp_path / "bad"), 100) as writer:
        for index in range(8):
            writer.write(records.make_record(b"no image", "a caption of words", str(index)))
    counts = pipeline.shard_counts(writer.shards)
    with pytest.raises(tf.errors.OpError) as raised:
        next(iter(pipeline.training_dataset(counts, preprocessor, 8)))
    assert command.one_line(raised.value) == "no record of a whole batch is readable"


@pytest.mark.parametrize("kind", [KeyError, ImportError])
def test_a_fault_of_the_program_keeps_its_stack_trace(kind):
    def main(_):
        raise kind("x")

    with pytest.raises(kind):
        command.run("recipe.py", dict, main)


def test_a_recipe_returns_what_its_main_returns():
    assert command.run("recipe.py", lambda: 3, lambda settings: settings + 1) == 4


def test_flags_are_parsed_into_a_class_over_its_defaults():
    @dataclasses.dataclass(frozen=True)
    class Two:
        first_one: int = 1
        second: int = 2

    assert command.parse(Two, ["--first-one=5"], Two(second=7)) == Two(5, 7)
    assert command.parse(Two, ["--second", "3"]) == Two(1, 3)
    assert command.flag_of("first_one") == "--first-one"


def python(code, **variables):
    """Runs code in a fresh process."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True
    ).stdout.split()


def test_importing_the_package_lazily_loads_no_tensorflow():
    found = python(
        "import sys, os, align_keras.runs.command\n"
        "from align_keras import errors\n"
        "print('tensorflow' in sys.modules, 'keras' in sys.modules, 'AlignDualEncoder' in "
        "dir(align_keras), os.environ.get('ALIGN_KERAS_IMPORT'))\n"
        "print(hasattr(align_keras, 'no_such_name'))\n"
        "from align_keras import Lamb\n"
        "print('tensorflow' in sys.modules, Lamb.__name__, align_keras.AlignBackbone.__name__)",
        ALIGN_KERAS_IMPORT="lazy",
    )
    assert found == ["False", "False", "True", "None", "False", "True", "Lamb", "AlignBackbone"]
