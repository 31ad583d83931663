"""Text towers from BERTs in Hugging Face's layout, compared with a forward pass in NumPy."""

import json

import bert_reference
import keras
import numpy as np
import pytest
import pytorch_writer
import safetensors.numpy
from checkpoints import change

from align_keras import AlignPreprocessor
from align_keras.errors import InputError, MissingInputError
from align_keras.models import pretrained

CAPTIONS = ["a large red circle", "Café GREEN!", "a blue square beside [MASK] a triangle"]


@pytest.fixture
def bert(tmp_path, pieces):
    """A folder with tokenizer.json and no vocab.txt, and its weights by their names."""
    folder = tmp_path / "bert"
    folder.mkdir()
    return folder, bert_reference.write(folder, pieces)


def tokens_of(folder):
    preprocessor = AlignPreprocessor(
        **pretrained.word_pieces(folder), image_size=8, resize_size=8, sequence_length=12
    )
    return {name: value.numpy() for name, value in preprocessor.tokenize(CAPTIONS).items()}


@pytest.fixture
def tokens(bert):
    return tokens_of(bert[0])


def reference(weights, tokens, exact_gelu=True):
    return bert_reference.forward(
        weights, tokens["token_ids"], tokens["padding_mask"].astype(bool), exact_gelu
    )


@pytest.mark.parametrize(
    ("activation", "exact"), [("gelu", True), ("gelu_new", False), ("gelu_pytorch_tanh", False)]
)
def test_the_tower_computes_the_gelu_of_the_configuration(activation, exact, bert, tokens):
    folder, weights = bert
    change(folder / "config.json", hidden_act=activation)
    encoder = pretrained.load_text_encoder(folder)
    expected = reference(weights, tokens, exact)
    np.testing.assert_allclose(encoder(tokens), expected, atol=1e-5)
    # The other GELU would fail the comparison above.
    assert np.abs(reference(weights, tokens, not exact) - expected).max() > 1e-4
    assert encoder.approximate_gelu is not exact
    assert pretrained.has_approximate_gelu(folder) is not exact


def test_the_gelu_may_be_chosen_and_is_saved(bert, tokens, tmp_path):
    folder, weights = bert
    chosen = pretrained.load_text_encoder(folder, approximate_gelu=True)
    np.testing.assert_allclose(chosen(tokens), reference(weights, tokens, False), atol=1e-5)
    for approximate in (True, False):
        encoder = pretrained.load_text_encoder(folder, approximate_gelu=approximate)
        encoder.save(tmp_path / "tower.keras")
        same = keras.models.load_model(tmp_path / "tower.keras")
        assert same.approximate_gelu is approximate
        np.testing.assert_array_equal(same(tokens), encoder(tokens))


def test_names_of_a_model_with_a_head_and_of_tensorflow_are_read(bert, tokens):
    folder, weights = bert
    new = ("LayerNorm.weight", "LayerNorm.bias")
    old = ("LayerNorm.gamma", "LayerNorm.beta")
    renamed = {
        "bert." + name.replace(new[0], old[0]).replace(new[1], old[1]): value
        for name, value in weights.items()
    }
    renamed["cls.predictions.bias"] = np.zeros(3, "float32")
    safetensors.numpy.save_file(renamed, folder / "model.safetensors")
    encoder = pretrained.load_text_encoder(folder)
    np.testing.assert_allclose(encoder(tokens), reference(weights, tokens), atol=1e-5)
    twice = {**weights, "embeddings_2.embeddings.word_embeddings.weight": np.zeros(1, "float32")}
    safetensors.numpy.save_file(twice, folder / "model.safetensors")
    with pytest.raises(InputError, match="2 tensors named embeddings.word_embeddings"):
        pretrained.load_text_encoder(folder)


