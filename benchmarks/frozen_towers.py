"""Time of a training step by what is frozen: nothing, a tower, both, or features computed before.

    python benchmarks/frozen_towers.py

EfficientNet-B0 at 224 pixels and BERT-mini, 32 pairs of 32 word pieces, AdamW; every case is a
process of its own and they take turns.
"""

import argparse
import json
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import measure

PAIRS, IMAGE_SIZE, SEQUENCE, PIECES = 32, 224, 32, 30_522
ROUNDS, TURNS = 2, 3
IMAGES, BOTH = ["image_encoder"], ["image_encoder", "text_encoder"]
CASES = {
    "nothing frozen": {},
    "image tower frozen": {"frozen": IMAGES},
    "both towers frozen": {"frozen": BOTH},
    "image features cached": {"frozen": IMAGES, "cached": True},
    "both features cached": {"frozen": BOTH, "cached": True},
}


def run(frozen=(), cached=False):
    """One case, in its own process."""
    import tensorflow as tf

    import align_keras
    from align_keras.optimizers import make_optimizer

    backbone = align_keras.AlignBackbone(
        align_keras.build_image_encoder("efficientnet_b0"),
        align_keras.build_text_encoder("bert_mini", PIECES, SEQUENCE),
        320,
    )
    model = align_keras.AlignDualEncoder(backbone, initial_temperature=0.1)
    for name in frozen:
        getattr(backbone, name).trainable = False
    model.compile(make_optimizer("adamw", 1e-3, model.trainable_variables))
    model.optimizer.build(model.trainable_variables)
    batch = measure.random_batch(PAIRS, IMAGE_SIZE, SEQUENCE, PIECES)
    if cached:
        texts = {name: batch.pop(name) for name in ("token_ids", "segment_ids", "padding_mask")}
        batch["image_features"] = backbone.image_encoder(batch.pop("images"))
        if "text_encoder" in frozen:
            texts = {"text_features": backbone.text_encoder(texts)}
        batch |= texts
    step = tf.function(model.train_step, autograph=False)
    measure.report(lambda: step(batch)["loss"].numpy(), ROUNDS)


def main():
    """Measures every case and prints the table."""
    print(f"{measure.machine()}; EfficientNet-B0 at {IMAGE_SIZE}, BERT-mini, {PAIRS} pairs\n")
    seconds = {name: [] for name in CASES}
    for _ in range(TURNS):
        for name, case in CASES.items():
            seconds[name].append(measure.in_child(__file__, **case)["seconds"])
    whole = min(seconds["nothing frozen"])
    print(f"{'':<24}{'ms a step':>10}{'of the first':>14}")
    for name, values in seconds.items():
        print(f"{name:<24}{1_000 * min(values):>10,.1f}{min(values) / whole:>14.3f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", help="one case as JSON, in this process")
    arguments = parser.parse_args()
    sys.exit(run(**json.loads(arguments.case)) if arguments.case else main())
