import base64
import io
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import export as recipe
import keras
import numpy as np
import pytest
import serving_client
import tensorflow as tf
from conftest import ROOT, TINY_IMAGE_SIZE, build_tiny_model, make_bomb
from PIL import Image

from align_keras import AlignDualEncoder
from align_keras.evaluation import data_sets, zero_shot
from align_keras.export import folding, signatures, warm_up, writing

CAPTIONS = ["a red ring", "", "Ein ROTER Ring™, größer als \U0001f600 [SEP]", "blue " * 40]
CLASSES = ["red ring", "blue square", "green cross"]
PROMPTS = ["a {}", "the {} here"]
# What TensorFlow Serving links of TF Text (`ops_lib` there) since its version 2.12.
TEXT_OPS_OF_TENSORFLOW_SERVING = {
    "FastBertNormalize",
    "FastWordpieceTokenizeWithOffsets",
    "NormalizeUTF8",
    "RegexSplitWithOffsets",
}


def image_bytes(format="JPEG", size=(40, 30), mode="RGB", seed=0):
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3)).astype("uint8")
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, format)
    return buffer.getvalue()


def disturbed(model):
    """Batch-norm statistics and scales as of a trained model, not ones and zeros."""
    rng = np.random.default_rng(5)
    for layer in model.backbone.image_encoder._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            for weight in layer.weights:
                weight.assign(rng.uniform(0.4, 1.6, weight.shape))
    return model


@pytest.fixture(scope="module")
def model(preprocessor):
    keras.utils.set_random_seed(1)
    pieces = len(preprocessor.vocabulary)
    return disturbed(build_tiny_model(preprocessor=preprocessor, vocabulary_size=pieces))


@pytest.fixture(scope="module")
def files():
    """Images of every kind, then what is none."""
    jpeg = image_bytes()
    good = [jpeg, image_bytes("PNG", (9, 70)), image_bytes("PNG", mode="L"), image_bytes("GIF")]
    good += [image_bytes("BMP"), image_bytes("WEBP", (64, 64)), image_bytes("JPEG", mode="CMYK")]
    bad = [b"", b"\xff", b"\xff\xd8", b"no image", jpeg[:300], image_bytes("PNG")[:-40], bytes(999)]
    bad += [jpeg[:200] + bytes(200) + jpeg[400:700], image_bytes("WEBP")[:60], b"GIF89a"]
    return good, bad


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "tiny" / "1"
    model.export(path, class_names=CLASSES, prompts=PROMPTS)
    return path


@pytest.fixture(scope="module")
def served(exported):
    return tf.saved_model.load(str(exported)).signatures


@pytest.fixture(scope="module")
def answers(exported, files, tmp_path_factory):
    """What a process without this package answers."""
    folder = tmp_path_factory.mktemp("answers")
    good, bad = files
    mixed = [bad[4], good[0], *bad, good[1]]
    inputs = {
        "encode_text": CAPTIONS,
        "encode_text-one": CAPTIONS[:1],
        "encode_image": good,
        "encode_image-mixed": mixed,
        "encode_pixels": np.random.default_rng(1).integers(0, 255, (3, 50, 20, 3), "uint8"),
        "classify": mixed,
    }
    arrays = {
        name: value if isinstance(value, np.ndarray) else np.array([*value, None], object)[:-1]
        for name, value in inputs.items()
    }
    np.savez(folder / "inputs.npz", **arrays)
    environment = {n: v for n, v in os.environ.items() if n != "PYTHONPATH"}
    command = [sys.executable, str(ROOT / "tests" / "served.py"), str(exported)]
    subprocess.run(
        [*command, str(folder / "inputs.npz"), str(folder / "answers.npz")],
        check=True,
        cwd=folder,
        env=environment,
    )
    return arrays, dict(np.load(folder / "answers.npz", allow_pickle=True))


def test_a_process_without_the_package_gives_the_same_embeddings(model, answers, files):
    inputs, found = answers
    for name in ("encode_text", "encode_text-one"):
        expected = model.encode_texts(list(inputs[name]))
        np.testing.assert_allclose(found[f"{name}/text_embeddings"], expected, atol=1e-5)
    np.testing.assert_allclose(
        found["encode_image/image_embeddings"], model.encode_images(files[0]), atol=1e-5
    )
    assert found["encode_image/valid"].all()
    np.testing.assert_allclose(
        found["encode_pixels/image_embeddings"],
        model.encode_images(inputs["encode_pixels"]),
        atol=1e-5,
    )


