import pytest

from align_keras.errors import InputError
from align_keras.evaluation import data_sets
from align_keras.export.options import ExportOptions, read_class_names
from align_keras.export.serving_command import serving_command


def test_options_are_the_arguments_of_export(tmp_path):
    assert ExportOptions("litert", quantize="int8").arguments() == {
        "format": "litert",
        "quantize": "int8",
    }
    assert ExportOptions("onnx").arguments() == {"format": "onnx", "quantize": None}
    found = ExportOptions(class_names="pets", warm_up=False).arguments()
    assert found["class_names"] == data_sets.class_names_of("pets")
    assert found["prompts"] == data_sets.prompts_of("pets")
    assert (found["format"], found["warm_up_requests"]) == ("tf_saved_model", False)


@pytest.mark.parametrize(
    ("options", "setting", "message"),
    [
        ({"quantize": "int8"}, "quantize", "does not apply to saved_model; give <format>=litert"),
        ({"format": "onnx", "quantize": "int8"}, "quantize", "does not apply to onnx"),
        ({"prompts": ("a {}",)}, "prompts", "give <class_names>"),
        ({"class_names": "cifar10"}, "class_names", "neither a file nor one of"),
        ({"class_names": "pets", "prompts": ("a",)}, "prompts", "no {} for the class name"),
        ({"format": "onnx", "fold_batch_norm": True}, "fold_batch_norm", "<format>=saved_model"),
        ({"format": "litert", "class_names": "pets"}, "class_names", "<format>=saved_model"),
    ],
)
def test_options_that_do_not_go_together_are_reported(options, setting, message):
    with pytest.raises(InputError) as caught:
        ExportOptions(**options).arguments()
    assert caught.value.setting == setting
    assert message in f"{caught.value.problem}; {caught.value.remedy}"


def test_a_name_that_stands_twice_is_reported(tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("a\nb\n")
    assert read_class_names(str(path)) == ["a", "b"]
    assert read_class_names("") is None
    path.write_text("a\nb\na\n")
    with pytest.raises(InputError, match="'a' occurs twice") as caught:
        read_class_names(str(path))
    assert caught.value.place.file == str(path)


def test_the_command_that_serves_quotes_names(tmp_path):
    command = serving_command(tmp_path / "my photos" / "1")
    assert "MODEL_NAME='my photos'" in command
    assert f"'{tmp_path}/my photos:/models/my photos' tensorflow/serving" in command
    assert "needs a number" in serving_command(tmp_path / "photos")
