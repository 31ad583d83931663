"""The forward pass of a BERT in NumPy, and folders of such a BERT in Hugging Face's format."""

import json
import math

import numpy as np
import safetensors.numpy
import tokenizers

CONFIG = {
    "architectures": ["BertModel"],
    "model_type": "bert",
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "max_position_embeddings": 24,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "position_embedding_type": "absolute",
}


def random_weights(vocabulary_size, seed=0):
    """Returns tensors of the sizes of ``CONFIG`` by Hugging Face's names, with large values."""
    rng = np.random.default_rng(seed)
    width, inner = CONFIG["hidden_size"], CONFIG["intermediate_size"]
    shapes = {
        "embeddings.word_embeddings.weight": (vocabulary_size, width),
        "embeddings.position_embeddings.weight": (CONFIG["max_position_embeddings"], width),
        "embeddings.token_type_embeddings.weight": (CONFIG["type_vocab_size"], width),
    }
    norms = ["embeddings.LayerNorm"]
    for layer in range(CONFIG["num_hidden_layers"]):
        prefix = f"encoder.layer.{layer}"
        dense = {f"attention.self.{part}": (width, width) for part in ("query", "key", "value")}
        dense["attention.output.dense"] = (width, width)
        dense |= {"intermediate.dense": (inner, width), "output.dense": (width, inner)}
        for name, shape in dense.items():
            shapes |= {f"{prefix}.{name}.weight": shape, f"{prefix}.{name}.bias": shape[:1]}
        norms += [f"{prefix}.attention.output.LayerNorm", f"{prefix}.output.LayerNorm"]
    weights = {name: rng.normal(0, 0.4, shape) for name, shape in shapes.items()}
    for name in norms:
        weights[f"{name}.weight"] = rng.uniform(0.5, 1.5, width)
        weights[f"{name}.bias"] = rng.normal(0, 0.2, width)
    return {name: value.astype("float32") for name, value in weights.items()}


def gelu(x, exact):
    """Computes both forms of the GELU (Hendrycks and Gimpel, 2016)."""
    if exact:
        return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def forward(weights, token_ids, padding_mask, exact_gelu=True):
    """Returns the last hidden state at [CLS], in float64: ``(batch, hidden_size)``."""
    w = {name: value.astype("float64") for name, value in weights.items()}
    heads = CONFIG["num_attention_heads"]

    def dense(name, x):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(name, x):
        mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
        scaled = (x - mean) / np.sqrt(variance + CONFIG["layer_norm_eps"])
        return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]

    def split(x):  # to (batch, heads, sequence, width of a head)
        return x.reshape(*x.shape[:2], heads, -1).swapaxes(1, 2)

    x = w["embeddings.word_embeddings.weight"][token_ids]
    x = x + w["embeddings.position_embeddings.weight"][: token_ids.shape[1]]
    x = norm("embeddings.LayerNorm", x + w["embeddings.token_type_embeddings.weight"][0])
    for layer in range(CONFIG["num_hidden_layers"]):
        name = f"encoder.layer.{layer}"
        parts = ("query", "key", "value")
        query, key, value = (split(dense(f"{name}.attention.self.{part}", x)) for part in parts)
        scores = query @ key.swapaxes(2, 3) / math.sqrt(query.shape[-1])
        scores = np.where(padding_mask[:, None, None, :], scores, -np.inf)
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        attended = scores / scores.sum(-1, keepdims=True) @ value
        attended = attended.swapaxes(1, 2).reshape(x.shape)
        attended = dense(f"{name}.attention.output.dense", attended)
        x = norm(f"{name}.attention.output.LayerNorm", x + attended)
        inner = gelu(dense(f"{name}.intermediate.dense", x), exact_gelu)
        x = norm(f"{name}.output.LayerNorm", x + dense(f"{name}.output.dense", inner))
    return x[:, 0]


def write_tokenizer(folder, pieces, lowercase=True, strip_accents=None):
    """Writes only ``tokenizer.json``, with the tokenizers library; returns the tokenizer."""
    table = {piece: index for index, piece in enumerate(pieces)}
    tokenizer = tokenizers.BertWordPieceTokenizer(
        table, lowercase=lowercase, strip_accents=strip_accents
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    return tokenizer


def write(folder, pieces, **config):
    """Writes a folder of a BERT without ``vocab.txt``; returns the weights by name."""
    weights = random_weights(len(pieces))
    config = {**CONFIG, "vocab_size": len(pieces), **config}
    (folder / "config.json").write_text(json.dumps(config))
    safetensors.numpy.save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    write_tokenizer(folder, pieces)
    return weights
