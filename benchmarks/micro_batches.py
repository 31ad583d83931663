"""Compares micro-batched and rematerialized steps with a plain step, in time and memory.

    python benchmarks/micro_batches.py

The model is that of the quickstart, on random captions and images of 64 pixels. Only gradients are
computed, on one CPU device. Each case runs in its own process. The memory of inputs and weights is
not included.
"""

import argparse
import json
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import measure

PRESET, IMAGE_SIZE, SEQUENCE, PIECES = "align_nano_tiny", 64, 24, 2_000
MICRO_BATCH = 64
PAIRS = (256, 1_024, 4_096)


FORMS = {
    "plain": {},
    "micro": {"micro_batch_size": MICRO_BATCH},
    "remat": {"rematerialize": True},
}


def run(form, pairs, rounds):
    """Measures one case, in its own process."""
    import tensorflow as tf

    from align_keras import AlignDualEncoder, Lamb, build_backbone

    model = AlignDualEncoder(build_backbone(PRESET, PIECES, SEQUENCE), initial_temperature=0.1)
    model.compile(Lamb(1e-3), **FORMS[form])
    batch = measure.random_batch(pairs, IMAGE_SIZE, SEQUENCE, PIECES)
    compute = tf.function(lambda: model.compute_gradients(batch))
    measure.report(lambda: compute()[0]["loss"].numpy(), rounds)


def main():
    """Measures every size and prints the table."""
    print(f"{measure.machine()}; {PRESET}, micro-batches of {MICRO_BATCH}\n")
    columns = [*(f"{form} s" for form in FORMS), "micro ratio", "remat ratio"]
    columns += [f"{form} MiB" for form in FORMS]
    print(f"{'pairs':>7}" + "".join(f"{column:>13}" for column in columns))
    for pairs in PAIRS:
        cases = {
            form: measure.in_child(__file__, form=form, pairs=pairs, rounds=3) for form in FORMS
        }
        seconds = {form: case["seconds"] for form, case in cases.items()}
        values = [f"{value:.2f}" for value in seconds.values()]
        values += [f"{seconds[form] / seconds['plain']:.2f}" for form in ("micro", "remat")]
        values += [f"{case['peak_mib']:,.0f}" for case in cases.values()]
        print(f"{pairs:>7,}" + "".join(f"{value:>13}" for value in values), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", help="run one case, given as JSON, in this process")
    arguments = parser.parse_args()
    sys.exit(run(**json.loads(arguments.case)) if arguments.case else main())
