"""Training data that a run loses: skipped records, and files that change while they are read."""

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from align_keras import distribution, files
from align_keras.data import watching
from align_keras.data.batches import files_of_unreadable_batch, most_of
from align_keras.errors import InputError, Place
from align_keras.paths import AnyPath

_FILE = "skipped.json"
# Number of files that are checked at each line of the log.
_LOOKS = 1_000


class LostDataError(InputError):
    """Training data was lost: too much of it was skipped, or files have changed.

    Attributes:
        weights_are_sound: False if the run may have trained on records of changed files. Unreadable
            records are harmless, since other records of the batch replace them.
    """

    weights_are_sound = True


@dataclasses.dataclass(frozen=True)
class Items:
    """Names of the training data in messages."""

    name: str
    """Name of the items in the plural, for messages."""
    setting: str
    """The setting that names the data with the items."""


#: The items of pretraining.
PAIRS = Items("pairs", "train_data")


class SkippedInRun:
    """Counts the items that a run has skipped since its first step, and limits their fraction.

    Only items of completed steps count, not those prepared ahead, so that a resumed run has the
    same count. The count is saved by step in ``skipped.json``, next to the checkpoints. The file
    does not exist if nothing was skipped.

    Args:
        workdir: the directory of the run, or of one phase of it.
        taken: returns the lost items by file, given the number of batches that this process has
            used; it is called at lines of the log and at checkpoints.
        limit: the largest acceptable fraction of skipped items.
        epoch: number of items per epoch, over all workers.
        batch_size: items per step, over all replicas.
        step: number of steps already done.
        strategy: the strategy, if every replica reads its own batches; None if replicas share the
            batches of one pipeline.
        look: returns the files that have changed, each with its change (``is gone``).
            Its argument is the number of files to check; None for all.
        items: name of the data in messages.
        files: paths of the files; ``lost`` in the batches counts them from 1.
    """

    def __init__(
        self,
        workdir: AnyPath,
        taken: Callable[[int], Counter[str]],
        limit: float,
        epoch: int,
        batch_size: int,
        step: int,
        *,
        strategy: tf.distribute.Strategy | None = None,
        look: Callable[[int | None], Mapping[str, str]] = lambda _: {},
        items: Items = PAIRS,
        files: Sequence[str] = (),
    ) -> None:
        self._files = files
        self.workdir, self.limit, self.epoch, self.batch_size = workdir, limit, epoch, batch_size
        self._taken, self._strategy, self._look, self._items = taken, strategy, look, items
        self._workers, replicas = 1, 1
        if strategy is not None:
            _, self._workers = distribution.worker_place(strategy)
            replicas = strategy.num_replicas_in_sync
        self._batches = replicas // self._workers
        before = _read(workdir).get(step, {})
        self.count = self._before = before.get("skipped_pairs", 0)
        # Items that an earlier error has already reported. They do not end the run again before its
        # last step.
        self._reported = before.get("reported", 0)
        self._epoch_number = self._epoch_of(step)
        # Checkpoints of earlier versions hold only the epoch.
        self._epoch_began = before.get("epoch_began", self.count)
        first = -(-self._epoch_number * self.epoch // batch_size)
        self._epoch_began_step = before.get("epoch_began_step", first)
        self._checked_step = step

    @property
    def is_alone(self) -> bool:
        """Whether there is only one worker, so that ``check`` need not wait for others."""
        return self._workers == 1

    def _epoch_of(self, step: int) -> int:
        return max(step * self.batch_size - 1, 0) // self.epoch

    def check(self, step: int, is_saved: bool, is_last: bool, saved_step: int = 0) -> None:
        """Counts the items skipped so far, and checks whether files have changed.

        Every worker must call it after the same steps. It waits for those steps.

        Args:
            step: number of steps done.
            is_saved: whether a checkpoint of this step will be saved; then all files are checked.
            is_last: whether this was the last step of the run.
            saved_step: step of the newest checkpoint.

        Raises:
            LostDataError: if a file has changed; if this epoch has skipped more than the fraction
                ``limit`` of its pairs; or, at the last step, if the run has skipped more than that
                fraction of all pairs it has read.
        """
        lost = self._taken(step * self._batches)
        changed = self._look(None if is_saved or is_last else _LOOKS)
        # The run may have been trained on records of a replaced file.
        replaced = sum(
            change not in (watching.GONE, watching.FOLDER) for change in changed.values()
        )
        number, changes = lost.total(), len(changed)
        if self._workers > 1:
            number, changes, replaced = (
                sum(distribution.gather_from_workers(self._strategy, own))
                for own in (number, changes, replaced)
            )
        began, self.count = self.count, self._before + round(number)
        if self._epoch_of(step) != self._epoch_number:
            self._epoch_number, self._epoch_began = self._epoch_of(step), began
            self._epoch_began_step = self._checked_step
        self._checked_step = step
        problem = ""
        # Several epochs may begin between two checks.
        of = max(self.epoch, (step - self._epoch_began_step) * self.batch_size)
        in_epoch = self.count - max(self._epoch_began, self._reported)
        if is_last and self.count > self.limit * step * self.batch_size:
            in_epoch, of = self.count, step * self.batch_size
        if in_epoch > self.limit * of:
            problem = (
                f"{_share(in_epoch, of, self.limit, self._items)}: "
                f"{most_of(lost) or 'other workers name the files'}"
            )
        if changes or problem:
            self._reported = self.count
            resume_at = saved_step if replaced else step
            error = _lost(problem, changed, changes, resume_at, self._items)
            error.weights_are_sound = not replaced
            raise error

    def check_files(self, step: int) -> None:
        """Raises LostDataError, after an error of TensorFlow, if files have changed.

        Args:
            step: step of the newest checkpoint; an error inside a step does not save weights.
        """
        if changed := self._look(None):
            raise _lost("", changed, len(changed), step, self._items)

    def explain(self, error: tf.errors.OpError, step: int) -> None:
        """Like ``check_files``; also raises LostDataError after a batch without a readable pair."""
        self.check_files(step)
        numbers = files_of_unreadable_batch(error)
        if numbers is not None:
            files = ", ".join(self._files[number - 1] for number in numbers)
            problem = f"no {self._items.name[:-1]} of an entire batch is readable; files: {files}"
            remedy = (
                "check the shards with recipes/inspect_data.py; "
                f"the same command resumes at step {step:,}"
            )
            raise LostDataError(problem, None, remedy, self._items.setting) from None

    def keep(self, step: int) -> None:
        """Writes the count for the checkpoint of a step; removes the counts of later steps."""
        found = {old: own for old, own in _read(self.workdir).items() if old < step}
        if self.count or found or (self.workdir / _FILE).exists():
            found[step] = {
                "skipped_pairs": self.count,
                "reported": self._reported,
                "epoch_began": self._epoch_began,
                "epoch_began_step": self._epoch_began_step,
            }
            text = json.dumps({str(own): counts for own, counts in found.items()}, indent=2)
            files.write_whole(self.workdir / _FILE, text + "\n")


def _share(number: int, of: int, limit: float, items: Items) -> str:
    return (
        f"{number:,} of {of:,} {items.name} were skipped ({number / of:.2%}), more than {limit:.2%}"
    )


def _lost(
    problem: str, changed: Mapping[str, str], changes: int, step: int, items: Items
) -> LostDataError:
    resume = f"the same command resumes at step {step:,}"
    if not changes:
        remedy = f"write those files again or raise <max_skipped_share>; {resume}"
        return LostDataError(problem, None, remedy, items.setting)
    remedy, place = f"restore it as it was; {resume}", None
    if changed:
        file, change = min(changed.items())
        others = f" (and {len(changed) - 1:,} more have changed)" if len(changed) > 1 else ""
        problem, place = f"{change} since the run opened it{others}", Place(file)
    else:
        problem = "training files have changed since the run opened them; other workers name them"
    return LostDataError(problem, place, remedy, items.setting)


def check_finished(
    workdir: AnyPath, step: int, limit: float, batch_size: int, items: Items = PAIRS
) -> None:
    """Checks a run that has reached its last step, as ``SkippedInRun.check`` does.

    Args:
        workdir: as in ``SkippedInRun``.
        step: the last step.
        limit: the largest acceptable fraction of skipped items.
        batch_size: items per step, over all replicas.
        items: name of the data in messages.

    Raises:
        LostDataError: if the run has skipped a larger fraction.
    """
    count, total = skipped_before(workdir, step), step * batch_size
    if count > limit * total:
        raise LostDataError(
            _share(count, total, limit, items),
            None,
            "train again on complete data, or raise <max_skipped_share> to accept the run as it is",
            items.setting,
        )


def skipped_before(workdir: AnyPath, step: int) -> int:
    """The number of items that a run had skipped at its checkpoint of a step."""
    return _read(workdir).get(step, {}).get("skipped_pairs", 0)


def _read(workdir: AnyPath) -> dict[int, dict[str, Any]]:
    path = workdir / _FILE
    if not path.exists():
        return {}
    found = files.read_json(path, dict)
    try:
        return {int(step): {name: int(own[name]) for name in own} for step, own in found.items()}
    except (ValueError, TypeError):
        raise InputError(
            "it is damaged", Place(str(path)), "restore it, or delete it to count from 0"
        ) from None
