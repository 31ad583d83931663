"""Training data from one source or from several weighted ones: shards, shares and epochs."""

import dataclasses
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING

from align_keras import lazy
from align_keras.data import mixing, records
from align_keras.errors import InputError, concerning
from align_keras.wording import counted

if TYPE_CHECKING:
    from align_keras.data import image_groups, shard_order
else:
    # Patterns are checked before TensorFlow loads.
    image_groups = lazy.Module("align_keras.data.image_groups")
    shard_order = lazy.Module("align_keras.data.shard_order")


@dataclasses.dataclass(frozen=True)
class Used:
    """How much of a source a run has used."""

    name: str
    """The pattern of the source."""
    pairs: int
    epochs: float

    def as_dict(self) -> dict[str, str | int | float]:
        """The fields by name, for JSON."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class TrainingSources:
    """The sources of a run's training data: several if there are weights, otherwise one."""

    names: Sequence[str]
    """The pattern of each source."""
    pairs: Sequence[int]
    """Number of pairs in an epoch of each source."""
    mixed: Sequence[mixing.Source] = ()
    """The shards and the weight of each source; empty without weights."""
    groups: Sequence["image_groups.ImageGroups"] = ()
    """The images of each source, if an epoch has one caption per image; empty if it has all."""

    @property
    def total(self) -> int:
        """Number of pairs in one epoch of all sources together."""
        return sum(self.pairs)

    def used(self, step: int, batch_size: int, workers: int = 1) -> list[Used]:
        """How much of each source a run has used after a step.

        Args:
            step: number of steps done.
            batch_size: pairs per step, over all replicas.
            workers: number of workers; each mixes the sources within its own share of a batch.
        """
        weights = [source.weight for source in self.mixed] or [1]
        before = mixing.counts_before(step * batch_size // workers, weights)
        return [
            Used(name, workers * count, workers * count / pairs)
            for name, count, pairs in zip(self.names, before, self.pairs, strict=True)
        ]

    def metrics(self, step: int, batch_size: int, workers: int = 1) -> dict[str, float]:
        """The same as fields of the log: ``epochs``, or ``source_1_epochs`` and so on."""
        used = self.used(step, batch_size, workers)
        if not self.mixed:
            return {"epochs": used[0].epochs}
        found: dict[str, float] = {}
        for number, own in enumerate(used, 1):
            found[f"source_{number}_pairs"] = own.pairs
            found[f"source_{number}_epochs"] = own.epochs
        return found


def find_shards(text: str) -> list[str]:
    """Like ``records.find_shards``, for patterns that may have weights."""
    found = (records.find_shards(pattern) for pattern, _ in mixing.split_weights(text))
    return sorted({shard for own in found for shard in own})


def opened(text: str, counts: Mapping[str, int], captions: str = "all") -> TrainingSources:
    """Opens the sources of the training data; prints their captions per image and their shares.

    Args:
        text: the setting ``train_data``, which may have weights; empty for rendered scenes.
        counts: the number of records of each shard, by path.
        captions: ``all``; or ``sample``, for one caption of each image per epoch.

    Raises:
        InputError: if the weights are wrong, or if captions are to be sampled but no
            image has several.
    """
    with concerning("train_data"):
        parts = mixing.split_weights(text)
        weights = [weight for _, weight in parts if weight is not None]
        by_source = [counts]
        if weights:
            shards = [records.find_shards(pattern) for pattern, _ in parts]
            by_source = [shard_order.part_of(counts, found) for found in shards]
    names = [pattern or "rendered scenes" for pattern, _ in parts]
    pairs = [sum(found.values()) for found in by_source]
    groups = _sampled(names, by_source) if captions == "sample" else []
    if groups:
        pairs = [found.images for found in groups]
    mixed = []
    if weights:
        with concerning("train_data"):
            mixed = _weighted(names, weights, by_source, pairs)
    return TrainingSources(names, pairs, mixed, groups)


def _sampled(
    names: Sequence[str], counts: Sequence[Mapping[str, int]]
) -> list["image_groups.ImageGroups"]:
    groups = [image_groups.read_groups(own) for own in counts]
    if all(own.images == len(own.records) for own in groups):
        raise InputError(
            "no image has several captions (records with the same image_id)",
            remedy="leave out <captions>, or pack the data with prepare_data.py",
            setting="captions",
        )
    for name, own in zip(names, groups, strict=True):
        print(
            f"{name}: {counted(own.images, 'image')} with "
            f"{counted(len(own.records), 'caption')}; an epoch has one caption of each image"
        )
    return groups


def _weighted(
    names: Sequence[str],
    given: Sequence[Fraction],
    counts: Sequence[Mapping[str, int]],
    pairs: Sequence[int],
) -> list[mixing.Source]:
    weights = mixing.whole_weights(given)
    for name, own, weight, whole in zip(names, pairs, given, weights, strict=True):
        share = whole / sum(weights)
        print(f"{name}: {counted(own, 'pair')}, weight {float(weight):g}, {share:.1%}")
    return [mixing.Source(list(own), whole) for own, whole in zip(counts, weights, strict=True)]
