"""Measures the host's time for a training step, with a model that computes almost nothing.

    python benchmarks/host_time.py

The training loop of a run is timed, without evaluations and checkpoints, on a batch in memory. Only
Python and TensorFlow's calls take time. The case "before" reads all metrics and assigns a variable
after each step, as runs did in earlier versions.

The model's few ops run on this CPU too, while on an accelerator they are not the host's work. The
first case runs all steps as one execution without a run's loop, which leaves almost only these ops.
Its time is subtracted in the last columns.

Every case runs in its own process, one after another, and the smallest time of several rounds
counts.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from types import SimpleNamespace

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import measure

STEPS, ROUNDS = 2_000, 5
METRICS = 8
CASES = {
    "the ops alone, in one execution": {"steps": STEPS, "loop": False},
    "every result read, as before": {"steps": 1, "before": True},
    "results read at lines": {"steps": 1},
    "10 steps an execution": {"steps": 10},
    "25 steps an execution": {"steps": 25},
    "100 steps an execution": {"steps": 100},
}


def make_model():
    """Makes a model whose step only updates its metrics."""
    import keras
    import tensorflow as tf

    class Idle(keras.Model):
        def __init__(self):
            super().__init__()
            self.counter = self.add_weight(shape=(), name="counter")
            self.built = True

        def train_step(self, batch):
            self.counter.assign_add(tf.reduce_sum(batch))
            return {f"metric_{n}": self.counter.value * n for n in range(METRICS)}

    model = Idle()
    model.compile()
    return model, tf.data.Dataset.from_tensors(tf.zeros([4])).repeat()


def fit_as_before(model, dataset, folder):
    """Trains with Keras's loop and reads every result after each step, as earlier versions did."""
    import keras
    import numpy as np
    import tensorflow as tf

    done = tf.Variable(0, dtype=tf.int64, trainable=False)
    counted = tf.Variable(0, dtype=tf.int64, trainable=False)

    class Reading(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            done.assign(batch + 1 - int(counted.numpy()))
            assert all(np.isfinite(value).all() for value in logs.values())

    model.fit(dataset, steps_per_epoch=STEPS, verbose=0, shuffle=False, callbacks=[Reading()])


def fit_alone(model, dataset):
    """Trains with all steps in one execution, without a run's loop."""
    model.steps_per_execution = STEPS
    model.fit(dataset, steps_per_epoch=STEPS, verbose=0, shuffle=False)


def fit_as_now(model, dataset, folder, steps):
    """Trains with the loop of a run."""
    import tensorflow as tf

    from align_keras.runs import training
    from align_keras.runs.executions import Executions
    from align_keras.runs.log import TrainingLog

    checkpoints = SimpleNamespace(
        step=0,
        saved_step=0,
        seconds=tf.Variable(0.0, dtype=tf.float64),
        timed_pairs=tf.Variable(0, dtype=tf.int64),
        count_steps=lambda steps: None,
    )
    skipped = SimpleNamespace(check=lambda *_: None, count=0, is_alone=True)
    log = TrainingLog(folder, checkpoints, STEPS, 1, 100, skipped)
    training.train(model, dataset, log, [], "", Executions(steps))


def run(steps, before=False, loop=True):
    """Measures one case, in its own process."""
    model, dataset = make_model()
    seconds = []
    # The first round traces the step and is not counted.
    for _ in range(ROUNDS + 1):
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            if not loop:
                fit_alone(model, dataset)
            elif before:
                fit_as_before(model, dataset, folder)
            else:
                fit_as_now(model, dataset, folder, steps)
            seconds.append(time.perf_counter() - start)
    print(json.dumps({"seconds": min(seconds[1:])}))


def main():
    """Measures every case and prints the table."""
    print(f"{measure.machine()}\n{STEPS:,} steps, {METRICS} metrics\n")
    print(f"{'':<32}{'microseconds a step':>20}{'of before':>11}{'the host':>10}{'of before':>11}")
    times = []
    for name, case in CASES.items():
        times.append(measure.in_child(__file__, **case)["seconds"] / STEPS * 1e6)
        print(f"{name:<32}{times[-1]:>20,.0f}", end="")
        if len(times) > 1:
            ops, before = times[:2]
            host = times[-1] - ops
            shares = times[-1] / before, host / (before - ops)
            print(f"{shares[0]:>11.2f}{host:>10,.0f}{shares[1]:>11.3f}", end="")
        print(flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", help="run one case, given as JSON, in this process")
    arguments = parser.parse_args()
    sys.exit(run(**json.loads(arguments.case)) if arguments.case else main())
