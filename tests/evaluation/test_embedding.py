import numpy as np
import pytest

from align_keras.data.examples import Example
from align_keras.errors import InputError, Place
from align_keras.evaluation import embedding, zero_shot


def example_of(encoded, name="a.jpg"):
    return Example(Place(name), name, lambda: encoded)


def test_images_are_embedded_as_the_model_embeds_them(tiny_model, scene_images):
    examples = map(example_of, scene_images)
    encode = tiny_model.encode_images
    found = embedding.embed_images(encode, examples, tiny_model.preprocessor, batch_size=2)
    np.testing.assert_allclose(found, tiny_model.encode_images(scene_images), atol=1e-6)
    features = tiny_model.encode_image_features
    found = embedding.embed_images(
        features, map(example_of, scene_images), tiny_model.preprocessor, batch_size=2
    )
    crops = [tiny_model.preprocessor.decode_centre_crop(encoded) for encoded in scene_images]
    expected = tiny_model.backbone.image_encoder(tiny_model.preprocessor.scale(np.stack(crops)))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_no_image_at_all_is_an_error(tiny_model):
    with pytest.raises(InputError, match="there are no images in the data"):
        embedding.embed_images(tiny_model.encode_images, [], tiny_model.preprocessor)


def test_an_image_that_does_not_decode_is_named(tiny_model, scene_images):
    examples = [example_of(scene_images[0], "good.jpg"), example_of(b"no image", "bad.jpg")]
    with pytest.raises(InputError) as caught:
        embedding.embed_images(tiny_model.encode_images, examples, tiny_model.preprocessor)
    assert caught.value.problem == "does not decode"
    assert "bad.jpg" in str(caught.value.place)


def test_whatever_a_reader_raises_has_a_place(tiny_model):
    def load():
        raise EOFError  # raised by zipfile, for example

    with pytest.raises(InputError, match=r"image cannot be read \(EOFError\(\)\)") as caught:
        embedding.decode_crop(Example(Place("a.zip", "line 3"), "a", load), tiny_model.preprocessor)
    assert "a.zip line 3" in str(caught.value.place)


def test_class_weights_are_cached_by_model_names_and_prompts(tiny_model, tmp_path, monkeypatch):
    names, prompts = ["red ring", "blue cross"], ["a {}", "{}"]
    classes = embedding.class_weights(tiny_model, names, prompts, tmp_path)
    texts = tiny_model.encode_texts(zero_shot.fill_prompts(names, prompts))
    np.testing.assert_allclose(classes, zero_shot.class_embeddings(texts, 2), atol=1e-6)
    calls = []
    encode = tiny_model.encode_texts
    monkeypatch.setattr(tiny_model, "encode_texts", lambda *a: calls.append(a) or encode(*a))
    cached = embedding.class_weights(tiny_model, names, prompts, tmp_path)
    np.testing.assert_array_equal(cached, classes)
    assert not calls
    embedding.class_weights(tiny_model, names[::-1], prompts, tmp_path)
    embedding.class_weights(tiny_model, names, prompts[:1], tmp_path)
    weight = tiny_model.backbone.text_projection.weights[0]
    before = weight.numpy()
    weight.assign(before + 1e-3)
    embedding.class_weights(tiny_model, names, prompts, tmp_path)
    weight.assign(before)
    assert len(calls) == len(list(tmp_path.glob("*.npy"))) - 1 == 3
    # Two classes with one prompt and one class with two prompts may fill the same texts, but they
    # must not be confused.
    assert len(embedding.class_weights(tiny_model, ["b a", "b b"], ["a {}"], tmp_path)) == 2
    assert len(embedding.class_weights(tiny_model, ["b"], ["a {} a", "a {} b"], tmp_path)) == 1


def test_cached_classes_are_distinguished_by_word_pieces_and_a_damaged_file_is_made_anew(
    tiny_model, tmp_path, monkeypatch
):
    names, prompts = ["red ring", "blue cross"], ["a {}"]
    classes = embedding.class_weights(tiny_model, names, prompts, tmp_path)
    (path,) = tmp_path.glob("*.npy")
    flipped = bytearray(path.read_bytes())
    flipped[-36] ^= 1  # the lowest bit of the last number
    for damage in (bytes(flipped), path.read_bytes()[:-9], b"", np.lib.format.magic(1, 0)):
        path.write_bytes(damage)
        found = embedding.class_weights(tiny_model, names, prompts, tmp_path)
        np.testing.assert_array_equal(found, classes)
        np.testing.assert_array_equal(np.load(path), classes)
    np.save(path, classes[:1])
    assert len(embedding.class_weights(tiny_model, names, prompts, tmp_path)) == 2
    # Simulates another version of the tokenizer, with the same settings and vocabulary.
    tokenize = tiny_model.preprocessor.tokenize
    monkeypatch.setattr(
        tiny_model.preprocessor,
        "tokenize",
        lambda texts, **options: tokenize([f"{t} red" for t in texts], **options),
    )
    other = embedding.class_weights(tiny_model, names, prompts, tmp_path)
    assert np.abs(other - classes).max() > 1e-5
    assert len(list(tmp_path.glob("*.npy"))) == 2
