"""Files with a checkpoint's tensors: safetensors or PyTorch's format, one file or several."""

import json
import pickle

import numpy as np
import pytest
import pytorch_writer
import safetensors.numpy
from ml_dtypes import bfloat16

from align_keras import AlignDualEncoder
from align_keras.errors import InputError, MissingInputError
from align_keras.models.conversion import tensor_pickle
from align_keras.models.conversion.tensor_files import TensorFiles

STORAGES = {"float32": "FloatStorage", "int64": "LongStorage"}


def read_all(folder):
    return safetensors.numpy.load_file(folder / "model.safetensors")


def write_bin(torch, path, tensors):
    content, storages = {}, {}
    for key, (name, value) in enumerate(tensors.items()):
        strides = tuple(stride // value.itemsize for stride in value.strides)
        kind = STORAGES[value.dtype.name]
        arguments = (torch, kind, value.size, value.shape, strides)
        content[name] = pytorch_writer.tensor(*arguments, key=str(key))
        storages[str(key)] = value
    pytorch_writer.write(path, content, storages)


def assert_the_same(loaded, model):
    """Checks for equal weights; embeddings may differ in the last digit, because of threads."""
    for own, other in zip(loaded.backbone.weights, model.backbone.weights, strict=True):
        np.testing.assert_array_equal(own, other, err_msg=own.path)
    captions = ["a red circle", "a blue square"]
    np.testing.assert_allclose(
        loaded.encode_texts(captions), model.encode_texts(captions), atol=1e-6
    )


@pytest.mark.parametrize("parts", [1, 3])
def test_pytorch_files_give_the_same_embeddings(parts, torch, exported, checkpoint):
    tensors = read_all(checkpoint)
    (checkpoint / "model.safetensors").unlink()
    names = list(tensors)
    if parts == 1:
        write_bin(torch, checkpoint / "pytorch_model.bin", tensors)
    else:
        weight_map = {}
        for part in range(parts):
            file = f"pytorch_model-{part}.bin"
            own = {name: tensors[name] for name in names[part::parts]}
            write_bin(torch, checkpoint / file, own)
            weight_map |= dict.fromkeys(own, file)
        index = json.dumps({"weight_map": weight_map})
        (checkpoint / "pytorch_model.bin.index.json").write_text(index)
    loaded = AlignDualEncoder.from_preset(checkpoint)
    assert_the_same(loaded, exported[1])
    assert float(loaded.temperature) == pytest.approx(0.07)


def test_safetensors_come_first(exported, checkpoint):
    (checkpoint / "pytorch_model.bin").write_bytes(b"not looked at")
    loaded = AlignDualEncoder.from_preset(checkpoint)
    assert_the_same(loaded, exported[1])


def test_a_checkpoint_without_weights_is_reported(checkpoint):
    (checkpoint / "model.safetensors").unlink()
    with pytest.raises(
        MissingInputError, match=r"neither model\.safetensors nor pytorch_model\.bin"
    ):
        AlignDualEncoder.from_preset(checkpoint)


def test_half_precision_is_read(tmp_path):
    values = np.array([1.0, -2.5, 0.125], "f4")
    file = tmp_path / "model.safetensors"
    safetensors.numpy.save_file({"a": values.astype(bfloat16), "b": values.astype("f2")}, file)
    tensors = TensorFiles(str(tmp_path))
    np.testing.assert_array_equal(tensors.read("a"), values)
    np.testing.assert_array_equal(tensors.read("b"), values)


@pytest.mark.parametrize(
    ("index", "problem"),
    [
        ({"weight_map": {"a": "../outside.safetensors"}}, "not a file in its folder"),
        ({"weight_map": {"a": "/etc/passwd"}}, "not a file in its folder"),
        ({"weight_map": {"a": "config.json"}}, "not a file in its folder"),
        ({"weight_map": {"a": 3}}, "no weight_map of file names"),
        ({"weight_map": ["a"]}, "no weight_map of file names"),
        ([], "no weight_map of file names"),
        ({"weight_map": {"b": "part.safetensors"}}, "no tensor b in part"),
    ],
)
def test_an_index_names_files_of_the_checkpoint_alone(index, problem, tmp_path):
    safetensors.numpy.save_file({"a": np.zeros(2, "f4")}, tmp_path / "part.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match=problem) as caught:
        TensorFiles(str(tmp_path))
    assert caught.value.place.member == "model.safetensors.index.json"


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 40)
    with pytest.raises(InputError, match="not readable as safetensors") as caught:
        TensorFiles(str(tmp_path))
    assert caught.value.place.file == str(tmp_path / "model.safetensors")


def test_a_call_of_what_would_take_for_ever_to_hash_is_refused():
    # Each of thirty nested tuples contains the previous one twice; the last one is then called.
    nest = pickle.PROTO + b"\x02" + pickle.EMPTY_TUPLE
    nest += 30 * (pickle.BINPUT + b"\x00" + pickle.BINGET + b"\x00" + pickle.TUPLE2)
    with pytest.raises(TypeError):
        tensor_pickle.load(nest + pickle.EMPTY_TUPLE + pickle.REDUCE + pickle.STOP, InputError)


def test_a_hostile_pytorch_file_is_refused_by_what_it_asks_for(checkpoint, tmp_path):
    import os

    (checkpoint / "model.safetensors").unlink()
    hostile = {"a": pytorch_writer.Call(os.system, f"touch {tmp_path / 'canary'}")}
    pytorch_writer.write(checkpoint / "pytorch_model.bin", hostile)
    with pytest.raises(InputError, match="system, which is not allowed"):
        AlignDualEncoder.from_preset(checkpoint)
    assert not (tmp_path / "canary").exists()
