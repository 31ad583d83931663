"""Learning-rate schedules: a warm-up, then the paper's linear decay or another form."""

import math

import keras
import tensorflow as tf

LearningRate = float | keras.optimizers.schedules.LearningRateSchedule


class _Warmup(keras.optimizers.schedules.LearningRateSchedule):
    """A warm-up; subclasses define what follows. Arguments as for ``WarmupLinearDecay``."""

    def __init__(self, peak: float, warmup_steps: int, total_steps: int) -> None:
        if not 0 <= warmup_steps < total_steps:
            raise ValueError(
                f"warmup_steps must be from 0 to below total_steps ({total_steps}), "
                f"not {warmup_steps}"
            )
        self.peak = peak
        self.warmup_steps = warmup_steps
        self.total_steps = total_steps

    def __call__(self, step: int | tf.Tensor) -> tf.Tensor:
        """The learning rate of a step, counted from 0; above 0 at step 0."""
        step = tf.cast(step, tf.float32)
        warmup = (step + 1.0) / max(self.warmup_steps, 1)
        left = (self.total_steps - step) / (self.total_steps - self.warmup_steps)
        return self.peak * tf.clip_by_value(tf.minimum(warmup, self._after(left)), 0.0, 1.0)

    def _after(self, left: tf.Tensor) -> tf.Tensor:
        """The fraction of the peak, given the fraction of steps that are left after the warm-up."""
        raise NotImplementedError

    def get_config(self) -> dict:
        """The constructor's arguments."""
        return {
            "peak": self.peak,
            "warmup_steps": self.warmup_steps,
            "total_steps": self.total_steps,
        }


@keras.saving.register_keras_serializable(package="align_keras")
class WarmupLinearDecay(_Warmup):
    """Rises from 0 to ``peak`` in ``warmup_steps``, then linearly to 0 at ``total_steps`` (sec. 5).

    Args:
        peak: the highest learning rate, 1e-3 in the paper.
        warmup_steps: optimizer steps, 10,000 in the paper; fewer than ``total_steps``.
        total_steps: optimizer steps, 1,200,000 in the paper.

    Raises:
        ValueError: if ``warmup_steps`` is not from 0 to below ``total_steps``.
    """

    def _after(self, left: tf.Tensor) -> tf.Tensor:
        return left


@keras.saving.register_keras_serializable(package="align_keras")
class WarmupCosineDecay(_Warmup):
    """Like ``WarmupLinearDecay``, but falls along half a cosine (Loshchilov and Hutter, 2017)."""

    def _after(self, left: tf.Tensor) -> tf.Tensor:
        # During the warm-up, ``left`` is above 1.
        return 0.5 - 0.5 * tf.cos(math.pi * tf.clip_by_value(left, 0.0, 1.0))


@keras.saving.register_keras_serializable(package="align_keras")
class WarmupConstant(_Warmup):
    """Like ``WarmupLinearDecay``, but stays at ``peak``."""

    def _after(self, left: tf.Tensor) -> tf.Tensor:
        return tf.ones_like(left)


SCHEDULES = {
    "linear": WarmupLinearDecay,
    "cosine": WarmupCosineDecay,
    "constant": WarmupConstant,
}


def make_schedule(name: str, peak: float, warmup_steps: int, total_steps: int) -> _Warmup:
    """A schedule by name: ``linear``, ``cosine`` or ``constant``."""
    return SCHEDULES[name](peak, warmup_steps, total_steps)


def make_finetuning_schedule(
    schedule: str, learning_rate: float, steps: int
) -> keras.optimizers.schedules.LearningRateSchedule:
    """The learning rate of a fine-tuning phase: ``cosine``, or three drops by a factor of 5."""
    if schedule == "cosine":
        return keras.optimizers.schedules.CosineDecay(learning_rate, steps)
    # A boundary is the last step before a drop of the rate.
    boundaries = [round(share * steps) - 1 for share in (0.3, 0.6, 0.9)]
    values = [learning_rate * 0.2**drops for drops in range(4)]
    return keras.optimizers.schedules.PiecewiseConstantDecay(boundaries, values)
