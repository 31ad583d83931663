import pytest

from align_keras.errors import InputError, MissingInputError
from align_keras.evaluation import data_sets, metrics


def test_known_data_sets_have_prompts_and_names():
    for name in data_sets.DATA_SETS:
        for prompt in data_sets.prompts_of(name):
            assert "{}" in prompt, name
    assert len(data_sets.prompts_of("imagenet_r")) == 80
    names = data_sets.class_names_of("imagenet")
    assert len(names) == len(set(data_sets.imagenet_wnids())) == 1000
    assert data_sets.imagenet_wnids() == sorted(data_sets.imagenet_wnids())
    assert data_sets.prompts_of("mine") == ("a photo of a {}.",)
    assert data_sets.class_names_of("cifar10") is None


def test_the_papers_figures_have_the_names_of_metrics():
    prefixes = ("linear_probe_", "finetuned_")
    for data_set in data_sets.DATA_SETS.values():
        for name, value in data_set.paper.items():
            for prefix in prefixes:
                name = name.removeprefix(prefix)
            assert name in metrics.TITLES or name.startswith("mean_recall_")
            assert 0 < value < 1
    assert data_sets.known("flickr30k").paper["t2i_recall_at_1"] == 0.757


def test_names_of_a_file(tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("\ufeffcafé\r\n red\u2028ring \n\n \n", "utf-8")
    assert data_sets.read_names(path) == ["café", "red\u2028ring"]
    # Otherwise all later names would get a wrong label.
    path.write_text("café\n\nred ring\n")
    with pytest.raises(InputError, match="names.txt line 2: an empty line between names"):
        data_sets.read_names(path)
    path.write_bytes(b"caf\xe9\n")
    with pytest.raises(InputError, match="not UTF-8") as caught:
        data_sets.read_names(path)
    assert caught.value.place.file == str(path)
    with pytest.raises(MissingInputError):
        data_sets.read_names(tmp_path / "none.txt")
