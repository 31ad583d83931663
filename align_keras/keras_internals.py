"""All private names of Keras and keras-hub that this package uses, each with the reason.

No other module uses private names. ``tests/test_keras_internals.py`` fails if a new version changes
one of them.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras
import keras_hub
import tensorflow as tf
from keras.src.backend.common import global_state
from keras.src.backend.tensorflow import trainer
from keras_hub.src.utils import preset_utils

from align_keras.errors import MissingInputError, Place

# === Layers ===


def layers_of(layer: keras.layers.Layer, include_self: bool = True) -> list[keras.layers.Layer]:
    """Every layer inside a layer, at any depth; ``Model.layers`` lists only the first level."""
    return layer._flatten_layers(include_self=include_self)


def recast(layer: keras.layers.Layer, subclass: type[keras.layers.Layer]) -> None:
    """Replaces a layer's ``call`` by that of a subclass, and keeps weights and name.

    This is for layers that keras-hub's blocks create themselves. A block has no argument for the
    class of its batch norms. An attribute of a built block can be replaced only by adding a layer
    to its list, which would change the order of the weights. For layers at the top of a functional
    model, ``keras.models.clone_model`` would suffice.

    Args:
        layer: an instance of a base class of ``subclass``.
        subclass: must not add state that its ``__init__`` or ``build`` would create.
    """
    if not issubclass(subclass, type(layer)):
        raise TypeError(f"{subclass.__name__} is not a subclass of {type(layer).__name__}")
    layer.__class__ = subclass


@contextlib.contextmanager
def output_known(layer: keras.layers.Layer) -> Iterator[None]:
    """Inside the block, a layer called on symbolic tensors returns its known output shape.

    Keras determines the shape by tracing ``call``, which takes most of the time of building a
    model.

    Args:
        layer: a layer of a functional model; it must be called on inputs of the same shape as in
            that model.
    """
    first = layer._inbound_nodes[0].outputs[0]  # `layer.output` fails for a layer of two models

    def known(*_: Any, **__: Any) -> keras.KerasTensor:
        return keras.KerasTensor(first.shape, first.dtype)

    # An attribute of the object takes precedence over the method. It is not state, so Keras must
    # not track it.
    object.__setattr__(layer, "compute_output_spec", known)
    try:
        yield
    finally:
        object.__delattr__(layer, "compute_output_spec")


def build_again(layer: keras.layers.Layer, policy: str) -> None:
    """Replaces the weights of a built layer by weights of another precision policy.

    Keras cannot change the precision of a weight after its creation. Values, if there are any, and
    paths are kept.
    """
    before = layer.weights
    values = [None if weight._value is None else weight.numpy() for weight in before]
    layer.dtype_policy = policy
    layer._tracker.unlock()
    for tracked in (layer._trainable_variables, layer._non_trainable_variables):
        tracked.clear()
    layer.build_from_config(layer.get_build_config())
    for weight, old, value in zip(layer.weights, before, values, strict=True):
        weight._path = old.path
        if value is not None:
            weight.assign(value)


def seed_generator_states(model: keras.Model) -> list[keras.Variable]:
    """The states of the seed generators inside a model, in the order of ``model.variables``.

    The names used are public but undocumented: these are the variables that belong neither to the
    weights nor to a metric.
    """
    others = {id(variable) for variable in (*model.weights, *model.metrics_variables)}
    return [variable for variable in model.variables if id(variable) not in others]


# === Variables without a value ===


@contextlib.contextmanager
def variables_without_values() -> Iterator[None]:
    """Inside the block, models are built without values; ``give_value`` then sets each value.

    Memory thus never holds large weights twice. Keras's public scope would later initialise the
    variables created inside the block, which is undone at the end.
    """
    name = "uninitialized_variables"
    pending = list(global_state.get_global_attribute(name) or [])
    try:
        with keras.StatelessScope(initialize_variables=False):
            yield
    finally:
        global_state.set_global_attribute(name, pending)


def give_value(variable: keras.Variable, initializer: Callable[..., Any] | None = None) -> None:
    """Initialises a variable that was created without a value, by its own initializer or another.

    Args:
        variable: a variable created inside ``variables_without_values``; call this function
            outside.
        initializer: a function of shape and dtype.
    """
    if initializer is not None:
        variable._initializer = initializer
    variable._deferred_initialize()


# === Optimizers ===


def variable_index(optimizer: keras.optimizers.Optimizer, variable: Any) -> int:
    """The index of a variable among those for which an optimizer was built.

    In ``update_step``, a variable may be a TensorFlow variable, which has no path. Keras's guide to
    custom optimizers also uses this private name.
    """
    return optimizer._get_variable_index(variable)


def may_decay(optimizer: keras.optimizers.Optimizer, variable: keras.Variable) -> bool:
    """Whether a variable may decay: ``exclude_from_weight_decay`` did not exclude it."""
    return optimizer._use_weight_decay(variable)


def trained_variables(optimizer: keras.optimizers.Optimizer) -> list[keras.Variable]:
    """The variables for which an optimizer was built; the model may since have frozen some."""
    return optimizer._trainable_variables


def averages(optimizer: keras.optimizers.Optimizer) -> list[keras.Variable]:
    """The moving averages of a built optimizer with ``use_ema``, in the order of its variables."""
    return optimizer._model_variables_moving_average


def leave_sums_and_averages(optimizer: keras.optimizers.Optimizer) -> None:
    """Stops an optimizer from summing gradients over replicas, and ``fit`` from swapping weights.

    ``compute_gradients`` has already summed; Keras would sum again, at the same cost. At the end of
    ``fit``, Keras would also replace the model's weights by the averages.
    """
    optimizer._all_reduce_sum_gradients = list
    optimizer.finalize_variable_values = lambda variables: None


class BuiltBeforeFit(keras.Model):
    """A model that is already built when ``fit`` begins, possibly except for its optimizer.

    Otherwise Keras would draw a batch and average it over the replicas to build the model, which
    fails under ``MultiWorkerMirroredStrategy``, and would trace the model. It still does so for a
    loss or metrics of Keras that ``build_losses`` has not built.
    """

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        """A hook of Keras, called before a step is traced."""
        compiled = (self._compile_loss, self._compile_metrics)
        if not all(one is None or one.built for one in compiled):
            super()._maybe_symbolic_build(iterator, data_batch)
        if self.optimizer is not None and not self.optimizer.built:
            with self.distribute_strategy.scope():
                self.optimizer.build(self.trainable_variables)


def build_losses(
    model: keras.Model, targets: keras.KerasTensor, outputs: keras.KerasTensor
) -> None:
    """Builds the loss and the metrics of a compiled model for given targets and outputs."""
    for compiled in (model._compile_loss, model._compile_metrics):
        if compiled is not None and not compiled.built:
            compiled.build(targets, outputs)


def train_function_of(model: keras.Model, steps: int) -> Callable[[Any], Any]:
    """A function for ``fit`` that runs several training steps in one graph.

    Keras's own function puts the step into a ``tf.cond`` inside a ``tf.while_loop``, in which
    TensorFlow cannot run several replicas.

    Args:
        model: a compiled model.
        steps: steps per execution; the iterator must have as many batches.

    Returns:
        A function from an iterator to the results of the last step.
    """
    strategy = model.distribute_strategy

    def step(batch: Any) -> Any:
        outputs = strategy.run(model.train_step, args=(batch,))
        return trainer.reduce_per_replica(outputs, strategy, reduction="auto")

    step = tf.function(step, jit_compile=model.jit_compile, reduce_retracing=True, autograph=False)

    @tf.function(reduce_retracing=True, autograph=False)
    def execute(iterator: Any) -> Any:
        def one_more(number: tf.Tensor) -> list[tf.Tensor]:
            step(next(iterator))
            return [number + 1]

        tf.while_loop(lambda number: number < steps - 1, one_more, [0], parallel_iterations=1)
        return step(next(iterator))

    return execute


# === keras-hub's blocks ===


def feed_forward_layers(block: keras.layers.Layer) -> list[keras.layers.Layer]:
    """Both dense layers of a ``TransformerEncoder``, and the layer norm after them."""
    return [
        block._feedforward_intermediate_dense,
        block._feedforward_output_dense,
        block._feedforward_layer_norm,
    ]


def attention_layers(block: keras.layers.Layer) -> list[keras.layers.Layer]:
    """The attention of a ``TransformerEncoder`` and the layer norm after it."""
    return [block._self_attention_layer, block._self_attention_layer_norm]


# === keras-hub's presets ===

#: Folder of the vocabulary in a preset, as for keras-hub's own tokenizers.
TOKENIZER_FOLDER = preset_utils.TOKENIZER_ASSET_DIR
CONFIG_FILE = preset_utils.CONFIG_FILE
TASK_CONFIG_FILE = preset_utils.TASK_CONFIG_FILE
SAFETENSORS_FILE = preset_utils.SAFETENSOR_FILE
#: Names that stand for addresses on Kaggle, such as ``bert_base_en_uncased``.
BUILTIN_PRESETS = preset_utils.BUILTIN_PRESETS

#: Base class of preset loaders; ``from_preset`` of keras-hub's classes reads no other layout.
PresetLoader = preset_utils.PresetLoader

#: Maps ``(preset, path)`` to a local path; downloads the file if necessary.
get_file = preset_utils.get_file
#: Whether a preset has a file, ``(preset, path)``.
check_file_exists = preset_utils.check_file_exists
#: Loads a JSON file of a preset, ``(preset, path)``.
load_json = preset_utils.load_json
#: The class named in a JSON file of a preset.
check_config_class = preset_utils.check_config_class
#: The loader for a preset with a ``config.json``.
get_preset_loader = preset_utils.get_preset_loader


def loader_without_config(preset: str) -> preset_utils.PresetLoader:
    """The loader for a preset without ``config.json``, such as a preprocessor's."""
    return preset_utils.KerasPresetLoader(preset, {})


class WholePreprocessor(keras_hub.models.Preprocessor):
    """A preprocessor that is not assembled from a preset's tokenizer and image converter."""

    @classmethod
    def _add_missing_kwargs(cls, loader: preset_utils.PresetLoader, kwargs: dict) -> dict:
        """A hook of keras-hub, called if a preset has no preprocessor of this class."""
        raise MissingInputError(
            f"no preprocessor.json of {cls.__name__} in the preset", Place(str(loader.preset))
        )
