import sys

import numpy as np
import pytest
import tensorflow as tf
from in_process import run_recipe_here

from align_keras.evaluation import data_sets, zero_shot


def test_a_run_is_exported(tiny_model, tiny_run, scene_images, tmp_path, capsys):
    output = tmp_path / "served" / "tiny" / "1"
    flags = [f"--model={tiny_run}", f"--output={output}", "--class-names=imagenet"]
    assert run_recipe_here("export.py", *flags, "--fold-batch-norm", "--prompts", "a {}") is None
    printed = capsys.readouterr().out
    assert "docker run" in printed
    assert "MODEL_NAME=tiny" in printed
    assert f"{output / 'assets' / 'README.md'} and docs/serving.md" in printed
    assert len(printed.splitlines()) < 12  # the card itself is not printed
    served = tf.saved_model.load(str(output)).signatures
    found = served["classify"](images=tf.constant(scene_images[:1]))["probabilities"].numpy()
    # Two of ImageNet's classes share their names with other classes.
    names = data_sets.class_names_of("imagenet")
    texts = tiny_model.encode_texts(zero_shot.fill_prompts(names, ["a {}"]))
    classes = zero_shot.class_embeddings(texts, 1000)
    logits = tiny_model.encode_images(scene_images[:1]) @ classes.T / 0.2
    np.testing.assert_allclose(found, np.exp(logits) / np.exp(logits).sum(), rtol=1e-4)
    line = run_recipe_here("export.py", *flags)
    assert line == f"export.py: --output: {output}: already exists; give a new folder, or remove it"


def test_what_warm_up_needs_is_reported(tiny_run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_serving.apis", None)
    line = run_recipe_here("export.py", f"--model={tiny_run}", f"--output={tmp_path / '1'}")
    assert line == (
        "export.py: --warm-up: warm-up requests need tensorflow-serving-api; "
        "pip install 'align-keras[serving]', or turn --warm-up off"
    )


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--quantize=int8"], "--quantize: does not apply to saved_model; give --format=litert"),
        (["--prompts", "a {}"], "--prompts: there are no classes; give --class-names"),
        ([], "--model: "),
    ],
)
def test_wrong_flags_end_in_one_line(flags, line, tmp_path):
    flags = ["--model=nowhere", f"--output={tmp_path / '1'}", *flags]
    found = run_recipe_here("export.py", *flags)
    assert found.startswith(f"export.py: {line}")
    assert "\n" not in found
    assert not list(tmp_path.iterdir())
