"""The card of a preset: the fields that hubs read, and how an edited card is kept."""

import pytest
import yaml
from huggingface_hub import ModelCard

from align_keras import checksums
from align_keras.models import preset_card
from align_keras.models.preset_card import Figure, Origin

ORIGIN = Origin(
    license="cc-by-4.0",
    data=["`photos/train-*.tfrecord`: 1,200 pairs in 3 shards"],
    training=["5 steps of 40 pairs"],
    figures=[
        Figure("i2t_recall_at_1", "image to text R@1", 0.18765, 0.001),
        Figure("zero_shot_top_1", "zero-shot top-1", 0.5),
    ],
    held_out="100 held-out pairs: a/val.tfrecord",
    command="python recipes/pretrain.py --steps=5",
    date="2026-11-27",
)


def head_of(text):
    return yaml.safe_load(text.split("---\n")[1])


def test_the_hub_reads_the_head_and_the_figures(tiny_model):
    text = preset_card.of_dual_encoder(tiny_model, ORIGIN)
    head = head_of(text)
    assert (head["library_name"], head["license"]) == ("keras-hub", "cc-by-4.0")
    assert head["pipeline_tag"] == "zero-shot-image-classification"
    (result,) = head["model-index"][0]["results"]
    assert result["dataset"]["name"] == "100 held-out pairs: a/val.tfrecord"
    metrics = {own["type"]: own["value"] for own in result["metrics"]}
    assert metrics == {"i2t_recall_at_1": 0.1877, "zero_shot_top_1": 0.5}
    # Hugging Face's own reader accepts the card.
    card = ModelCard(text)
    assert [own.metric_value for own in card.data.eval_results] == [0.1877, 0.5]
    for line in (
        "- `photos/train-*.tfrecord`: 1,200 pairs in 3 shards",
        "100 held-out pairs: a/val.tfrecord, 2026-11-27:",
        "| image to text R@1 | 18.8% | 0.1% |",
        "| zero-shot top-1 | 50.0% |  |",
        "python recipes/pretrain.py --steps=5",
        "`cc-by-4.0`",
    ):
        assert f"\n{line}\n" in text, line


def test_without_a_run_it_says_what_is_not_known(tiny_model):
    text = preset_card.of_dual_encoder(tiny_model)
    assert "license" not in head_of(text) and "model-index" not in head_of(text)
    assert text.count("Unknown: the model was saved without a run.") == 2
    assert "**No licence is set.**" in text
    assert "None: nothing was evaluated." in text
    assert "images of 16 x 16 pixels, stretched to 20 x 20 first" in text


def test_an_edited_card_is_no_damage_and_is_kept(tiny_model, tmp_path):
    tiny_model.save_to_preset(tmp_path)
    card = tmp_path / "README.md"
    written = card.read_text()
    assert checksums.read(tmp_path / "checksums.json").keys() >= {"README.md", "config.json"}
    tiny_model.save_to_preset(tmp_path)
    assert not (tmp_path / "README.before.md").exists()
    card.write_text(written + "My own words.\n")
    assert list(checksums.faults(tmp_path / "checksums.json")) == []
    tiny_model.save_to_preset(tmp_path, card="A run's.\n")
    assert card.read_text() == preset_card.sealed("A run's.\n")
    assert (tmp_path / "README.before.md").read_text() == written + "My own words.\n"
    # After another save, the edited card is still there.
    tiny_model.save_to_preset(tmp_path)
    assert (tmp_path / "README.before.md").read_text() == written + "My own words.\n"
    card.unlink()
    assert list(checksums.faults(tmp_path / "checksums.json")) == []


@pytest.mark.parametrize("order", [["checksums.json", "README.md"], ["README.md"]])
def test_a_card_that_a_killed_process_wrote_is_not_taken_for_an_edited_one(order, tmp_path):
    """One of the card and the list of checksums is new, and the other is not, or is missing."""
    folder, new = tmp_path / "model", tmp_path / "new"
    for path, text in ((folder, "old\n"), (new, "new\n")):
        path.mkdir()
        preset_card.write(path, path, text)
        checksums.write_folder(path, ["README.md"])
    if len(order) == 1:
        (folder / "checksums.json").unlink()
    (new / order[0]).replace(folder / order[0])
    assert not preset_card.keep_edited(folder, folder)
    assert not (folder / "README.before.md").exists()


def test_a_card_of_an_earlier_version_is_known_by_the_list(tmp_path):
    card = tmp_path / "README.md"
    card.write_text("without a seal\n")
    checksums.write_folder(tmp_path, ["README.md"])
    assert not preset_card.keep_edited(tmp_path, tmp_path)
    card.write_bytes(b"\xff edited in another encoding")
    assert preset_card.keep_edited(tmp_path, tmp_path)
    assert (tmp_path / "README.before.md").read_bytes() == card.read_bytes()