def test_weights_of_pytorchs_own_files_are_read(bert, tokens, torch):
    folder, weights = bert
    (folder / "model.safetensors").unlink()
    content, storages = {}, {}
    for index, (name, value) in enumerate(weights.items()):
        strides = tuple(stride // value.itemsize for stride in value.strides)
        storages[str(index)] = value
        content[name] = pytorch_writer.tensor(
            torch, "FloatStorage", value.size, value.shape, strides, key=str(index)
        )
    pytorch_writer.write(folder / "pytorch_model.bin", content, storages)
    encoder = pretrained.load_text_encoder(folder)
    np.testing.assert_allclose(encoder(tokens), reference(weights, tokens), atol=1e-5)


@pytest.mark.parametrize("lowercase", [True, False])
@pytest.mark.parametrize("strip_accents", [None, True, False])
def test_tokenizer_json_alone_gives_the_ids_of_its_own_library(
    lowercase, strip_accents, bert, pieces
):
    folder, _ = bert
    own = bert_reference.write_tokenizer(folder, pieces, lowercase, strip_accents)
    own.enable_padding(length=12)
    own.enable_truncation(12)
    encoded = own.encode_batch(CAPTIONS)
    tokens = tokens_of(folder)
    np.testing.assert_array_equal(tokens["token_ids"], [one.ids for one in encoded])
    np.testing.assert_array_equal(tokens["padding_mask"], [one.attention_mask for one in encoded])


def test_vocab_txt_is_read_where_there_is_no_tokenizer_json(bert, pieces):
    folder, _ = bert
    (folder / "tokenizer.json").unlink()
    with pytest.raises(
        MissingInputError, match=r"neither tokenizer.json nor vocab.txt in the folder; add"
    ):
        pretrained.word_pieces(folder)
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n")
    found = pretrained.word_pieces(folder)
    assert found == {"vocabulary": list(pieces), "lowercase": True, "strip_accents": None}
    settings = {"do_lower_case": False, "tokenizer_class": "BertTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    assert pretrained.word_pieces(folder)["lowercase"] is False
    settings["tokenizer_class"] = "BertJapaneseTokenizer"
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(InputError, match="column tokenizer_class: 'BertJapaneseTokenizer' is not"):
        pretrained.word_pieces(folder)


@pytest.mark.parametrize(
    ("values", "column", "problem"),
    [
        ({"hidden_act": "relu"}, "hidden_act", "'relu' is not supported, only gelu, gelu_new, "),
        ({"hidden_act": "quick_gelu"}, "hidden_act", "'quick_gelu' is not supported"),
        ({"hidden_act": ["gelu"]}, "hidden_act", "['gelu'] is not supported"),
        ({"model_type": "roberta"}, "model_type", "'roberta' is not supported, only bert"),
        ({"layer_norm_eps": 1e-5}, "layer_norm_eps", "1e-05 is not supported, only 1e-12"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type", "'relative_key'"),
        ({"is_decoder": True}, "is_decoder", "True is not supported, only False"),
        ({"hidden_size": "16"}, "hidden_size", "must be a number above 0, not '16'"),
        ({"num_hidden_layers": 0}, "num_hidden_layers", "must be a number above 0, not 0"),
    ],
)
def test_a_configuration_that_is_not_supported_is_named(values, column, problem, bert):
    folder, _ = bert
    change(folder / "config.json", **values)
    for read in (
        pretrained.has_approximate_gelu,
        pretrained.load_text_encoder,
        pretrained.word_pieces,
    ):
        with pytest.raises(InputError) as raised:
            read(folder)
        place = raised.value.place
        assert (place.file, place.member, place.column) == (str(folder), "config.json", column)
        assert problem in raised.value.problem


def test_weights_that_are_missing_or_do_not_fit_are_named(bert):
    folder, _ = bert
    change(folder / "config.json", num_hidden_layers=3)
    with pytest.raises(InputError, match=r"no tensor encoder.layer.2.attention"):
        pretrained.load_text_encoder(folder)
    change(folder / "config.json", num_hidden_layers=2, max_position_embeddings=25)
    with pytest.raises(InputError, match=r"position_embeddings.weight has the shape \(24, 16\)"):
        pretrained.load_text_encoder(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(MissingInputError, match=r"neither model.safetensors nor pytorch_model.bin"):
        pretrained.load_text_encoder(folder)
    (folder / "config.json").unlink()
    with pytest.raises(MissingInputError, match=r"no config.json in the folder"):
        pretrained.load_text_encoder(folder)
