import pytest

from align_keras.errors import InputError, MissingInputError, Place, concerning


def flag(setting):
    return "--" + setting.replace("_", "-")


@pytest.mark.parametrize(
    ("place", "text"),
    [
        (Place("a.csv", "line 3", "b.jpg", "caption"), "a.csv line 3 (b.jpg), column caption"),
        (Place("a.tfrecord", "record 0"), "a.tfrecord record 0"),
        (Place(member="b.jpg"), "b.jpg"),
        (Place(column="caption"), "column caption"),
        (Place(), ""),
    ],
)
def test_a_place_reads_from_the_outside_in(place, text):
    assert str(place) == text


def test_a_message_names_setting_place_problem_and_remedy():
    error = InputError("9 is above 8", Place("a.json"), "lower it, or raise <image_size>", "size")
    assert str(error) == "size: a.json: 9 is above 8; lower it, or raise image_size"
    assert error.describe(flag) == "--size: a.json: 9 is above 8; lower it, or raise --image-size"


def test_what_a_user_wrote_is_not_taken_for_a_setting():
    error = InputError("no {} for the class name in '<b> {0}'", remedy="add <prompts>")
    assert error.describe(flag) == "no {} for the class name in '<b> {0}'; add --prompts"


def test_a_missing_input_is_both_a_value_error_and_a_missing_file():
    with pytest.raises(FileNotFoundError, match="no such file; give another") as caught:
        raise MissingInputError("no such file", Place("x.csv"), "give another")
    assert isinstance(caught.value, ValueError)
    assert str(caught.value) == "x.csv: no such file; give another"


def test_the_innermost_setting_is_named():
    with pytest.raises(InputError) as caught, concerning("data"), concerning("train_data"):
        raise InputError("empty")
    assert caught.value.setting == "train_data"
    with pytest.raises(KeyError), concerning("data"):
        raise KeyError("not ours")
