"""Examples in docstrings, the README and `docs/` run unchanged, or are marked as not run."""

import functools
import importlib.util
import inspect
import os
import re
import sys
import textwrap
from unittest import mock

import keras
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from conftest import ROOT, SHARED
from documented import AFTER_COMMANDS, PAGES, blocks_of, lines_of, recipes_of
from foreign_lines import foreign_lines
from in_process import printed_by_all
from PIL import Image

import align_keras
from align_keras.data import records

EXAMPLE = re.compile(r"^ *```python\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
WITH_WEIGHTS = ("README.md", "docs/published-weights.md", "docs/evaluation.md")
#: Pages whose Python blocks this file runs.
RUN_HERE = (*WITH_WEIGHTS, "docs/python.md")


def python_of(*pages):
    """The Python blocks of pages, without repetitions."""
    blocks = [block for page in pages for block in blocks_of(page) if block.language == "python"]
    return list(dict.fromkeys(block.code for block in blocks))


def run(code, **names):
    """Runs code, and checks the shapes and values that comments at the ends of lines state.

    Returns the number of such comments.
    """
    names |= {"align_keras": align_keras, "keras": keras, "np": np, "tf": tf}
    code = textwrap.dedent(code)
    exec(compile(code, "example", "exec"), names)
    stated = re.findall(r"^(?:(\w+) = )?(\S.*?)  # (\(.*?\)|\[.*\])", code, re.MULTILINE)
    for variable, expression, comment in stated:
        value = eval(variable or expression, names)
        if comment.startswith("("):
            found = tuple(value if isinstance(value, tuple | tf.TensorShape) else value.shape)
        else:
            found = np.asarray(value).tolist()
        assert str(found) == comment, expression
    return len(stated)


@pytest.mark.parametrize(
    "name",
    [
        "AlignBackbone",
        "AlignDualEncoder",
        "AlignImageClassifier",
        "AlignPreprocessor",
        "ImageEncoder",
        "TextEncoder",
    ],
)
def test_docstring_examples_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (code,) = EXAMPLE.findall(inspect.getdoc(getattr(align_keras, name)) + "\n")
    assert run(code) > 0


def test_every_public_name_has_a_docstring():
    for name in align_keras.__all__:
        value = getattr(align_keras, name)
        assert isinstance(value, str) or len(inspect.getdoc(value)) > 60, name


def test_the_architecture_names_files_that_are_there():
    text = (ROOT / "docs" / "architecture.md").read_text()
    package = ROOT / "align_keras"
    walks = text[text.index("## Three walks") : text.index("## Rules")]
    named = re.findall(r"`((?:\w+/)+\w*(?:\.py)?)`", text)
    assert len(named) > 30
    for path in named:
        assert (package / path).exists() or (ROOT / path).exists(), path
    for walk in walks.split("\n**")[1:]:
        assert 5 <= len(re.findall(r"/\w+\.py`", walk)) <= 8


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_run_or_says_that_it_is_not(page):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for block in blocks_of(page):
        assert block.language in ("python", "sh", "text"), block.code
        if block.language == "python" and not block.marked:
            assert page in (*RUN_HERE, *AFTER_COMMANDS), block.code
        for line in lines_of(block.code) if block.language == "sh" and not block.marked else ():
            words = line.split()
            if words[0] == "make":
                assert words[1] in targets, line
            elif words[0] == "img2dataset":
                assert page == "docs/filtering.md"  # where test_img2dataset.py reads it
            else:
                assert line.startswith(".venv/bin/python recipes/"), line


CALLS = [call for page in PAGES for block in blocks_of(page) for call in recipes_of(block)]
# The client is a file to copy; test_serving_client.py tests its flags.
RECIPES = {" ".join(call): call for call in CALLS if call[0] != "serving_client.py"}


@pytest.mark.parametrize("call", RECIPES.values(), ids=RECIPES)
def test_the_flags_of_documented_commands_are_read(call, tmp_path, monkeypatch):
    recipe, *flags = call
    monkeypatch.chdir(tmp_path)
    for name in ("PHOTOS/train.csv", "PHOTOS/val.csv", "BIRDS/labels.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("image,caption,class_name,split\n0.jpg,a bird,wren,test\n")
    pq.write_table(pa.table({"url": ["0.jpg"], "caption": ["a bird"]}), "RAW.parquet")
    spec = importlib.util.spec_from_file_location("a_recipe", ROOT / "recipes" / recipe)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "a_recipe", module)
    monkeypatch.setattr("sys.argv", [recipe, *flags])
    with mock.patch.dict(os.environ):  # recipes set environment variables
        spec.loader.exec_module(module)
        assert module.parse() is not None


def test_the_pages_show_one_table_of_the_quickstart():
    first, second = (
        [block.code for block in blocks_of(page) if "unseen classes" in block.code]
        for page in ("README.md", "docs/get-started.md")
    )
    assert first == second and len(first) == 1


def test_links_of_the_readme_lead_somewhere():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 130
    for path, anchor in re.findall(r"\]\((?![a-z]+:)([^)#]*)#?([^)]*)\)", text):
        assert (ROOT / path).exists(), path
        if anchor:
            headings = re.findall(r"^#+ (.*)", (ROOT / path).read_text(), re.MULTILINE)
            slugs = [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in headings]
            assert anchor in slugs, anchor


@pytest.fixture(scope="module")
def a_preset(tiny_run):
    """A checkpoint that replaces the published one."""
    small = SHARED / "parity" / "small"
    return str(small if small.exists() else tiny_run / "preset")


@pytest.fixture(scope="module")
def load_once():
    """Loads each preset only once; all examples share it."""
    return functools.cache(align_keras.AlignDualEncoder.from_preset)


@pytest.fixture
def photographs(tmp_path, monkeypatch):
    """A working directory with photographs."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for name in ("cat", "dog", "beach"):
        pixels = rng.integers(0, 255, (300, 200, 3)).astype("uint8")
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{name}.jpg")


@pytest.mark.usefixtures("photographs")
@pytest.mark.parametrize("code", python_of(*WITH_WEIGHTS))
def test_examples_with_the_published_weights_run(code, a_preset, load_once, monkeypatch):
    assert len([line for line in code.splitlines() if line.strip()]) < 10
    assert '"hf://kakaobrain/align-base"' in code
    monkeypatch.setattr(align_keras.AlignDualEncoder, "from_preset", load_once)
    with printed_by_all() as printed:
        run(code.replace("hf://kakaobrain/align-base", a_preset))
    assert ".jpg" in printed.getvalue()
    assert foreign_lines(printed.getvalue()) == []


def test_the_example_of_training_runs(scene_shards, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "SHARDS").mkdir()
    for index, shard in enumerate(scene_shards[0]):
        content = tf.io.read_file(shard)
        tf.io.write_file(str(tmp_path / "SHARDS" / f"train-{index}.tfrecord"), content)
    pieces = align_keras.data.vocabulary.train_vocabulary(
        records.read_captions(scene_shards[0], 100), 200
    )
    (tmp_path / "vocab.txt").write_text("\n".join(pieces) + "\n")
    (code,) = python_of("docs/python.md")
    code = code.replace("steps_per_epoch=100", "steps_per_epoch=2")
    run(code)
    assert (tmp_path / "preset" / "model.weights.h5").exists()
