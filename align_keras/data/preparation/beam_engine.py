"""Applies the rules with Apache Beam, on the runner that the user chooses."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
import tensorflow as tf
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

from align_keras import errors, paths
from align_keras.data import shard_sets
from align_keras.data.preparation import filter_report
from align_keras.data.preparation.beam_pipeline import build
from align_keras.data.preparation.judging import Preparation
from align_keras.data.shard_sets import shard_path

# Otherwise each worker process logs its connections. The user's options come later and take
# precedence.
_DEFAULTS = ("--default_sdk_harness_log_level=ERROR",)


def prepare(
    preparation: Preparation, output: str, shard_size: int, options: Sequence[str] = ()
) -> dict[str, Any]:
    """Like ``single_machine.prepare``, with Beam; the JSON lines may be spread over several files.

    Args:
        preparation: what to do; the workers must be able to read the source.
        output: path and prefix of the shards, where workers can write.
        shard_size: records per shard.
        options: Beam's pipeline options, such as ``--runner=DataflowRunner``; the direct runner
            by default.

    Returns:
        The report, as returned by ``filter_report.Tally.as_json``.

    Raises:
        InputError: as in ``single_machine.prepare``, or if the runner does not exist or cannot run
            this pipeline.
    """
    logging.getLogger("apache_beam").setLevel(logging.ERROR)
    if paths.scheme(output):
        shard_sets.check_is_new(output)
        return _run(preparation, output, shard_size, options)
    with shard_sets.unfinished(output) as work:
        return _run(preparation, str(work.folder / Path(output).name), shard_size, options)


def _run(
    preparation: Preparation, output: str, shard_size: int, options: Sequence[str]
) -> dict[str, Any]:
    with errors.concerning("beam_options"):
        pipeline = _pipeline(options)
    with pipeline:
        build(pipeline, preparation, output, shard_size)
    with errors.concerning("beam_options"):
        report = _read_report(output, 0 if preparation.table_only else shard_size)
    left_out = f"{output}-left_out.jsonl"
    if tf.io.gfile.stat(left_out).length == 0:
        tf.io.gfile.remove(left_out)
    filter_report.write(report, output)
    return report


def _pipeline(options: Sequence[str]) -> beam.Pipeline:
    """An empty pipeline on the runner that the options name.

    Raises:
        InputError: if the runner does not exist or cannot run this pipeline.
    """
    parsed = PipelineOptions([*_DEFAULTS, *options])
    runner = parsed.view_as(StandardOptions).runner or ""
    if runner.rpartition(".")[-1].lower().removesuffix("runner") == "dask":
        # Observed with apache-beam 2.77: the runner passes all tagged outputs of a transform to
        # every consumer, and computes only what the last transform needs.
        raise errors.InputError(
            "Beam's runner for Dask mixes the outputs of a step and computes only the last one",
            remedy="choose another runner",
        )
    try:
        return beam.Pipeline(options=parsed)
    except ValueError as error:
        raise errors.InputError(str(error).rstrip("."), remedy="choose another runner") from error


def _read_report(output: str, shard_size: int) -> dict[str, Any]:
    """The report, after a check that the runner wrote every output.

    Args:
        output: path and prefix of the shards.
        shard_size: records per shard; 0 if there are none.

    Raises:
        InputError: if an output is missing.
    """
    expected = [f"{output}-report.json", f"{output}-left_out.jsonl"]
    missing = [path for path in expected if not tf.io.gfile.exists(path)]
    if not missing:
        report = json.loads(tf.io.read_file(expected[0]).numpy())
        shards = -(-report["pairs_out"] // shard_size) if shard_size else 0
        expected = [shard_path(output, number) for number in range(shards)]
        missing = [path for path in expected if not tf.io.gfile.exists(path)]
    if missing:
        names = Path(missing[0]).name + (" and others" if len(missing) > 1 else "")
        raise errors.InputError(
            f"Beam's runner ended without writing {names}", remedy="choose another runner"
        )
    return report
