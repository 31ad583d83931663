"""Packs a TensorFlow Datasets set for training, without applying rules."""

from align_keras import paths
from align_keras.data import shard_sets
from align_keras.data.examples.columns import CAPTION_COLUMNS
from align_keras.data.examples.tfds_examples import TFDSExamples
from align_keras.data.preparation import filters, single_machine
from align_keras.data.preparation.judging import Preparation
from align_keras.errors import InputError

_SHARD_SIZE = 4_096


def training_shards(name: str, directory: str | paths.AnyPath, seed: int = 0) -> list[str]:
    """Packs a TFDS set for training, unless it is already packed.

    Args:
        name: as in ``TFDSExamples``.
        directory: folder for the shards.
        seed: decides the order of the records.

    Returns:
        Paths of the shards.

    Raises:
        InputError: as in ``TFDSExamples``; if no pair of the set is usable; or if shards of that
            name exist that were not packed here.
    """
    own = name.removeprefix("tfds:")
    folder = paths.path_of(directory)
    output = folder / (own if own.isidentifier() else paths.file_name_of(own))
    finished = output.with_name(f"{output.name}.finished")
    if not finished.exists():
        print(f"packing {name} into {directory}", flush=True)
        source = TFDSExamples(name)
        preparation = Preparation(source, filters.NO_RULES, seed)
        with shard_sets.made_here(folder, output.name) as local:
            report = single_machine.prepare(preparation, str(local / output.name), _SHARD_SIZE)
        if not report["pairs_out"]:
            reasons = ", ".join(report["reasons"])
            raise InputError(
                f"{name}: no usable pair ({reasons})",
                remedy=f"captions are read from {', '.join(CAPTION_COLUMNS)}",
            )
        finished.touch()
    return shard_sets.find_set(str(output))
