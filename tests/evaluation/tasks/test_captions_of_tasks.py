"""Captions and classes that cannot be used are reported with their places, before a model loads."""

import json
import types

import numpy as np
import pytest

from align_keras.data import records
from align_keras.data.pairs import image_id_of
from align_keras.data.shard_writer import ShardWriter
from align_keras.errors import InputError
from align_keras.evaluation import embedding
from align_keras.evaluation.tasks.classification import NearestNeighbours, ZeroShot
from align_keras.evaluation.tasks.retrieval import Retrieval
from align_keras.search.recall import read_captions


@pytest.fixture
def table(tmp_path, scene_images):
    """Writes a table of the rows, with an image for each."""

    def write(*rows, name="t.jsonl"):
        for index, _ in enumerate(rows):
            (tmp_path / f"{index}.jpg").write_bytes(scene_images[index])
        rows = [{"image": f"{index}.jpg", **row} for index, row in enumerate(rows)]
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(tmp_path / name)

    return write


@pytest.fixture
def blind_model(preprocessor):
    """The parts of a model that ``embed_pairs`` calls; all embeddings are equal."""
    zeros = lambda items, *_, **__: np.zeros((len(items), 2))  # noqa: E731
    return types.SimpleNamespace(encode_images=zeros, encode_texts=zeros, preprocessor=preprocessor)


def embedded(model, data):
    """The number of images, the captions, and the image of each caption."""
    pairs = embedding.embed_pairs(model, Retrieval("x", data).open())
    return len(pairs.images), pairs.captions, pairs.image_of_text.tolist()


def test_white_space_is_no_query(blind_model, table):
    rows = [["a ball", "   ", None], ["a cup", "a blue cup", "\u200b"]]
    found = embedded(blind_model, table(*({"captions": own} for own in rows)))
    assert found == (2, ["a ball", "a cup", "a blue cup"], [0, 1, 1])


def test_lists_in_a_csv_are_the_captions_of_lists(blind_model, table, tmp_path):
    captions = [["a red ball", "it's a ball"], ["a cup", "a blue cup"]]
    expected = embedded(blind_model, table(*({"captions": own} for own in captions)))
    assert expected == (2, [*captions[0], *captions[1]], [0, 0, 1, 1])
    for write in (repr, json.dumps):
        texts = [write(own).replace('"', '""') for own in captions]
        lines = ["image,captions", *(f'{i}.jpg,"{text}"' for i, text in enumerate(texts))]
        (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
        assert embedded(blind_model, str(tmp_path / "t.csv")) == expected


@pytest.mark.parametrize(
    ("captions", "problem"),
    [
        (7, "caption is a number"),
        (["a cup", 7], "caption is a number"),
        ("a ball \ud83d", r"caption contains a lone surrogate \(half"),
        ([["a cup"]], "caption is a list"),
        ("[a cup, a blue cup]", "captions is a list that cannot be read; write it as JSON"),
    ],
)
def test_a_caption_that_is_no_text_is_named(captions, problem, table):
    task = Retrieval("x", table({"captions": "a ball"}, {"captions": captions}))
    with pytest.raises(InputError, match=problem) as caught:
        task.open()
    assert (caught.value.setting, caught.value.place.row) == ("data", "line 2")
    with pytest.raises(InputError, match=problem):
        read_captions(super(Retrieval, task).open())


def test_data_without_captions_or_classes_say_what_they_have(table, scene_photos, tmp_path):
    with ShardWriter(str(tmp_path / "s"), 10) as writer:
        writer.write(records.make_record(b"jpeg", "", "k", kind="a"))
    shards = f"{tmp_path}/s-*.tfrecord"
    titles = table({"title": "a ball"}, {"title": "a cup"})
    for task, problem in (
        (Retrieval("x", titles), "no column captions, caption, txt or text, only image, title"),
        (Retrieval("x", shards), "empty caption"),
        (Retrieval("x", str(scene_photos)), "no caption in the data"),
        (ZeroShot("x", titles), "no column class_name or label, only image, title"),
        (ZeroShot("x", shards), "no column class_name or label, only jpg, key, kind, txt"),
        (
            NearestNeighbours("x", str(scene_photos), "test", train_data=titles),
            "no column class_name or label, only image, title",
        ),
    ):
        with pytest.raises(InputError) as caught:
            task.open()
        assert caught.value.problem == problem
        assert caught.value.setting == ("train_data" if task.kind == "knn" else "data")


@pytest.mark.parametrize("ids", [["", "", ""], [" ", "", " "], [None] * 3, [0.5, 0.5, 1e9]])
def test_images_without_an_id_are_not_one_image(ids, blind_model, scene_images, tmp_path):
    with ShardWriter(str(tmp_path / "s"), 10) as writer:
        for image, image_id in zip(scene_images, ids, strict=True):
            fields = {} if image_id is None else {"image_id": image_id}
            writer.write(records.make_record(image, f"a ring {len(image)}", "k", **fields))
    assert embedded(blind_model, f"{tmp_path}/s-*.tfrecord")[::2] == (3, [0, 1, 2])


def test_ids_of_any_type_are_one_image_and_training_agrees(blind_model, scene_images, tmp_path):
    frames = [
        records.make_record(scene_images[0], f"a ring {n}", "k", image_id=image_id)
        for n, image_id in enumerate([7, "7", b"7", 7.0])
    ]
    with ShardWriter(str(tmp_path / "s"), 10) as writer:
        for frame in frames:
            writer.write(frame)
    assert {image_id_of(frame) for frame in frames} == {b"7"}
    assert embedded(blind_model, f"{tmp_path}/s-*.tfrecord")[::2] == (1, [0, 0, 0, 0])
