import base64
import json
import os
import resource
import runpy
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from bombs import make_bomb
from conftest import ROOT
from encoded_images import image_bytes
from PIL import Image

from align_keras import AlignDualEncoder
from align_keras.evaluation import zero_shot
from align_keras.export import signatures, warm_up

CAPTIONS = ["a red ring", "", "Ein ROTER Ring™, größer als \U0001f600 [SEP]", "blue " * 40]
CLASSES = ["red ring", "blue square", "green cross"]
PROMPTS = ["a {}", "the {} here"]
# Ops of TF Text that TensorFlow Serving contains since version 2.12 (its `ops_lib`).
TEXT_OPS_OF_TENSORFLOW_SERVING = {
    "FastBertNormalize",
    "FastWordpieceTokenizeWithOffsets",
    "NormalizeUTF8",
    "RegexSplitWithOffsets",
}


@pytest.fixture(scope="module")
def files():
    """Images of every kind, and then files that are not images."""
    jpeg = image_bytes()
    good = [jpeg, image_bytes("PNG", (9, 70)), image_bytes("PNG", mode="L"), image_bytes("GIF")]
    good += [image_bytes("BMP"), image_bytes("WEBP", (64, 64)), image_bytes("JPEG", mode="CMYK")]
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by 90 degrees
    good += [
        image_bytes(exif=exif),
        image_bytes("PNG", mode="RGBA"),
        image_bytes("GIF", mode="RGBA"),
    ]
    good += [image_bytes("BMP", mode="P"), image_bytes("WEBP", mode="RGBA")]
    bad = [b"", b"\xff", b"\xff\xd8", b"no image", jpeg[:300], image_bytes("PNG")[:-40], bytes(999)]
    bad += [jpeg[:200] + bytes(200) + jpeg[400:700], image_bytes("WEBP")[:60], b"GIF89a"]
    return good, bad


@pytest.fixture(scope="module")
def exported(tiny_model, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "tiny" / "1"
    tiny_model.save(path, class_names=CLASSES, prompts=PROMPTS)  # like `export`, used below
    return path


@pytest.fixture(scope="module")
def served(exported):
    return tf.saved_model.load(str(exported)).signatures


@pytest.fixture(scope="module")
def answers(exported, files, tmp_path_factory):
    """The answers of a process without this package."""
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


def test_a_process_without_the_package_gives_the_same_embeddings(tiny_model, answers, files):
    inputs, found = answers
    for name in ("encode_text", "encode_text-one"):
        expected = tiny_model.encode_texts(list(inputs[name]))
        np.testing.assert_allclose(found[f"{name}/text_embeddings"], expected, atol=1e-5)
    np.testing.assert_allclose(
        found["encode_image/image_embeddings"], tiny_model.encode_images(files[0]), atol=1e-5
    )
    assert found["encode_image/valid"].all()
    np.testing.assert_allclose(
        found["encode_pixels/image_embeddings"],
        tiny_model.encode_images(inputs["encode_pixels"]),
        atol=1e-5,
    )


def test_bad_images_leave_the_rest_of_the_batch_alone(tiny_model, answers, files):
    _, found = answers
    places = [1, len(files[1]) + 2]
    expected_valid = np.isin(np.arange(len(files[1]) + 3), places)
    for name in ("encode_image-mixed", "classify"):
        np.testing.assert_array_equal(found[f"{name}/valid"], expected_valid)
    embeddings = found["encode_image-mixed/image_embeddings"]
    np.testing.assert_allclose(
        embeddings[places], tiny_model.encode_images(files[0][:2]), atol=1e-5
    )
    assert not embeddings[~expected_valid].any()
    assert not found["classify/probabilities"][~expected_valid].any()
    assert set(found["classify/best_class"][~expected_valid]) == {b""}


def test_probabilities_are_the_softmax_over_class_embeddings(tiny_model, answers, files):
    _, found = answers
    texts = tiny_model.encode_texts(zero_shot.fill_prompts(CLASSES, PROMPTS))
    classes = zero_shot.class_embeddings(texts, len(CLASSES))
    valid = found["classify/valid"]
    logits = tiny_model.encode_images(files[0][:2]) @ classes.T / 0.2
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


def test_long_and_broken_captions(served, tiny_model):
    words = "red ring " * 200_000
    broken = b"a red \xff\xfe ring"
    captions = tf.constant([words, "x" * 1_000_000, "\u3042" * 400_000, broken, "a"])
    found = served["encode_text"](captions=captions)["text_embeddings"].numpy()
    assert np.isfinite(found).all()
    expected = tiny_model.encode_texts([words, "x" * 101, "\u3042" * 101, "a red  ring", "a"])
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_wrong_dtypes_are_reported(served):
    with pytest.raises((TypeError, tf.errors.InvalidArgumentError), match="string"):
        served["encode_text"](captions=tf.constant([1, 2]))
    with pytest.raises((TypeError, tf.errors.InvalidArgumentError), match="uint8"):
        served["encode_pixels"](images=tf.zeros((1, 20, 20, 3)))


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


def test_requests_of_the_client_are_what_the_signatures_take(served, tiny_model, files):
    client = runpy.run_path(str(ROOT / "recipes" / "serving_client.py"))
    body = json.loads(client["rest_body"]("encode_image", files[0]))
    decoded = [base64.b64decode(value["b64"]) for value in body["inputs"]]
    request = client["predict_request"]("align", "encode_image", files[0], "images")
    tensors = [tf.constant(decoded), tf.constant(tf.make_ndarray(request.inputs["images"]))]
    for name, tensor in zip([body["signature_name"], "encode_image"], tensors, strict=True):
        found = served[name](images=tensor)["image_embeddings"]
        np.testing.assert_allclose(found, tiny_model.encode_images(files[0]), atol=1e-5)


def test_mixed_precision_gives_float32(tiny_run, files):
    half = AlignDualEncoder.from_preset(tiny_run / "preset", dtype="mixed_bfloat16")
    answers = signatures.Signatures(half)
    assert half.backbone.image_encoder.compute_dtype == "bfloat16"
    for found, expected in (
        (answers.encode_text(CAPTIONS)["text_embeddings"], half.encode_texts(CAPTIONS)),
        (answers.encode_image(files[0])["image_embeddings"], half.encode_images(files[0])),
    ):
        assert found.dtype == tf.float32
        np.testing.assert_allclose(found, expected, atol=2e-2)