def test_bad_images_leave_the_rest_of_the_batch_alone(model, answers, files):
    _, found = answers
    places = [1, len(files[1]) + 2]
    expected_valid = np.isin(np.arange(len(files[1]) + 3), places)
    for name in ("encode_image-mixed", "classify"):
        np.testing.assert_array_equal(found[f"{name}/valid"], expected_valid)
    embeddings = found["encode_image-mixed/image_embeddings"]
    np.testing.assert_allclose(embeddings[places], model.encode_images(files[0][:2]), atol=1e-5)
    assert not embeddings[~expected_valid].any()
    assert not found["classify/probabilities"][~expected_valid].any()
    assert set(found["classify/best_class"][~expected_valid]) == {b""}


def test_probabilities_are_the_softmax_over_class_embeddings(model, answers, files):
    _, found = answers
    texts = model.encode_texts(zero_shot.fill_prompts(CLASSES, PROMPTS))
    classes = zero_shot.class_embeddings(texts, len(CLASSES))
    valid = found["classify/valid"]
    logits = model.encode_images(files[0][:2]) @ classes.T / 0.2
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found["classify/probabilities"][valid], expected, rtol=1e-4)
    best = [CLASSES[place].encode() for place in expected.argmax(axis=1)]
    assert found["classify/best_class"][valid].tolist() == best


def test_every_op_is_one_that_tensorflow_serving_has(answers):
    _, found = answers
    assert set(found["foreign_ops"]) == TEXT_OPS_OF_TENSORFLOW_SERVING
    python_ops = [op for op in found["ops"] if "PyFunc" in op or "Numpy" in op or "Xla" in op]
    assert not python_ops


def test_names_and_dtypes(served):
    def described_specs(specs):
        return {name: (spec.dtype.name, spec.shape.as_list()) for name, spec in specs.items()}

    described = {
        name: (
            described_specs(signature.structured_input_signature[1]),
            described_specs(signature.structured_outputs),
        )
        for name, signature in served.items()
    }
    embeddings = ("float32", [None, 8])
    text = ({"captions": ("string", [None])}, {"text_embeddings": embeddings})
    valid = {"valid": ("bool", [None])}
    encoded = {"images": ("string", [None])}
    assert described == {
        "serving_default": text,
        "encode_text": text,
        "encode_image": (encoded, {"image_embeddings": embeddings, **valid}),
        "encode_pixels": (
            {"images": ("uint8", [None, None, None, 3])},
            {"image_embeddings": embeddings},
        ),
        "classify": (
            encoded,
            {
                "probabilities": ("float32", [None, 3]),
                "best_class": ("string", [None]),
                **valid,
            },
        ),
    }


@pytest.mark.parametrize("count", [1, 7])
def test_any_batch_size(served, files, count):
    encoded = served["classify"](images=tf.constant((files[0] * 2)[:count], tf.string, [count]))
    assert encoded["probabilities"].shape == (count, 3)
    texts = served["encode_text"](captions=tf.constant(["a"] * count, tf.string, [count]))
    assert texts["text_embeddings"].shape == (count, 8)
    pixels = served["encode_pixels"](images=np.zeros((count, 20, 20, 3), "uint8"))
    assert pixels["image_embeddings"].shape == (count, 8)


def test_a_decompression_bomb_is_refused_before_it_takes_memory(served, files):
    encoded = make_bomb()
    assert len(encoded) > 1_000_000
    served["encode_image"](images=tf.constant(files[0]))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    valid = served["encode_image"](images=tf.constant([encoded, files[0][0], encoded]))["valid"]
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert valid.numpy().tolist() == [False, True, False]
    assert grown < 200 << 10  # KiB; decoded, each would take 1.2 GB


def test_long_and_broken_captions(served, model):
    words = "red ring " * 200_000
    broken = b"a red \xff\xfe ring"
    captions = tf.constant([words, "x" * 1_000_000, "\u3042" * 400_000, broken, "a"])
    found = served["encode_text"](captions=captions)["text_embeddings"].numpy()
    assert np.isfinite(found).all()
    expected = model.encode_texts([words, "x" * 101, "\u3042" * 101, "a red  ring", "a"])
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_wrong_dtypes_are_told(served):
    with pytest.raises((TypeError, tf.errors.InvalidArgumentError), match="string"):
        served["encode_text"](captions=tf.constant([1, 2]))
    with pytest.raises((TypeError, tf.errors.InvalidArgumentError), match="uint8"):
        served["encode_pixels"](images=tf.zeros((1, 20, 20, 3)))


