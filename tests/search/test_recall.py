import pytest
from conftest import SHARED

from align_keras.data import examples
from align_keras.errors import InputError
from align_keras.evaluation.tasks.retrieval import Retrieval
from align_keras.search import indexing
from align_keras.search.image_index import ImageIndex
from align_keras.search.image_search import ImageSearch
from align_keras.search.recall import measure_recall, read_captions


def index_of(model, table, output, select, **options):
    source = examples.open_images(table, select)
    indexing.build_index(model, source, output, **options)
    return ImageSearch(model, ImageIndex(output))


def recalls_of_evaluation(model, table, output):
    task = Retrieval("photos", str(table))
    return task.run(model, task.open(), output).metrics


def test_recall_through_an_index_is_that_of_evaluation(tiny_model, scene_photos, tmp_path):
    table = scene_photos / "pairs.jsonl"
    expected = recalls_of_evaluation(tiny_model, table, tmp_path)
    captions = read_captions(examples.open_examples(str(table)))
    for way, exact_below in (("exact", 1_000), ("approximate", 10)):
        search = index_of(
            tiny_model,
            table,
            tmp_path / way,
            ("split=test",),
            exact_below=exact_below,
            num_lists=4,
        )
        found = measure_recall(search, captions, probes=4)
        assert found.metrics == {name: expected[name] for name in found.metrics}
        assert found.metrics.keys() == {f"t2i_recall_at_{k}" for k in (1, 5, 10)}
        assert found.chance["t2i_recall_at_5"] == 5 / 15
        assert found.title == f"15 images, 45 captions, {way}"
    # With one of four lists open, some right images are missed.
    narrow = measure_recall(search, captions, probes=1).metrics
    assert narrow["t2i_recall_at_10"] < expected["t2i_recall_at_10"]
    others = read_captions(examples.open_examples(str(table), "train"))
    with pytest.raises(InputError, match="the images of the data are not those of the index"):
        measure_recall(search, others)


def test_photographs_of_the_world_are_found_as_evaluation_finds_them(tiny_model, tmp_path):
    table = SHARED / "data" / "captions" / "coco_mini" / "pairs.jsonl"
    if not table.exists():
        pytest.skip(f"no shared data at {table}; rendered scenes are searched above")
    expected = recalls_of_evaluation(tiny_model, table, tmp_path)
    captions = read_captions(examples.open_examples(str(table)))
    for exact_below in (1_000, 100):
        output = tmp_path / f"index-{exact_below}"
        search = index_of(tiny_model, table, output, (), exact_below=exact_below)
        found = measure_recall(search, captions).metrics
        assert found == {name: expected[name] for name in found}
