import io

import numpy as np
import pytest
import tensorflow as tf
import tokenizers
from PIL import Image

from align_keras.errors import InputError, MissingInputError, Place
from align_keras.preprocessing.preprocessor import AlignPreprocessor
from align_keras.preprocessing.tokenizer import read_vocabulary

CAPTIONS = ["A red circle!", "", "Crème brûlée, photo #3", "red " * 40, "blau 漢字 unknownword"]


def encode(image, kind):
    buffer = io.BytesIO()
    image.save(buffer, kind, **({"quality": 95} if kind == "JPEG" else {}))
    return buffer.getvalue()


@pytest.fixture
def photo():
    y, x = np.mgrid[0:120, 0:160]
    pixels = np.stack([x * 1.5, y * 2.0, 120 + 60 * np.sin(x / 15 + y / 20)], axis=-1)
    return Image.fromarray(pixels.astype("uint8"))


def test_tokens_match_the_reference_tokenizer(pieces, preprocessor):
    reference = tokenizers.BertWordPieceTokenizer(
        {piece: index for index, piece in enumerate(pieces)}, lowercase=True
    )
    reference.enable_truncation(12)
    reference.enable_padding(length=12)
    tokens = preprocessor.tokenize(CAPTIONS)
    for row, encoding in enumerate(reference.encode_batch(CAPTIONS)):
        assert tokens["token_ids"][row].numpy().tolist() == encoding.ids
        assert tokens["padding_mask"][row].numpy().tolist() == encoding.attention_mask
        assert tokens["segment_ids"][row].numpy().tolist() == encoding.type_ids


@pytest.mark.parametrize("captions", [CAPTIONS, ["a ring"], [""]])
def test_rows_may_end_with_the_longest_caption(preprocessor, captions):
    padded = preprocessor.tokenize(captions)
    tokens = preprocessor.tokenize(captions, pad_to_longest=True)
    longest = int(padded["padding_mask"].numpy().sum(axis=1).max())
    for name in padded:
        assert tokens[name].dtype == padded[name].dtype
        np.testing.assert_array_equal(tokens[name], padded[name][:, :longest])


def test_captions_are_embedded_without_needless_padding(tiny_model, preprocessor, monkeypatch):
    padded = tiny_model.backbone.encode_texts(preprocessor.tokenize(["a ring", "", "dots"]))
    rows, call = [], type(tiny_model.backbone.text_encoder).call

    def spy(encoder, inputs, **kwargs):
        rows.append(inputs["token_ids"])
        return call(encoder, inputs, **kwargs)

    monkeypatch.setattr(type(tiny_model.backbone.text_encoder), "call", spy)
    monkeypatch.setattr(tf, "function", lambda function, **_: function)
    monkeypatch.setattr(tiny_model, "_traced", {})
    found = tiny_model.encode_texts(["a ring", "", "dots"])
    np.testing.assert_allclose(found, padded, atol=1e-6)
    assert rows[0].shape[1] < preprocessor.sequence_length


def test_captions_of_one_length_go_together_and_come_back_in_order(tiny_model, monkeypatch):
    captions = ["dots and rings on red", "dots", "a red ring", "", "rings", "a ring and a cross"]
    alone = np.concatenate([tiny_model.encode_texts([caption]) for caption in captions])
    batches, tokenize = [], tiny_model.preprocessor.tokenize
    monkeypatch.setattr(
        tiny_model.preprocessor,
        "tokenize",
        lambda texts, **options: batches.append(texts) or tokenize(texts, **options),
    )
    np.testing.assert_allclose(tiny_model.encode_texts(captions, 2), alone, atol=1e-6)
    assert batches == [["", "dots"], ["rings", "a red ring"], [captions[5], captions[0]]]


def test_tokens_are_the_same_in_a_dataset(preprocessor):
    dataset = tf.data.Dataset.from_tensor_slices(CAPTIONS).batch(5).map(preprocessor.tokenize)
    (inside,) = list(dataset)
    outside = preprocessor.tokenize(CAPTIONS)
    for name in outside:
        np.testing.assert_array_equal(inside[name], outside[name])


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "GIF"])
def test_centre_crop_matches_resizing_the_whole_first(kind, photo, pieces):
    preprocessor = AlignPreprocessor(pieces, 64, 80, 12)
    data = encode(photo, kind)
    whole = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), "float32")
    expected = tf.image.resize(whole, [80, 80])[8:72, 8:72] / 127.5 - 1.0
    image = preprocessor.scale(preprocessor.decode_centre_crop(tf.constant(data)))
    assert image.shape == (64, 64, 3)
    # The window is cut at whole pixels of the file, so it may be off by up to one pixel.
    assert np.abs(image - expected).mean() < 0.02
    assert np.abs(image - expected).max() < 0.2