def test_requests_of_the_client_are_what_the_signatures_take(served, model, files):
    body = json.loads(serving_client.rest_body("encode_image", files[0]))
    decoded = [base64.b64decode(value["b64"]) for value in body["inputs"]]
    request = serving_client.predict_request("align", "encode_image", files[0], "images")
    tensors = [tf.constant(decoded), tf.constant(tf.make_ndarray(request.inputs["images"]))]
    for name, tensor in zip([body["signature_name"], "encode_image"], tensors, strict=True):
        found = served[name](images=tensor)["image_embeddings"]
        np.testing.assert_allclose(found, model.encode_images(files[0]), atol=1e-5)


def test_warm_up_requests_name_every_signature_and_run(exported, served):
    from tensorflow_serving.apis import prediction_log_pb2

    answered = []
    for record in tf.data.TFRecordDataset(str(exported / warm_up.PATH)).as_numpy_iterator():
        request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
        name = request.model_spec.signature_name
        inputs = {k: tf.constant(tf.make_ndarray(v)) for k, v in request.inputs.items()}
        outputs = served[name](**inputs)
        assert all(np.asarray(v).all() for k, v in outputs.items() if k == "valid")
        answered.append(name)
    assert answered == ["encode_text", "encode_image", "encode_pixels", "classify"]


def test_card_vocabulary_and_class_names_are_beside(exported, preprocessor):
    assert (exported / "assets" / "vocabulary.txt").read_text("utf-8").splitlines() == list(
        preprocessor.vocabulary
    )
    assert (exported / "assets" / "class_names.txt").read_text().splitlines() == CLASSES
    card = (exported / "assets" / "README.md").read_text()
    for word in ("encode_text", "best_class", "uint8", "the {} here", "16 x 16", "[CLS]"):
        assert word in card


def test_mixed_precision_gives_float32(model, files, tmp_path):
    model.save_to_preset(tmp_path / "preset")
    half = AlignDualEncoder.from_preset(tmp_path / "preset", dtype="mixed_bfloat16")
    answers = signatures.Signatures(half)
    assert half.backbone.image_encoder.compute_dtype == "bfloat16"
    for found, expected in (
        (answers.encode_text(CAPTIONS)["text_embeddings"], half.encode_texts(CAPTIONS)),
        (answers.encode_image(files[0])["image_embeddings"], half.encode_images(files[0])),
    ):
        assert found.dtype == tf.float32
        np.testing.assert_allclose(found, expected, atol=2e-2)


def test_nothing_is_overwritten_or_left_half_written(model, tmp_path, monkeypatch):
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "mine.txt").touch()
    with pytest.raises(ValueError, match="exists; give a new folder"):
        model.export(tmp_path / "1")
    assert [p.name for p in (tmp_path / "1").iterdir()] == ["mine.txt"]

    def fail(_, folder, verbose):
        (Path(folder) / "saved_model.pb").touch()
        raise OSError("disk full")

    monkeypatch.setattr(type(keras.export.ExportArchive()), "write_out", fail)
    with pytest.raises(OSError, match="disk full"):
        model.export(tmp_path / "2")
    assert [p.name for p in tmp_path.iterdir()] == ["1"]


def test_a_model_without_preprocessor_is_refused(build_tiny, tmp_path):
    with pytest.raises(ValueError, match="no preprocessor"):
        build_tiny().export(tmp_path / "1")


@pytest.mark.parametrize(
    ("module", "format", "extra"),
    [("tensorflow_serving.apis", "tf_saved_model", "serving"), ("tf2onnx", "onnx", "onnx")],
)
def test_what_is_not_installed_is_told(model, tmp_path, monkeypatch, module, format, extra):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"align-keras\[{extra}\]"):
        model.export(tmp_path / "1", format=format)
    assert not list(tmp_path.iterdir())


def test_a_single_class_is_refused(model, tmp_path):
    with pytest.raises(ValueError, match="two at least"):
        model.export(tmp_path / "1", class_names=["a"])


def test_a_link_to_an_empty_folder_is_written_through(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "1").symlink_to(tmp_path / "disk")
    writing.check_output(tmp_path / "1")
    with writing.new_folder(tmp_path / "1") as folder:
        (folder / "README.md").touch()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "disk"]
    assert (tmp_path / "1").is_symlink()
    assert (tmp_path / "disk" / "README.md").exists()


def test_folded_batch_norm_is_exact_to_rounding(model, tmp_path):
    folded = folding.fold_batch_norm(model.backbone)
    pixels = np.random.default_rng(0).uniform(-1, 1, (4, 16, 16, 3)).astype("float32")
    np.testing.assert_allclose(
        folded.encode_images(pixels), model.backbone.encode_images(pixels), atol=1e-6
    )

    def ops(backbone):
        function = tf.function(backbone.encode_images)
        graph = function.get_concrete_function(tf.TensorSpec([None, 16, 16, 3])).graph
        return [op.type for op in graph.get_operations()]

    assert any("FusedBatchNorm" in op for op in ops(model.backbone))
    assert not any("BatchNorm" in op for op in ops(folded))


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


