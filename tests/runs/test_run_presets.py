import pytest

from align_keras.errors import InputError, MissingInputError
from align_keras.runs import presets


def test_a_model_is_a_preset_or_the_directory_of_a_run(tmp_path):
    run = tmp_path / "run"
    (run / "preset").mkdir(parents=True)
    assert presets.find_preset(str(run)) == str(run / "preset")
    assert presets.find_preset("hf://kakaobrain/align-base") == "hf://kakaobrain/align-base"


def test_a_run_without_a_preset_is_refused(tmp_path):
    (tmp_path / "settings.json").touch()
    with pytest.raises(MissingInputError, match="has no preset/ yet; let it finish"):
        presets.find_preset(str(tmp_path))


def test_what_does_not_load_is_an_error_about_the_input():
    with pytest.raises(MissingInputError, match="none: no such folder"):
        presets.load_model("none")

    def load(preset):
        raise ValueError(f"{preset}: it holds a BERT")

    with pytest.raises(InputError, match="x: it holds a BERT"):
        presets.from_preset(load, "x")
