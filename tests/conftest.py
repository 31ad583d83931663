import faulthandler
import gc
import json
import os
import shutil
import sys
import threading
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # as the commands set it
# Without optimization, compiling takes half the time; the tests run most programs only once or
# twice.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
ROOT = Path(__file__).parent.parent
# Folder of real data and reference checkpoints; it may be missing.
SHARED = ROOT.parent / "shared"
sys.path.insert(0, str(ROOT / "recipes"))
sys.path.append(str(ROOT / "benchmarks"))  # last, because other modules have the same names

from align_keras.runs.memory import keep_freed_memory

keep_freed_memory()  # as training commands do

import checkpoints
import keras
import keras_hub
import numpy as np
import pytest
import pytorch_writer
import tensorflow as tf

# pytest looks for the hook in this module; it prints the figures of `make test-faults`.
from faults.tables import pytest_terminal_summary  # noqa: F401
from tiny_sizes import THREE_BLOCKS, TINY_EFFICIENTNET, add_tiny_preset

# This runs before TensorFlow starts: replicas of a MirroredStrategy without a GPU.
LOGICAL_CPUS = int(os.environ.get("LOGICAL_CPUS", "2"))
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0],
    [tf.config.LogicalDeviceConfiguration()] * LOGICAL_CPUS,
)

# Tests trace many graphs and run each of them only a few times; optimizing the graphs took a sixth
# of the time. Commands and notebooks that run in their own processes optimize theirs, as users'
# processes do.
tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})

from align_keras import (
    AlignBackbone,
    AlignDualEncoder,
    AlignPreprocessor,
    ImageEncoder,
    TextEncoder,
    distribution,
    keras_internals,
)
from align_keras.data import records, scenes, vocabulary


def pytest_make_parametrize_id(val, argname):
    """Keeps bytes out of the names of tests."""
    return argname if isinstance(val, bytes) else None


TINY_IMAGE_SIZE = 16
TINY_SEQUENCE = 12


@pytest.fixture(scope="module")
def tiny_preset():
    """Adds a size ``tiny`` of two layers; tracing takes most of a short run."""
    with pytest.MonkeyPatch.context() as patch:
        add_tiny_preset(patch)
        yield "tiny"


@pytest.fixture(scope="module", autouse=True)
def garbage():
    """After a test file, takes surviving objects out of garbage collection: there are millions."""
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def fixed_seed():
    keras.utils.set_random_seed(1)


@pytest.fixture(scope="session")
def mirrored():
    """Two replicas on the CPU; a process can have only one such strategy."""
    return distribution.mirrored_strategy(("/device:CPU:0", "/device:CPU:1"))


@pytest.fixture(scope="session")
def scene_shards(tmp_path_factory):
    """Twelve shards of 10 rendered scenes, and one shard of 30 held-out scenes."""
    directory = tmp_path_factory.mktemp("scenes")
    train, held_out = scenes.write_scenes(directory, num_train=120, num_eval=30, shard_size=10)
    return records.find_shards(train), records.find_shards(held_out)


@pytest.fixture(scope="session")
def pieces(scene_shards):
    return vocabulary.train_vocabulary(records.read_captions(scene_shards[0], 1000), 300)


@pytest.fixture(scope="session")
def scene_images(held_out_images):
    """Three encoded images of scenes."""
    return held_out_images[:3]


@pytest.fixture(scope="session")
def held_out_images(scene_shards):
    """The encoded images of all thirty held-out scenes."""
    frames = [frame for shard in scene_shards[1] for frame in records.read_frames(shard)]
    return [records.parse_pair(frame)["jpg"] for frame in frames]


@pytest.fixture(scope="session")
def preprocessor(pieces):
    return AlignPreprocessor(pieces, TINY_IMAGE_SIZE, 20, TINY_SEQUENCE)


def build_tiny_model(
    dropout=0.0, synchronized=False, vocabulary_size=300, image_tower=TINY_EFFICIENTNET, **options
):
    """Builds a dual encoder of two layers with embeddings of width 8."""
    image_backbone = keras_hub.models.EfficientNetBackbone(**image_tower, dropout=dropout)
    text_backbone = keras_hub.models.BertBackbone(
        vocabulary_size=vocabulary_size,
        num_layers=1,
        num_heads=2,
        hidden_dim=16,
        intermediate_dim=32,
        dropout=dropout,
        max_sequence_length=TINY_SEQUENCE,
    )
    backbone = AlignBackbone(
        ImageEncoder(image_backbone, 0.9, synchronized_batch_norm=synchronized),
        TextEncoder(text_backbone),
        projection_dim=8,
    )
    return AlignDualEncoder(backbone, **{"initial_temperature": 0.2, **options})


