"""Warnings about the metrics of a contrastive run, each in one line."""

import math
from collections.abc import Iterator, Mapping, Sequence

from align_keras.runs.mixed_sources import Used

#: A run with more passes over the same pairs gets a warning.
MANY_EPOCHS = 100
# Both are relative to the loss of random guessing: a deviation up to the first still counts as
# guessing, and a loss above the second factor is suspicious.
_NEAR, _FAR = 0.02, 1.5
# Minimum numbers of lines and steps near guessing before the warning.
_LINES, _STEPS = 5, 500
# Ratio of the losses of the two directions above which one is far ahead.
_AHEAD = 2.0
# Ratio of the temperature to its first value above which there is a warning.
_RISEN = 1.5
# Fraction of a batch's captions that repeat another caption of the batch.
_REPEATED = 0.5


def guessing_loss(batch_size: int) -> float:
    """The loss of random guessing among N pairs: ln N in each direction, 2 ln N in total."""
    return 2 * math.log(max(batch_size, 2))


class Alarms:
    """Examines each line of the log; gives each warning once per process.

    Args:
        batch_size: pairs per global batch.
        min_temperature: lower bound of the temperature.
    """

    def __init__(self, batch_size: int, min_temperature: float) -> None:
        self.guessing = guessing_loss(batch_size)
        self.min_temperature = min_temperature
        self._first: Mapping[str, float] | None = None
        self._near_since, self._near_lines = 0, 0
        self._said: set[str] = set()

    def __call__(self, step: int, metrics: Mapping[str, float]) -> list[str]:
        """The warnings for a line of the log.

        Args:
            step: step of the run.
            metrics: means since the previous line; unknown fields are ignored.
        """
        if "loss" not in metrics:
            return []
        is_near = abs(metrics["loss"] / self.guessing - 1) < _NEAR
        if not is_near:
            self._near_lines = 0
        elif not self._near_lines:
            self._near_since = step
        self._near_lines += is_near
        found = dict(self._of_loss(step, metrics)) | dict(self._of_temperature(metrics))
        found |= dict(self._of_captions(metrics))
        self._first = self._first or metrics
        new = [line for kind, line in found.items() if kind not in self._said]
        self._said |= found.keys()
        return [f"step {step:,}: {line}" for line in new]

    def _of_loss(self, step: int, metrics: Mapping[str, float]) -> Iterator[tuple[str, str]]:
        loss = metrics["loss"]
        if self._first is None and loss > _FAR * self.guessing:
            yield (
                "far above",
                f"the first loss, {loss:.1f}, is far above random guessing ({self.guessing:.1f}): "
                "were the towers trained together, and with this temperature?",
            )
        if self._near_lines >= _LINES and step - self._near_since >= _STEPS:
            alike = metrics.get("gradient_norm", 1.0) < 1e-3
            look = (
                "the gradient is nearly zero: all embeddings may be equal; lower the learning "
                "rate and start again"
                if alike
                else "check the learning rate, and whether captions match their images "
                "(inspect_data.py shows some)"
            )
            yield (
                "stuck",
                f"the loss has stayed at random guessing ({self.guessing:.2f}) since step "
                f"{self._near_since:,}: {look}",
            )
        ways = {"image to text": "loss_i2t", "text to image": "loss_t2i"}
        losses = sorted((metrics.get(name, 0.0), way) for way, name in ways.items())
        (less, ahead), (more, behind) = losses
        # The first line is ignored, since the losses may differ by chance.
        if self._first is not None and more > max(1.0, _AHEAD * less):
            yield (
                "ahead",
                f"{ahead} is far ahead of {behind} (losses {less:.2f} and {more:.2f}): do captions "
                "or images repeat?",
            )

    def _of_temperature(self, metrics: Mapping[str, float]) -> Iterator[tuple[str, str]]:
        temperature = metrics.get("temperature")
        if temperature is None:
            return
        if temperature <= 1.01 * self.min_temperature:
            yield (
                "floor",
                f"the temperature is at its floor, {self.min_temperature:g}: the run overfits, or "
                "pairs are too easy to tell apart",
            )
        first = (self._first or metrics).get("temperature", temperature)
        if temperature > _RISEN * first:
            yield (
                "risen",
                f"the temperature has risen from {first:.3g} to {temperature:.3g}: pairs are hard "
                "to tell apart; check the learning rate, and whether captions match their images",
            )

    def _of_captions(self, metrics: Mapping[str, float]) -> Iterator[tuple[str, str]]:
        share = metrics.get("repeated_captions", 0.0)
        if share > _REPEATED:
            yield (
                "repeated",
                f"{share:.0%} of a batch's captions repeat another caption, so few pairs serve "
                "as negatives of each other: look at the most frequent captions "
                "(inspect_data.py lists them), or use a smaller batch",
            )


def of_epochs(steps: int, batch_size: int, used: Sequence[Used]) -> list[str]:
    """A warning for each source that a run reads for too many epochs.

    Args:
        steps: steps of the run.
        batch_size: pairs per step.
        used: for each source, the pairs that all steps use.
    """
    lines = []
    for own in used:
        if own.epochs > MANY_EPOCHS:
            of = "training" if len(used) == 1 else own.name
            lines.append(
                f"{steps:,} steps of {batch_size:,} pairs are {own.epochs:,.0f} epochs of the "
                f"{own.pairs / own.epochs:,.0f} {of} pairs and will overfit; use fewer steps or "
                "more data"
            )
    return lines
