"""Images and captions in every form that the model takes."""

import io
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tiny_sizes import THREE_BLOCKS

from align_keras import AlignPreprocessor
from align_keras.errors import InputError, Place
from align_keras.preprocessing.raw_inputs import ItemError, MissingItemError

CAPTIONS = ["A red ring!", "small blue star", "", "green heart at the top", "x"]


@pytest.fixture(scope="module")
def images():
    """Five integer arrays of one size."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (5, 30, 40, 3)).astype("uint8")


@pytest.fixture(scope="module")
def encoded(images):
    """The same images as contents of PNG files."""
    contents = []
    for image in images:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "PNG")
        contents.append(buffer.getvalue())
    return contents


@pytest.fixture
def paths(encoded, tmp_path):
    for index, content in enumerate(encoded):
        (tmp_path / f"{index}.png").write_bytes(content)
    return [str(tmp_path / f"{index}.png") for index in range(len(encoded))]


@pytest.fixture
def model(tiny_model, monkeypatch):
    """A model whose preprocessor a test may replace."""
    monkeypatch.setattr(tiny_model, "preprocessor", tiny_model.preprocessor)
    return tiny_model


def reference_images(model, images):
    """Embeddings from the backbone alone, of images that the preprocessor scales one by one."""
    pixels = model.preprocessor.scale([model.preprocessor.centre_crop(image) for image in images])
    return pixels, model.backbone.encode_images(pixels).numpy()


@pytest.fixture(scope="module")
def reference(tiny_model, images):
    """Pixels and embeddings of the five images."""
    return reference_images(tiny_model, images)


@pytest.fixture(scope="module")
def expected_texts(tiny_model):
    """Embeddings of the captions from the backbone alone."""
    tokens = tiny_model.preprocessor.tokenize(CAPTIONS)
    return tiny_model.backbone.encode_texts(tokens).numpy()


def slices(values):
    return tf.data.Dataset.from_tensor_slices(values)


@pytest.mark.parametrize(
    "form",
    [
        lambda images, encoded, paths: images,
        lambda images, encoded, paths: list(images),
        lambda images, encoded, paths: encoded,
        lambda images, encoded, paths: paths,
        lambda images, encoded, paths: tuple(Path(path) for path in paths),
        lambda images, encoded, paths: np.array(paths),
        lambda images, encoded, paths: [Image.fromarray(image) for image in images],
        lambda images, encoded, paths: [images[0], encoded[1], paths[2], Path(paths[3]), images[4]],
        lambda images, encoded, paths: slices(images),
        lambda images, encoded, paths: slices(images).batch(2),
        lambda images, encoded, paths: slices(paths),
        lambda images, encoded, paths: slices(paths).batch(3),
        lambda images, encoded, paths: slices(encoded),
        lambda images, encoded, paths: slices({"images": encoded, "key": paths}).batch(2),
        lambda images, encoded, paths: slices((images, np.arange(5))).batch(2),
    ],
)
def test_images_in_every_form_embed_the_same(form, model, images, encoded, paths, reference):
    _, expected = reference
    embeddings = model.encode_images(form(images, encoded, paths), batch_size=2)
    assert isinstance(embeddings, np.ndarray)
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(embeddings, expected, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1.0, atol=1e-6)


def test_pixels_are_taken_as_they_are(model, reference):
    pixels, expected = reference
    for form in (pixels, tf.constant(pixels), slices(pixels), slices(pixels).batch(2)):
        np.testing.assert_allclose(model.encode_images(form), expected, atol=1e-6)
    model.preprocessor = None
    np.testing.assert_allclose(model.encode_images(pixels, batch_size=2), expected, atol=1e-6)


@pytest.mark.parametrize(
    "form",
    [
        lambda captions: captions,
        lambda captions: tuple(captions),
        lambda captions: np.array(captions),
        lambda captions: tf.constant(captions),
        lambda captions: [caption.encode() for caption in captions],
        lambda captions: slices(captions),
        lambda captions: slices(captions).batch(2),
        lambda captions: slices({"captions": captions, "key": captions}).batch(3),
    ],
)
def test_captions_in_every_form_embed_the_same(form, model, expected_texts):
    found = model.encode_texts(form(CAPTIONS), batch_size=2)
    np.testing.assert_allclose(found, expected_texts, atol=1e-6)


def test_word_pieces_are_taken_as_they_are(model, expected_texts):
    tokens = model.preprocessor.tokenize(CAPTIONS)
    for form in (tokens, slices(tokens).batch(2)):
        found = model.encode_texts(form, batch_size=2)
        np.testing.assert_allclose(found, expected_texts, atol=1e-6)


def test_single_ones_are_a_batch_of_one(model, paths):
    assert model.encode_texts("a red ring").shape == (1, 8)
    assert model.encode_images(paths[0]).shape == (1, 8)

    assert model.encode_images(Image.open(paths[0])).shape == (1, 8)
    outputs = model.predict({"images": paths[0], "captions": "a red ring"})
    assert outputs["text_embeddings"].shape == (1, 8)


def test_nothing_gives_nothing(model):
    outputs = model.predict({"images": [], "captions": []})
    assert {value.shape for value in outputs.values()} == {(0, 8)}
    assert model.encode_texts([]).shape == (0, 8)
    assert model.encode_images([]).shape == (0, 8)


@pytest.mark.parametrize(
    "form",
    [
        lambda images, paths: {"images": paths, "captions": CAPTIONS},
        lambda images, paths: {"images": images, "captions": np.array(CAPTIONS)},
        lambda images, paths: slices({"images": images, "captions": CAPTIONS}),
        lambda images, paths: {"images": tuple(images), "captions": tuple(CAPTIONS)},
        lambda images, paths: slices({"images": paths, "captions": CAPTIONS}).batch(2),
    ],
)
def test_pairs_are_predicted_from_every_form(form, model, images, paths, reference, expected_texts):
    _, expected_images = reference
    outputs = model.predict(form(images, paths), batch_size=None, verbose=0)
    assert outputs.keys() == {"image_embeddings", "text_embeddings"}
    np.testing.assert_allclose(outputs["image_embeddings"], expected_images, atol=1e-5)
    np.testing.assert_allclose(outputs["text_embeddings"], expected_texts, atol=1e-5)


def test_further_fields_of_a_dataset_pass_through_predict(model, images):
    dataset = slices({"images": images, "captions": CAPTIONS, "ids": np.arange(5)}).batch(2)
    np.testing.assert_array_equal(model.predict(dataset, verbose=0)["ids"], np.arange(5))


def test_model_inputs_are_predicted_as_arrays(model, images):
    inputs = model.preprocessor({"images": images, "captions": CAPTIONS})
    arrays = {name: np.asarray(value) for name, value in inputs.items()}
    outputs = model.predict(arrays, batch_size=2, verbose=0)
    np.testing.assert_allclose(outputs["text_embeddings"], model.encode_texts(CAPTIONS), atol=1e-5)


def test_raw_images_beside_word_pieces_are_scaled(model, images):
    tokens = model.preprocessor.tokenize(CAPTIONS)
    outputs = model.predict({"images": images, **tokens}, verbose=0)
    expected = model.encode_images(images)
    np.testing.assert_allclose(outputs["image_embeddings"], expected, atol=1e-6)


def test_another_backbone_embeds_for_itself(build_tiny, preprocessor, images):
    model = build_tiny(preprocessor=preprocessor)
    before = model.encode_images(images)
    model.backbone = build_tiny(vocabulary_size=300).backbone
    after = model.encode_images(images)
    assert np.abs(after - before).max() > 1e-3
    np.testing.assert_allclose(after, reference_images(model, images)[1], atol=1e-6)


def test_replicas_do_not_double_pairs(model, build_tiny, mirrored, images):
    with mirrored.scope():
        double = build_tiny(
            preprocessor=model.preprocessor,
            vocabulary_size=len(model.preprocessor.vocabulary),
            image_tower=THREE_BLOCKS,
        )
    for variable, source in zip(double.weights, model.weights, strict=True):
        variable.assign(source.numpy())
    pairs = {"images": images, "captions": CAPTIONS}
    expected = model.predict(pairs)
    for name, value in double.predict(pairs).items():
        np.testing.assert_allclose(value, expected[name], atol=1e-6)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m, i: m.encode_images(["/none.jpg"]), FileNotFoundError, "/none.jpg: no such"),
        (lambda m, i: m.encode_images([b"no image"]), ValueError, "image 0: does not decode"),
        (lambda m, i: m.encode_images([i[0], i[1][..., 0]]), ValueError, "image 1: not a path"),
        (lambda m, i: m.encode_images(i[0]), ValueError, "a single array; give a batch"),
        (lambda m, i: m.encode_images(5), ValueError, "not images, but int 5"),
        (lambda m, i: m.encode_images({"images": i}), ValueError, "not images, but dict"),
        (lambda m, i: m.encode_images(i.astype("int32")), ValueError, "image 0: .* int32"),
        (lambda m, i: m.encode_images(i.astype("float32")), ValueError, "floats from .*give uint8"),
        (lambda m, i: m.encode_texts({"token_ids": i}), ValueError, "no segment_ids, padding_mask"),
        (lambda m, i: m.encode_images(slices(["/none"])), FileNotFoundError, "the dataset: /none"),
        (lambda m, i: m.encode_images(slices([b"GIF89a"])), ValueError, "an image of the dataset"),
        (lambda m, i: m.encode_images(slices(i[..., :1])), ValueError, "images are uint8"),
        (lambda m, i: m.encode_texts(slices([1, 2])), ValueError, "captions are int32, not"),
        (lambda m, i: m.predict(slices({"captions": ["a"]})), ValueError, "has no field images"),
        (lambda m, i: m.encode_texts(["a", None]), ValueError, "caption 1: not a string"),
        (lambda m, i: m.encode_texts(7), ValueError, "not captions, but int 7"),
        (lambda m, i: m.predict({"images": i}), ValueError, "no captions in the inputs"),
        (
            lambda m, i: m.predict({"images": i, "captions": ["a"]}),
            ValueError,
            "5 images and 1 captions do not form pairs",
        ),
        (
            lambda m, i: m.encode_images(slices({"photo": i})),
            ValueError,
            "the dataset has no field images",
        ),
    ],
)
def test_what_cannot_be_embedded_is_one_clear_line(call, error, message, model, images):
    with pytest.raises(error, match=message) as raised:
        call(model, images)
    assert isinstance(raised.value, InputError)
    assert "\n" not in str(raised.value)


def test_a_fault_tells_which_of_a_list_it_is(model, images, tmp_path):
    with pytest.raises(ItemError) as raised:
        model.encode_images([*images, b"no image"], batch_size=2)
    assert raised.value.index == 5
    assert raised.value.place == Place(member="image 5")
    assert raised.value.problem == "does not decode"
    path = tmp_path / "note.jpg"
    with pytest.raises(MissingItemError) as raised:
        model.encode_images([images[0], path])
    assert (raised.value.index, raised.value.place) == (1, Place(str(path)))
    assert isinstance(raised.value, FileNotFoundError)
    path.write_text("not an image")
    with pytest.raises(ItemError) as raised:
        model.encode_images([images[0], images[1], path])
    assert (raised.value.index, raised.value.place) == (2, Place(str(path)))
    with pytest.raises(ItemError) as raised:
        model.encode_texts(["a", "b", 7], batch_size=2)
    assert (raised.value.index, raised.value.place) == (2, Place(member="caption 2"))


def test_a_file_that_is_no_image_is_named(model, tmp_path):
    path = tmp_path / "note.jpg"
    path.write_text("not an image")
    with pytest.raises(ValueError, match=f"{path}: does not decode; give a JPEG"):
        model.encode_images([path])
    bomb = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + (20_000).to_bytes(4, "big") * 2
    path.write_bytes(bomb + b"\x08\x02\x00\x00\x00")
    with pytest.raises(ValueError, match=f"{path}: has too many pixels"):
        model.encode_images([path])
    grey = Image.fromarray(np.full((30, 30), 40_000, "uint16"))
    with pytest.raises(ValueError, match="image 0: more than 8 bits per pixel"):
        model.encode_images([grey])


def test_raw_inputs_need_a_preprocessor(build_tiny, images):
    model = build_tiny()
    for call in (
        lambda: model.encode_images(images),
        lambda: model.encode_texts(["a"]),
        lambda: model.predict(slices({"images": images, "captions": CAPTIONS})),
    ):
        with pytest.raises(ValueError, match="the model has no preprocessor"):
            call()
    model.preprocessor = AlignPreprocessor(image_size=16, resize_size=20)
    with pytest.raises(ValueError, match="the preprocessor has no vocabulary"):
        model.encode_texts(["a"])