@pytest.fixture(scope="session")
def tiny_model(preprocessor):
    """A dual encoder with its preprocessor; a test that changes it must change it back."""
    keras.utils.set_random_seed(1)
    pieces = len(preprocessor.vocabulary)
    options = {"vocabulary_size": pieces, "image_tower": THREE_BLOCKS}
    model = build_tiny_model(preprocessor=preprocessor, **options)
    # Batch-norm statistics and scales get values as in a trained model instead of ones and zeros.
    rng = np.random.default_rng(5)
    ranges = {"gamma": (0.4, 1.6), "moving_variance": (0.4, 1.6)}
    ranges |= {"beta": (-0.2, 0.2), "moving_mean": (-0.2, 0.2)}
    for weight in model.backbone.image_encoder.weights:
        if weight.name in ranges:
            weight.assign(rng.uniform(*ranges[weight.name], weight.shape))
    return model


@pytest.fixture(scope="session")
def tiny_run(tiny_model, tmp_path_factory):
    """The directory of a finished run that contains only the preset of ``tiny_model``."""
    directory = tmp_path_factory.mktemp("tiny_run")
    tiny_model.save_to_preset(directory / "preset")
    return directory


@pytest.fixture(scope="session")
def scene_photos(tmp_path_factory, scene_shards):
    """Thirty scenes in folders of classes and in a table; three captions each, two splits."""
    folder = tmp_path_factory.mktemp("photos")
    frames = [frame for shard in scene_shards[1] for frame in records.read_frames(shard)]
    rows = []
    for index, pair in enumerate(map(records.parse_pair, frames)):
        split, name = ("test", "train")[index % 2], ("ring", "cross", "star")[index // 2 % 3]
        path = folder / split / name / f"{index}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pair["jpg"])
        caption = pair["txt"].decode()
        rows.append(
            {
                "image": str(path.relative_to(folder)),
                "captions": [caption, f"{caption} again", f"picture {index}"],
                "class_name": name,
                "split": split,
            }
        )
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="session")
def page_search(tmp_path_factory, tiny_model, held_out_images):
    """An index of thirty scenes; one name looks like HTML, and one name is not valid text."""
    from align_keras.data import examples
    from align_keras.search import indexing
    from align_keras.search.image_index import ImageIndex
    from align_keras.search.image_search import ImageSearch

    folder = tmp_path_factory.mktemp("page")
    (folder / "photos").mkdir()
    for number, data in enumerate(held_out_images):
        odd = {3: "<img src=x onerror=alert(1)>", 4: os.fsdecode(b"\xe9")}
        name = odd.get(number, f"{number:02}")
        (folder / "photos" / f"{name}.jpg").write_bytes(data)
    source = examples.open_images(folder / "photos")
    indexing.build_index(tiny_model, source, folder / "index", thumbnail_size=64)
    return ImageSearch(tiny_model, ImageIndex(folder / "index"))


@pytest.fixture(scope="session")
def page_address(page_search):
    """The address of a page that is served while the tests run."""
    from align_keras.search import listening, page, page_server

    with listening.listen("127.0.0.1", 0) as listener:
        server = page_server.build_server(page.build_page(page_search))
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join(20)
        server.force_exit = True  # a browser that is still open keeps its connections
        thread.join(20)
        assert not thread.is_alive(), faulthandler.dump_traceback()


# `faults/` cannot have its own conftest.py, because test modules import this one by its name.
@pytest.fixture(scope="session")
def server():
    from command_runs import shared_server

    return shared_server()


@pytest.fixture(scope="session")
def material(server, tmp_path_factory):
    from command_runs import shared_material

    return shared_material(server, tmp_path_factory)


@pytest.fixture
def build_tiny():
    return build_tiny_model


def freeze_batch_norm(model):
    """Freezes batch norm, because each micro-batch would otherwise have its own statistics."""
    for layer in keras_internals.layers_of(model.backbone.image_encoder):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False


@pytest.fixture(scope="session")
def exported(pieces, tmp_path_factory):
    """A checkpoint in Hugging Face's layout, and the model that was exported to it."""
    folder = tmp_path_factory.mktemp("exported")
    keras.utils.set_random_seed(1)
    model = checkpoints.small_model(pieces)
    model.export_to_transformers(folder)
    return folder, model


@pytest.fixture
def checkpoint(exported, tmp_path):
    """A copy of the checkpoint, to change; without checksums, as from other programs."""
    folder = shutil.copytree(exported[0], tmp_path / "checkpoint")
    (folder / "checksums.json").unlink()
    return folder


def make_batch():
    """Returns eight random pairs; 2 and 5 share an image, and 1 and 7 share a caption."""
    rng = np.random.default_rng(0)
    token_ids = rng.integers(5, 300, (8, TINY_SEQUENCE)).astype("int32")
    return {
        "images": rng.uniform(-1, 1, (8, TINY_IMAGE_SIZE, TINY_IMAGE_SIZE, 3)).astype("float32"),
        "token_ids": token_ids,
        "segment_ids": np.zeros_like(token_ids),
        "padding_mask": np.ones_like(token_ids),
        "image_ids": np.array([0, 0, 7, 8, 9, 7, 10, 0]),
        "caption_ids": np.array([1, 2, 3, 4, 5, 6, 7, 2]),
    }


@pytest.fixture
def batch():
    return make_batch()


@pytest.fixture
def torch(monkeypatch):
    """Modules with PyTorch's names, for pickles that refer to them."""
    modules = pytorch_writer.torch_modules()
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    return modules["torch"]
