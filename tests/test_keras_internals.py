"""The package's assumptions about Keras and keras-hub; versions that break them fail here."""

import ast
import importlib
import inspect
import pkgutil
import re

import keras
import keras_hub
import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT
from tiny_sizes import THREE_BLOCKS, TINY_EFFICIENTNET

import align_keras
from align_keras import Lamb, keras_internals
from align_keras.layers.batch_norm import FusedBatchNormalization, moving_statistics
from align_keras.models import efficientnet
from align_keras.optimizers.wrapping import for_summed_gradients


def modules():
    """The modules that contain Keras's classes."""
    found = pkgutil.walk_packages(align_keras.__path__, "align_keras.")
    folders = ("layers", "optimizers", "preprocessing", "models")
    names = [each.name for each in found if each.name.split(".")[1] in folders]
    return [importlib.import_module(name) for name in names]


def test_private_names_stand_in_one_module():
    """These are other packages' underscore attributes, imports of ``src``, and changed classes."""
    wrong = []
    for file in sorted((ROOT / "align_keras").rglob("*.py")):
        if file.name == "keras_internals.py":
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Attribute):
                own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
                own = own or ast.unparse(node.value) == "super()"
                own = own or ast.unparse(node) == "os._exit"  # documented despite its name
                dunder = node.attr.startswith("__")
                private = node.attr.startswith("_") and not dunder and not own
                if private or (node.attr == "__class__" and isinstance(node.ctx, ast.Store)):
                    wrong.append(f"{file.relative_to(ROOT)}:{node.lineno} {ast.unparse(node)}")
            names = [
                alias.name for alias in getattr(node, "names", []) if isinstance(alias, ast.alias)
            ]
            module = getattr(node, "module", None) or ""
            if any(".src" in f"{name}." for name in (*names, module)):
                wrong.append(f"{file.relative_to(ROOT)}:{node.lineno} {ast.unparse(node)}")
    assert not wrong, "\n".join(wrong)


def test_no_class_has_a_private_name_of_a_base_class_of_keras():
    """Such a name could clash by accident, after Keras has added it, or override on purpose."""
    classes = {
        value
        for module in modules()
        for value in vars(module).values()
        if inspect.isclass(value) and value.__module__ == module.__name__
    }
    assert align_keras.AlignDualEncoder in classes
    wrong = []
    for cls in classes:
        own = set(re.findall(r"(?:\bself\.|\bdef )(_(?!_)\w+)", inspect.getsource(cls)))
        for base in cls.__mro__[1:]:
            if base.__module__.startswith(("keras.", "keras_hub.")):
                theirs = set(re.findall(r"\b(?:self|cls)\.(_(?!_)\w+)", inspect.getsource(base)))
                wrong += [
                    f"{cls.__name__}.{n}: {base.__name__}'s"
                    for n in own & (theirs | set(vars(base)))
                ]
    assert not wrong, "\n".join(wrong)


def test_layers_are_found_at_any_depth(build_tiny):
    backbone = build_tiny().backbone
    layers = keras_internals.layers_of(backbone)
    assert layers[0] is backbone
    assert backbone not in keras_internals.layers_of(backbone, include_self=False)
    assert {id(backbone.image_encoder), id(backbone.normalization)} <= {id(e) for e in layers}
    names = [layer.name for layer in layers]
    for name in ("stem_bn", "block1a_expand_bn", "query"):
        assert sum(found.endswith(name) for found in names) == 1, name


