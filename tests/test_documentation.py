"""The examples in docstrings and in the README run as they stand."""

import functools
import inspect
import re
import textwrap

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT, SHARED
from PIL import Image

import align_keras
from align_keras.data import records

BLOCK = re.compile(r"^ *```python\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
README = BLOCK.findall((ROOT / "README.md").read_text())


def run(code, **names):
    """Runs code; the shape or value that a comment at a line's end states must be so.

    Returns how many such comments there were.
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
    (code,) = BLOCK.findall(inspect.getdoc(getattr(align_keras, name)) + "\n")
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


def readme_block(word):
    (block,) = [block for block in README if word in block]
    return block


@pytest.fixture(scope="module")
def a_preset(tiny_run):
    """A checkpoint that stands for the published one."""
    small = SHARED / "parity" / "small"
    return str(small if small.exists() else tiny_run / "preset")


@pytest.fixture(scope="module")
def load_once():
    """Loads a preset for the first example that asks for it; the others have it from there."""
    return functools.cache(align_keras.AlignDualEncoder.from_preset)


@pytest.fixture
def photographs(tmp_path, monkeypatch):
    """A folder with photographs, to work in."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for name in ("cat", "dog", "beach"):
        pixels = rng.integers(0, 255, (300, 200, 3)).astype("uint8")
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{name}.jpg")


@pytest.mark.usefixtures("photographs")
@pytest.mark.parametrize("use", ["probabilities", "best", "composed"])
def test_readme_examples_with_the_published_weights_run(
    use, a_preset, load_once, monkeypatch, capsys
):
    code = readme_block(use)
    assert len([line for line in code.splitlines() if line.strip()]) < 10
    assert '"hf://kakaobrain/align-base"' in code
    monkeypatch.setattr(align_keras.AlignDualEncoder, "from_preset", load_once)
    run(code.replace("hf://kakaobrain/align-base", a_preset))
    assert ".jpg" in capsys.readouterr().out


def test_the_readme_example_of_training_runs(scene_shards, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "SHARDS").mkdir()
    for index, shard in enumerate(scene_shards[0]):
        content = tf.io.read_file(shard)
        tf.io.write_file(str(tmp_path / "SHARDS" / f"train-{index}.tfrecord"), content)
    pieces = align_keras.data.vocabulary.train_vocabulary(
        records.read_captions(scene_shards[0], 100), 200
    )
    (tmp_path / "vocab.txt").write_text("\n".join(pieces) + "\n")
    code = readme_block("model.fit(").replace("steps_per_epoch=100", "steps_per_epoch=2")
    run(code)
    assert (tmp_path / "preset" / "model.weights.h5").exists()
