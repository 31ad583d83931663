import numpy as np
import pytest
from conftest import TINY_IMAGE_SIZE

from align_keras.errors import InputError


def small_inputs(model):
    rng = np.random.default_rng(0)
    ids = rng.integers(5, len(model.preprocessor.vocabulary), (3, 12)).astype("int32")
    mask = np.ones_like(ids)
    mask[1, 6:] = 0
    pixels = rng.uniform(-1, 1, (3, TINY_IMAGE_SIZE, TINY_IMAGE_SIZE, 3)).astype("float32")
    return pixels, {"token_ids": ids, "segment_ids": np.zeros_like(ids), "padding_mask": mask}


def run_onnx(path, inputs):
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path))
    names = [value.name for value in session.get_inputs()]
    return session.run(None, {name: inputs[name] for name in names})[0]


def run_litert(path, inputs):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path))
    output = next(iter(interpreter.get_signature_runner()(**inputs).values()))
    dtypes = {np.dtype(tensor["dtype"]).name for tensor in interpreter.get_tensor_details()}
    return output, dtypes, [op["op_name"] for op in interpreter._get_ops_details()]


def test_onnx_towers_embed_the_same(tiny_model, tmp_path):
    onnx = pytest.importorskip("onnx", reason="onnx and tf2onnx are the extra align-keras[onnx]")
    tiny_model.export(tmp_path / "towers", format="onnx")
    pixels, pieces = small_inputs(tiny_model)
    found = run_onnx(tmp_path / "towers" / "image_tower.onnx", {"images": pixels})
    np.testing.assert_allclose(found, tiny_model.encode_images(pixels), atol=1e-5)
    found = run_onnx(tmp_path / "towers" / "text_tower.onnx", pieces)
    np.testing.assert_allclose(found, tiny_model.encode_texts(pieces), atol=1e-5)
    graph = onnx.load(tmp_path / "towers" / "image_tower.onnx").graph
    assert not [node.op_type for node in graph.node if "BatchNorm" in node.op_type]


@pytest.mark.parametrize(
    ("quantize", "tolerance"), [(None, 1e-5), ("float16", 2e-3), ("int8", 0.1)]
)
def test_litert_towers_embed_the_same(tiny_model, tmp_path, quantize, tolerance):
    tiny_model.export(tmp_path / "towers", format="litert", quantize=quantize)
    pixels, pieces = small_inputs(tiny_model)
    found, _, ops = run_litert(tmp_path / "towers" / "image_tower.tflite", {"images": pixels})
    np.testing.assert_allclose(found, tiny_model.encode_images(pixels), atol=tolerance)
    # Swish, squeeze-and-excite and the unit norm multiply. A batch norm that is not folded would
    # add another multiplication.
    assert ops.count("MUL") == ops.count("LOGISTIC") + 1
    found, dtypes, _ = run_litert(tmp_path / "towers" / "text_tower.tflite", pieces)
    np.testing.assert_allclose(found, tiny_model.encode_texts(pieces), atol=tolerance)
    assert quantize is None or quantize in dtypes


def test_wrong_options_of_towers_are_refused(tiny_model, tmp_path):
    with pytest.raises(InputError, match="LiteRT has float16 and int8") as caught:
        tiny_model.export(tmp_path / "towers", format="onnx", quantize="int8")
    assert caught.value.setting == "quantize"
    assert not list(tmp_path.iterdir())
