"""Chooses the number of steps and the batch size of fine-tuning by the size of the data.

The paper (sec. 5) uses batches of 2,048: 3,000 steps for the 145,000 pairs of Flickr30K, and 6,000
for the 567,000 pairs of COCO. These steps grow with the square root of the number of pairs, and the
same rule is used here for data larger than Flickr30K. Smaller data get as many epochs as Flickr30K,
in batches such that an epoch has 16 steps. A batch of 2,048 would contain all of a small set.
"""

import dataclasses
import json
import math
from collections.abc import Collection
from typing import Any

from align_keras import paths
from align_keras.data import records
from align_keras.runs import mixed_sources
from align_keras.runs.pretraining_settings import PretrainSettings

#: The paper's values for Flickr30K.
PAIRS, BATCH_SIZE, STEPS = 145_000, 2_048, 3_000
# Minimum number of steps per epoch, unless a batch would then have fewer pairs than ``_FEW``. In a
# small batch there are too few negatives.
_STEPS_OF_EPOCH, _FEW = 16, 16
#: Settings that are chosen if they are not given.
CHOSEN = ("batch_size", "steps")
_INTERVALS = {"eval_every": 6, "checkpoint_every": 6, "log_every": 60}


@dataclasses.dataclass(frozen=True)
class Length:
    """The batch size and the number of steps of a run."""

    batch_size: int
    """A power of two, so that it can be divided among 2, 4 or 8 devices."""
    steps: int


def length_for(pairs: int, batch_size: int | None = None) -> Length:
    """The batch size and the number of steps for a number of training pairs.

    Args:
        pairs: number of pairs in the training data.
        batch_size: the batch size, if it is given.
    """
    pairs = max(pairs, 1)  # an empty set is reported by the run
    if batch_size is None:
        fitting = max(min(_FEW, pairs), min(BATCH_SIZE, pairs // _STEPS_OF_EPOCH))
        batch_size = max(2, 1 << int(math.log2(fitting)))
    epochs = STEPS * BATCH_SIZE / PAIRS * min(1.0, math.sqrt(PAIRS / pairs))
    return Length(batch_size, max(1, round(epochs * pairs / batch_size)))


def count_pairs(train_data: str) -> int:
    """The number of pairs in the training data, counted as a run counts them.

    Raises:
        InputError: if the data do not exist.
    """
    if train_data.startswith("tfds:"):
        from align_keras.data.examples.tfds_examples import TFDSExamples

        examples = TFDSExamples(train_data)
        first = next(iter(examples), None)
        return examples.count * len(first.texts if first else ())
    return sum(map(records.count_records, mixed_sources.find_shards(train_data)))


def with_length(settings: PretrainSettings, given: Collection[str]) -> tuple[PretrainSettings, str]:
    """Chooses the settings that were not given, by the size of the data.

    A resumed run keeps the values chosen when it began.

    Args:
        settings: settings of fine-tuning.
        given: names of the given settings.

    Returns:
        The settings, and a line that states the chosen values, with settings as ``<steps>``. The
        line is empty if nothing was chosen.

    Raises:
        InputError: as in ``count_pairs``.
    """
    missing = [name for name in CHOSEN if name not in given]
    if not missing:
        return settings, ""
    before = _begun_with(settings.run.workdir)
    if all(isinstance(before.get(name), int) for name in missing):
        chosen = {name: before[name] for name in missing}
        line = ""
    else:
        pairs = count_pairs(settings.data.train_data)
        length = length_for(pairs, settings.run.batch_size if "batch_size" in given else None)
        chosen = {name: getattr(length, name) for name in missing}
        numbers = " and ".join(f"<{name}>={value}" for name, value in chosen.items())
        line = (
            f"{numbers}, chosen for {pairs:,} training pairs; the paper uses {BATCH_SIZE:,} "
            f"pairs per step and {STEPS:,} steps for Flickr30K's {PAIRS:,}"
        )
    steps: Any = chosen.get("steps", settings.run.steps)
    intervals = {
        name: max(1, min(getattr(settings.run, name), steps // share))
        for name, share in _INTERVALS.items()
        if name not in given
    }
    return settings.replace(**chosen, **intervals), line


def _begun_with(workdir: str) -> dict[str, object]:
    """The settings of the run in a directory; empty if there are none or they cannot be read."""
    path = paths.path_of(workdir or ".") / "settings.json"
    try:
        found = json.loads(path.read_bytes()) if workdir and path.exists() else {}
    except (OSError, ValueError):
        return {}  # reported when the run is opened
    return found if isinstance(found, dict) else {}
