"""How long to fine-tune for retrieval, and in what batches, for the size of the data.

The paper (sec. 5) takes batches of 2,048: 3,000 steps for the 145,000 pairs of Flickr30K, 6,000
for the 567,000 of COCO. The steps grow as the root of the number of pairs, and larger data follow
that here. Smaller data have the epochs of Flickr30K, in batches of which an epoch has 16: one of
2,048 would hold all of a small set.
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

#: Of the paper, for Flickr30K.
PAIRS, BATCH_SIZE, STEPS = 145_000, 2_048, 3_000
# Steps that an epoch has at least, unless a batch would have fewer pairs than this: in small ones
# there is little to tell apart.
_STEPS_OF_EPOCH, _FEW = 16, 16
#: Settings that are chosen unless they are given.
CHOSEN = ("batch_size", "steps")
_INTERVALS = {"eval_every": 6, "checkpoint_every": 6, "log_every": 60}


@dataclasses.dataclass(frozen=True)
class Length:
    """How a run trains on its pairs."""

    batch_size: int
    """A power of two: it divides among 2, 4 or 8 devices."""
    steps: int


def length_for(pairs: int, batch_size: int | None = None) -> Length:
    """Batch and steps for a number of training pairs.

    Args:
        pairs: in the training data.
        batch_size: where it is given.
    """
    pairs = max(pairs, 1)  # the run says that there are none
    if batch_size is None:
        fitting = max(min(_FEW, pairs), min(BATCH_SIZE, pairs // _STEPS_OF_EPOCH))
        batch_size = max(2, 1 << int(math.log2(fitting)))
    epochs = STEPS * BATCH_SIZE / PAIRS * min(1.0, math.sqrt(PAIRS / pairs))
    return Length(batch_size, max(1, round(epochs * pairs / batch_size)))


def count_pairs(train_data: str) -> int:
    """The pairs of training data, as a run takes them.

    Raises:
        InputError: if they are not there.
    """
    if train_data.startswith("tfds:"):
        from align_keras.data.examples.tfds_examples import TFDSExamples

        examples = TFDSExamples(train_data)
        first = next(iter(examples), None)
        return examples.count * len(first.texts if first else ())
    return sum(map(records.count_records, mixed_sources.find_shards(train_data)))


def with_length(settings: PretrainSettings, given: Collection[str]) -> tuple[PretrainSettings, str]:
    """Chooses what was not given for the size of the data.

    A run that goes on keeps what was chosen when it began.

    Args:
        settings: of fine-tuning.
        given: the settings that were given.

    Returns:
        The settings, and a line that says what was chosen, with settings as ``<steps>``; empty if
        nothing was.

    Raises:
        InputError: as ``count_pairs``.
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
            f"{numbers}, chosen for {pairs:,} training pairs; the paper has {BATCH_SIZE:,} pairs "
            f"a step and {STEPS:,} steps for Flickr30K's {PAIRS:,}"
        )
    steps: Any = chosen.get("steps", settings.run.steps)
    intervals = {
        name: max(1, min(getattr(settings.run, name), steps // share))
        for name, share in _INTERVALS.items()
        if name not in given
    }
    return settings.replace(**chosen, **intervals), line


def _begun_with(workdir: str) -> dict[str, object]:
    """The settings of the run in a directory; empty without one, or if they cannot be read."""
    path = paths.path_of(workdir or ".") / "settings.json"
    try:
        found = json.loads(path.read_bytes()) if workdir and path.exists() else {}
    except (OSError, ValueError):
        return {}  # said when the run is opened
    return found if isinstance(found, dict) else {}