def test_onnx_towers_embed_the_same(model, tmp_path):
    onnx = pytest.importorskip("onnx", reason="onnx and tf2onnx are the extra align-keras[onnx]")
    model.export(tmp_path / "towers", format="onnx")
    pixels, pieces = small_inputs(model)
    found = run_onnx(tmp_path / "towers" / "image_tower.onnx", {"images": pixels})
    np.testing.assert_allclose(found, model.encode_images(pixels), atol=1e-5)
    found = run_onnx(tmp_path / "towers" / "text_tower.onnx", pieces)
    np.testing.assert_allclose(found, model.encode_texts(pieces), atol=1e-5)
    graph = onnx.load(tmp_path / "towers" / "image_tower.onnx").graph
    assert not [node.op_type for node in graph.node if "BatchNorm" in node.op_type]


@pytest.mark.parametrize(
    ("quantize", "tolerance"), [(None, 1e-5), ("float16", 2e-3), ("int8", 0.1)]
)
def test_litert_towers_embed_the_same(model, tmp_path, quantize, tolerance):
    model.export(tmp_path / "towers", format="litert", quantize=quantize)
    pixels, pieces = small_inputs(model)
    found, _, ops = run_litert(tmp_path / "towers" / "image_tower.tflite", {"images": pixels})
    np.testing.assert_allclose(found, model.encode_images(pixels), atol=tolerance)
    # Of swish, squeeze and excite, and the unit norm; a batch norm apart would have one of its own.
    assert ops.count("MUL") == ops.count("LOGISTIC") + 1
    found, dtypes, _ = run_litert(tmp_path / "towers" / "text_tower.tflite", pieces)
    np.testing.assert_allclose(found, model.encode_texts(pieces), atol=tolerance)
    assert quantize is None or quantize in dtypes


def test_wrong_options_of_towers_are_refused(model, tmp_path):
    with pytest.raises(ValueError, match="LiteRT has float16 and int8"):
        model.export(tmp_path / "towers", format="onnx", quantize="int8")
    assert not list(tmp_path.iterdir())


def test_the_recipe_exports_a_preset(model, tmp_path, capsys):
    model.save_to_preset(tmp_path / "run" / "preset")
    settings = recipe.ExportSettings(
        model=str(tmp_path / "run"),
        output=str(tmp_path / "served" / "tiny" / "1"),
        class_names="imagenet",
        prompts=("a {}",),
        fold_batch_norm=True,
    )
    recipe.main(settings)
    printed = capsys.readouterr().out
    assert "docker run" in printed
    assert "MODEL_NAME=tiny" in printed
    served = tf.saved_model.load(settings.output).signatures
    image = image_bytes()
    found = served["classify"](images=tf.constant([image]))["probabilities"].numpy()
    # Two of ImageNet's classes have the name of another.
    names = data_sets.class_names_of("imagenet")
    texts = model.encode_texts(zero_shot.fill_prompts(names, ["a {}"]))
    classes = zero_shot.class_embeddings(texts, 1000)
    logits = model.encode_images([image]) @ classes.T / 0.2
    np.testing.assert_allclose(found, np.exp(logits) / np.exp(logits).sum(), rtol=1e-4)
    with pytest.raises(ValueError, match="--output"):
        recipe.main(settings)


def test_class_names_of_a_file(tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("\ufeffcafé\n\n red ring \n", "utf-8")
    assert recipe.read_class_names(str(path)) == ["café", "red ring"]
    path.write_text("a\nb\na\n")
    with pytest.raises(ValueError, match="--class-names: .*names.txt: 'a' stands twice"):
        recipe.read_class_names(str(path))
    path.write_bytes(b"caf\xe9\n")
    with pytest.raises(ValueError, match="--class-names: .*names.txt is not UTF-8"):
        recipe.read_class_names(str(path))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"quantize": "int8"}, "--quantize"),
        ({"prompts": ("a {}",)}, "--class-names"),
        ({"class_names": "cifar10"}, "no file and none of"),
        ({"class_names": "pets", "prompts": ("a",)}, "--prompts"),
        ({"format": "onnx", "fold_batch_norm": True}, "--fold-batch-norm"),
        ({"model": "nowhere"}, "--model"),
        ({"output": "gs://bucket/1"}, "--output: gs://bucket/1 is no local folder"),
    ],
)
def test_the_recipe_refuses_in_one_line(tmp_path, flags, message):
    settings = {"model": "nowhere", "output": str(tmp_path / "1"), **flags}
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        recipe.main(recipe.ExportSettings(**settings))
    assert not list(tmp_path.iterdir())
