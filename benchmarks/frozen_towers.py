"""Times a training step with no, one or two frozen towers, and with precomputed features.

    python benchmarks/frozen_towers.py

EfficientNet-B0 at 224 pixels and BERT-mini, 16 pairs of 32 word pieces, AdamW. All cases are
compiled in one process; then they take turns. Times are CPU times (user and system), which depend
less on other load on the machine than elapsed times do.
"""

import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import measure

PAIRS, IMAGE_SIZE, SEQUENCE, PIECES = 16, 224, 32, 30_522
TURNS = 7
IMAGES, BOTH = ["image_encoder"], ["image_encoder", "text_encoder"]
CASES = {
    "nothing frozen": {},
    "image tower frozen": {"frozen": IMAGES},
    "both towers frozen": {"frozen": BOTH},
    "image features cached": {"frozen": IMAGES, "cached": True},
    "both features cached": {"frozen": BOTH, "cached": True},
}


def compiled(frozen=(), cached=False):
    """A function that takes one step of a case; it has already been called once."""
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
    step(batch)["loss"].numpy()
    return lambda: step(batch)["loss"].numpy()


def seconds_of(step):
    """Core seconds of one step."""
    start = time.process_time()
    step()
    return time.process_time() - start


def main():
    """Measures every case and prints the table."""
    print(f"{measure.machine()}; EfficientNet-B0 at {IMAGE_SIZE}, BERT-mini, {PAIRS} pairs\n")
    steps = {name: compiled(**case) for name, case in CASES.items()}
    turns = [{name: seconds_of(step) for name, step in steps.items()} for _ in range(TURNS)]
    print(f"{'':<24}{'core ms':>10}{'of the first':>14}{'range over turns':>20}")
    for name in CASES:
        shares = sorted(turn[name] / turn["nothing frozen"] for turn in turns)
        middle, least = statistics.median(shares), min(turn[name] for turn in turns)
        spread = f"{shares[0]:.3f} to {shares[-1]:.3f}"
        print(f"{name:<24}{1_000 * least:>10,.1f}{middle:>14.3f}{spread:>20}")


if __name__ == "__main__":
    main()