def test_augmentation_draws_crops_and_flips_from_its_seed(photo, pieces):
    preprocessor = AlignPreprocessor(pieces, 64, 80, 12)
    data = tf.constant(encode(photo, "JPEG"))
    draws = [
        preprocessor.scale(preprocessor.decode_random_crop(data, [7, i])).numpy() for i in range(40)
    ]
    again = preprocessor.scale(preprocessor.decode_random_crop(data, [7, 3])).numpy()
    np.testing.assert_array_equal(draws[3], again)
    # Red increases to the right, so a flip changes the sign of its slope.
    slopes = np.array([(d[:, -1, 0] - d[:, 0, 0]).mean() for d in draws])
    assert 8 < np.sum(slopes < 0) < 32
    # Green increases downwards, so its mean shows the position of the crop.
    assert np.std([d[:, :, 1].mean() for d in draws]) > 0.02


def test_grey_images_become_three_channels(pieces, photo):
    preprocessor = AlignPreprocessor(pieces, 16, 16, 12)
    image = preprocessor.decode_centre_crop(tf.constant(encode(photo.convert("L"), "JPEG")))
    np.testing.assert_array_equal(image[..., 0], image[..., 2])


@pytest.mark.parametrize("data", [b"", b"no image", b"\xff\xd8\xff and then nothing"])
def test_what_is_no_image_raises(data, preprocessor):
    with pytest.raises(tf.errors.InvalidArgumentError):
        preprocessor.decode_centre_crop(tf.constant(data))


def test_an_image_of_too_many_pixels_raises_before_it_is_decoded(preprocessor):
    header = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + (20_000).to_bytes(4, "big") * 2
    gif = b"GIF89a" + (60_000).to_bytes(2, "little") * 2 + bytes(3) + b"\x2c" + bytes(9)
    buffers = [io.BytesIO() for _ in range(3)]
    for buffer, mode, lossless in zip(
        buffers, ("RGB", "RGB", "RGBA"), (True, False, False), strict=True
    ):
        Image.new(mode, (12_000, 6_000)).save(buffer, "WEBP", method=0, lossless=lossless)
    assert [buffer.getvalue()[12:16] for buffer in buffers] == [b"VP8L", b"VP8 ", b"VP8X"]
    webps = [buffer.getvalue() for buffer in buffers]
    for data in (header + b"\x08\x02\x00\x00\x00", gif, *webps):
        with pytest.raises(tf.errors.InvalidArgumentError, match="too many pixels"):
            preprocessor.decode_centre_crop(tf.constant(data))


def test_vocabulary_files_are_checked(tmp_path):
    path = tmp_path / "vocab.txt"
    for missing in (path, tmp_path):
        with pytest.raises(MissingInputError) as raised:
            read_vocabulary(missing)
        assert raised.value.place == Place(str(missing))
    for contents, problem in (
        (b"[PAD]\n[UNK]\n[CLS]\nred\n", "no [SEP] among the word pieces"),
        (b"[PAD]\n[UNK]\n[CLS]\n[SEP]\nred\nred\n", "'red' occurs twice among the word pieces"),
        (b"[PAD]\n\xff\n", "not UTF-8"),
    ):
        path.write_bytes(contents)
        with pytest.raises(InputError) as raised:
            read_vocabulary(str(path))
        assert raised.value.place == Place(str(path))
        assert raised.value.problem == problem
        assert raised.value.remedy == "give a BERT vocab.txt"
    path.write_bytes(b"[PAD]\r\n[UNK]\r\n[CLS]\r\n[SEP]\r\n\xe2\x80\xa8\r\n")
    assert read_vocabulary(str(path)) == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "\u2028"]


def test_crop_larger_than_the_resized_image_is_refused(pieces):
    with pytest.raises(ValueError, match=r"resize_size \(16\) must be at least image_size \(17\)"):
        AlignPreprocessor(pieces, 17, 16)
