"""Evaluations of a pretraining run: before its first step, while it trains, at its end."""

from typing import Any

import numpy as np

from align_keras import distribution, optimizers, progress, signals
from align_keras.errors import InputError, concerning
from align_keras.evaluation.metrics import ACCURACIES, RECALLS
from align_keras.runs import cards, report, start
from align_keras.runs.log import TrainingLog
from align_keras.runs.pretraining_run import PretrainingRun

Metrics = dict[str, Any]
#: The metrics (None if the data do not support one), their chance levels, and the embeddings of the
#: held-out pairs, as returned by ``HeldOutPairs.embed``.
Evaluated = tuple[Metrics, Metrics, dict[str, Any] | None]


def evaluate_start(run: PretrainingRun, step: int) -> Metrics:
    """Evaluates the trained model from which the run starts, before the first step.

    The metrics are saved, and a resumed run reads them.

    Returns:
        The metrics; empty if the run does not start from a trained model, or if it resumes with
        other held-out data.
    """
    if not run.settings.model.model:
        return {}
    data = run.settings.data
    held_out = {
        "eval_data": data.eval_data,
        "zero_shot_data": data.zero_shot_data,
        "prompts": list(data.prompts),
    }
    if step:
        return start.read(run.workdir, held_out)
    metrics, _, _ = evaluate_held_out(run)
    start.write(run.workdir, held_out, metrics)
    return metrics


def evaluate_and_log(run: PretrainingRun, log: TrainingLog) -> Evaluated:
    """Evaluates during training; saves a checkpoint if the result is the best so far."""
    several = distribution.worker_place(run.strategy)[1] > 1
    if several:
        # If a signal ends the evaluation of one worker, the others fail in the next step. All of
        # them can resume at this checkpoint.
        log.save()
    try:
        with (
            progress.working("evaluating on held-out pairs"),
            optimizers.averaged_weights(run.model),
            signals.interruptible(),
        ):
            evaluated = evaluate_held_out(run)
    except InputError:  # the held-out data have changed; the weights are intact
        log.save()
        raise
    metrics, chance, _ = evaluated
    log.write("eval", metrics)
    if line := report.format_evaluation(log.step, metrics, chance):
        log.tell(line)
    recalls = [metrics[name] for name in RECALLS]
    if None not in recalls:
        log.skipped.keep(log.step)  # a run whose newest checkpoints are damaged resumes at the best
        with progress.working("saving the checkpoint"):
            run.checkpoints.save_if_best(float(np.mean(recalls)))
    if several:
        log.save()  # once more, with the best score
    return evaluated


def evaluate_held_out(run: PretrainingRun) -> Evaluated:
    """Evaluates on the held-out data."""
    data, model = run.data, run.model
    metrics: Metrics = dict.fromkeys(RECALLS + ACCURACIES)
    chance: Metrics = {}
    held_out = None
    if data.evaluation:
        with concerning("eval_data"):
            held_out = data.evaluation.embed(model)
        recalls, recall_chance = data.evaluation.retrieval(held_out)
        metrics, chance = metrics | recalls, chance | recall_chance
    if data.zero_shot:
        embedded = held_out
        if embedded is None or data.zero_shot is not data.evaluation:
            with concerning("zero_shot_data"):
                embedded = data.zero_shot.embed(model)
        prompts = run.settings.data.prompts
        accuracy, accuracy_chance = data.zero_shot.zero_shot(model, embedded, prompts)
        metrics, chance = metrics | accuracy, chance | accuracy_chance
    return metrics, chance, held_out


def evaluate_and_save(
    run: PretrainingRun, evaluated: Evaluated | None, command: str = ""
) -> Evaluated:
    """Evaluates the averaged weights, unless ``fit`` already did, and saves them as preset."""
    with optimizers.averaged_weights(run.model):
        metrics, chance, held_out = evaluated or evaluate_held_out(run)
        metrics["num_pairs"] = len(held_out["rows"]) if held_out else 0
        metrics["num_classes"] = len(run.data.zero_shot.class_names) if run.data.zero_shot else 0
        with progress.working("saving the preset"):
            cards.save_preset(run, metrics, chance, command)
    return metrics, chance, held_out