def test_a_recast_batch_norm_keeps_weights_names_and_order():
    backbone = keras_hub.models.EfficientNetBackbone(**TINY_EFFICIENTNET)
    before = [(id(weight), weight.path) for weight in backbone.weights]
    norms = [
        layer
        for layer in keras_internals.layers_of(backbone)
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    for norm in norms:
        keras_internals.recast(norm, FusedBatchNormalization)
    assert [(id(weight), weight.path) for weight in backbone.weights] == before
    # The layer is the same as one made by the constructor, which adds nothing to Keras's layer.
    made = FusedBatchNormalization.from_config(norms[0].get_config())
    made.build(norms[0].gamma.shape)
    assert vars(made).keys() <= vars(norms[0]).keys()
    with pytest.raises(TypeError, match="Dense is not a subclass of FusedBatchNormalization"):
        keras_internals.recast(norms[0], keras.layers.Dense)


def test_moving_statistics_are_all_that_a_name_would_find(build_tiny):
    backbone = build_tiny().backbone
    found = moving_statistics(backbone)
    named = [v for v in backbone.non_trainable_variables if "moving_" in v.path]
    assert {id(variable) for variable in found} == {id(variable) for variable in named}
    assert len(found) == len(named) > 0


def test_seed_generators_are_all_that_a_name_would_find(build_tiny):
    model = build_tiny(dropout=0.5)
    model.compile(Lamb())
    found = keras_internals.seed_generator_states(model)
    named = [v for v in model.variables if "seed" in v.path]
    assert [id(variable) for variable in found] == [id(variable) for variable in named]
    assert len(found) > 3
    # None of them is a weight.
    assert not [weight for weight in model.weights if "seed" in weight.path]


def test_variables_without_values_get_them_one_by_one():
    with keras_internals.variables_without_values():
        layer = keras.layers.Dense(2, name="deferred")
        layer.build((None, 3))
    other = keras.layers.Dense(2)
    other.build((None, 3))  # Keras would initialise waiting variables here
    assert layer.kernel._value is None
    keras_internals.give_value(layer.kernel, lambda shape, dtype: tf.fill(shape, 7.0))
    keras_internals.give_value(layer.bias)
    np.testing.assert_array_equal(layer.kernel, np.full((3, 2), 7.0))
    np.testing.assert_array_equal(layer.bias, np.zeros(2))


def test_a_failure_leaves_nothing_that_keras_would_initialise():
    with pytest.raises(KeyError), keras_internals.variables_without_values():
        keras.layers.Dense(2).build((None, 3))
        raise KeyError
    with keras_internals.variables_without_values():
        pass
    keras.utils.clear_session()


def two_variables():
    return [keras.Variable(np.ones((2, 2)), name=name) for name in ("first", "second")]


def test_a_layer_built_again_keeps_values_order_and_paths():
    layer = keras.layers.BatchNormalization(dtype="bfloat16", name="norm")
    layer.build((None, 2, 2, 3))
    layer.moving_mean.assign([1.0, 2.0, 3.0])
    paths = [weight.path for weight in layer.weights]
    keras_internals.build_again(layer, "mixed_bfloat16")
    assert [weight.path for weight in layer.weights] == paths
    assert {weight.dtype for weight in layer.weights} == {"float32"}
    assert (len(layer.trainable_weights), len(layer.variables)) == (2, 4)
    np.testing.assert_array_equal(layer.moving_mean.numpy(), [1.0, 2.0, 3.0])


def test_an_optimizer_tells_places_and_exclusions():
    first, second = variables = two_variables()
    optimizer = keras.optimizers.AdamW(0.1)
    optimizer.exclude_from_weight_decay([second])
    optimizer.build(variables)
    assert [keras_internals.variable_index(optimizer, v) for v in variables] == [0, 1]
    # TensorFlow's own variable has the same index.
    assert keras_internals.variable_index(optimizer, second.value) == 1
    assert keras_internals.may_decay(optimizer, first)
    assert not keras_internals.may_decay(optimizer, second)


def test_averages_stand_in_the_order_of_the_variables():
    variables = two_variables()
    variables[1].assign(np.full((2, 2), 3.0))
    optimizer = keras.optimizers.SGD(0.0, use_ema=True, ema_momentum=0.5)
    optimizer.build(variables)
    optimizer.apply([tf.zeros((2, 2))] * 2)
    first, second = keras_internals.averages(optimizer)
    np.testing.assert_array_equal(second.numpy(), 3.0 * first.numpy())


def test_an_optimizer_keeps_the_variables_that_it_was_built_for():
    variables = two_variables()
    optimizer = keras.optimizers.SGD(1.0)
    optimizer.build(variables)
    variables[0].trainable = False
    assert list(map(id, keras_internals.trained_variables(optimizer))) == list(map(id, variables))


def test_gradients_are_not_summed_again(mirrored):
    with mirrored.scope():
        (variable,) = variables = [keras.Variable(np.zeros(2), name="weight")]
        optimizers = [
            keras.optimizers.SGD(1.0),
            for_summed_gradients(keras.optimizers.SGD(1.0), False),
        ]
        for optimizer in optimizers:
            optimizer.build(variables)
    for optimizer, moved in zip(optimizers, (-2.0, -1.0), strict=True):
        variable.assign(np.zeros(2))
        mirrored.run(tf.function(lambda o=optimizer: o.apply([tf.ones(2)])))
        np.testing.assert_array_equal(variable.numpy(), [moved] * 2)


def test_keras_calls_the_hook_before_it_draws_a_batch(build_tiny, batch):
    source = inspect.getsource(type(build_tiny()).fit)
    assert "self._maybe_symbolic_build(iterator=epoch_iterator)" in source
    signature = inspect.signature(keras.Model._maybe_symbolic_build)
    ours = inspect.signature(keras_internals.BuiltBeforeFit._maybe_symbolic_build)
    assert list(signature.parameters) == list(ours.parameters)


def test_a_transformer_block_is_made_of_known_layers():
    bert = keras_hub.models.BertBackbone(10, 1, 2, 4, 6, max_sequence_length=4)
    (block,) = bert.transformer_layers
    attention, attention_norm = keras_internals.attention_layers(block)
    intermediate, output, output_norm = keras_internals.feed_forward_layers(block)
    assert (intermediate.units, output.units) == (6, 4)
    parts = (attention, attention_norm, intermediate, output, output_norm)
    # No other part of the block has weights.
    assert sum(part.count_params() for part in parts) == block.count_params()


@pytest.mark.parametrize("kind", ["v1", "unfused", "fused"])
def test_a_block_is_made_of_known_layers(kind):
    options = {"stackwise_expansion_ratios": [1, 2], "stackwise_block_types": [kind] * 2}
    backbone = keras_hub.models.EfficientNetBackbone(**THREE_BLOCKS | options)
    blocks = efficientnet.blocks(backbone)
    assert len(blocks) == 3
    layers = [layer for block in blocks for layer in block.values()]
    layers += [
        backbone.get_layer(f"{part}_{end}") for part in ("stem", "top") for end in ("conv", "bn")
    ]
    assert sum(layer.count_params() for layer in layers) == backbone.count_params()


@pytest.mark.parametrize("kind", ["v1", "unfused", "fused"])
def test_a_batch_norm_takes_the_output_of_the_convolution_before_it(kind, monkeypatch):
    """This is found by the calls of all layers, not by their names."""
    options = {"stackwise_expansion_ratios": [1, 2], "stackwise_block_types": [kind] * 2}
    encoder = align_keras.ImageEncoder(
        keras_hub.models.EfficientNetBackbone(**THREE_BLOCKS | options)
    )
    calls = []
    original = keras.layers.Layer.__call__

    def call(self, *args, **kwargs):
        output = original(self, *args, **kwargs)
        calls.append((self, args, output))  # outputs are kept, so that no id is reused
        return output

    monkeypatch.setattr(keras.layers.Layer, "__call__", call)
    encoder(np.zeros((1, 16, 16, 3), "float32"))
    makers = {id(output): layer for layer, _, output in calls}
    seen = [
        (makers[id(args[0])].name, layer.name)
        for layer, args, _ in calls
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    found = efficientnet.normalized_convolutions(encoder)
    assert [(convolution.name, norm.name) for convolution, norm in found] == seen
    assert not any(convolution.use_bias for convolution, _ in found)


@pytest.mark.parametrize(
    ("function", "parameters"),
    [
        ("get_file", ["preset", "path"]),
        ("check_file_exists", ["preset", "path"]),
        ("load_json", ["preset", "config_file"]),
        ("check_config_class", ["config"]),
        ("get_preset_loader", ["preset"]),
    ],
)
def test_keras_hub_reads_presets_by_these_functions(function, parameters):
    found = inspect.signature(getattr(keras_internals, function)).parameters
    assert list(found) == parameters


def test_keras_hub_calls_its_loaders_so():
    loader = keras_internals.loader_without_config("folder")
    assert isinstance(loader, keras_internals.PresetLoader)
    assert loader.preset == "folder"
    for method, parameters in {
        "load_backbone": ["self", "cls", "load_weights", "kwargs"],
        "load_task": ["self", "cls", "load_weights", "load_task_weights", "kwargs"],
        "load_preprocessor": ["self", "cls", "config_file", "kwargs"],
        "check_backbone_class": ["self"],
    }.items():
        found = inspect.signature(getattr(keras_internals.PresetLoader, method)).parameters
        assert list(found) == parameters, method
    assert keras_internals.TOKENIZER_FOLDER == "assets/tokenizer"
    assert "bert_base_en_uncased" in keras_internals.BUILTIN_PRESETS


def test_keras_hub_asks_for_what_a_preprocessor_lacks():
    parameters = inspect.signature(keras_hub.models.Preprocessor._add_missing_kwargs).parameters
    assert list(parameters) == ["loader", "kwargs"]
    assert "_add_missing_kwargs" in inspect.getsource(keras_internals.PresetLoader)
