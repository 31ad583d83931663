"""Compares training and inference with Hugging Face's ``AlignModel`` in PyTorch, in pairs/s.

    pip install -e '.[benchmarks]' && python benchmarks/peers.py

Both libraries use the same architecture, batch, number of threads and precision (float32 on the
CPU), with random inputs. It measures a whole training step with AdamW, and the embedding of images
and captions. Each library runs in its own process. The two alternate, each runs twice, and its best
time counts. There are four cases: the default settings; a glibc that keeps freed memory, because
PyTorch otherwise spends its time on page faults; in addition ``channels_last``, PyTorch's faster
layout for images on this machine; and in addition this package's inference in LiteRT.
``torch.compile`` was slower.
"""

import argparse
import json
import os
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import measure

SEQUENCE, PIECES = 64, 30_522
BERT_MINI = {"num_layers": 4, "num_heads": 4, "hidden_dim": 256, "intermediate_dim": 1_024}
# Each entry has the name, the width and depth coefficients and the pixels. The pooled width is 320
# x the width coefficient.
IMAGE_TOWERS = {
    "efficientnet_b0": (1.0, 1.0, 224),
    "efficientnet_b3": (1.2, 1.4, 289),
}
ROUNDS = {"train": 3, "inference": 10}
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(1 << 33), "MALLOC_TRIM_THRESHOLD_": str(1 << 34)}
#: Only this package's inference uses LiteRT; the peer keeps its fastest settings.
FORMS = {
    "default": {},
    "kept": KEEP_MEMORY,
    "channels_last": KEEP_MEMORY,
    "litert": KEEP_MEMORY,
}


def peer_steps(image_tower, batch_size, form):
    """Returns functions for one training step and one inference of Hugging Face's model."""
    import torch
    import transformers

    width, depth, size = IMAGE_TOWERS[image_tower]
    torch.set_num_threads(os.cpu_count())
    config = transformers.AlignConfig(
        text_config={
            "vocab_size": PIECES,
            "hidden_size": BERT_MINI["hidden_dim"],
            "num_hidden_layers": BERT_MINI["num_layers"],
            "num_attention_heads": BERT_MINI["num_heads"],
            "intermediate_size": BERT_MINI["intermediate_dim"],
        },
        vision_config={
            "image_size": size,
            "width_coefficient": width,
            "depth_coefficient": depth,
            "hidden_dim": 1_280,
        },
        projection_dim=pooled_width(width),
    )
    layout = torch.channels_last if form in ("channels_last", "litert") else torch.contiguous_format
    model = transformers.AlignModel(config).to(memory_format=layout)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    inputs = {
        "pixel_values": torch.rand(batch_size, 3, size, size).to(memory_format=layout),
        "input_ids": torch.randint(5, PIECES, (batch_size, SEQUENCE)),
        "attention_mask": torch.ones(batch_size, SEQUENCE, dtype=torch.long),
    }

    def train():
        model.train()
        optimizer.zero_grad(set_to_none=True)
        model(**inputs, return_loss=True).loss.backward()
        optimizer.step()

    def infer():
        model.eval()
        with torch.inference_mode():
            outputs = model(**inputs)
        return outputs.image_embeds, outputs.text_embeds

    return {"train": train, "inference": infer}


def own_steps(image_tower, batch_size, form):
    """Returns the same functions for this package's model; LiteRT has no training step."""
    import keras
    import tensorflow as tf

    from align_keras import AlignBackbone, build_image_encoder, build_text_encoder
    from align_keras.models import litert
    from align_keras.models.contrastive_model import ContrastiveModel

    width, _, size = IMAGE_TOWERS[image_tower]
    backbone = AlignBackbone(
        build_image_encoder(image_tower),
        build_text_encoder("bert_mini", PIECES, SEQUENCE),
        projection_dim=pooled_width(width),
    )
    model = ContrastiveModel(backbone)
    model.compile(keras.optimizers.AdamW(1e-4))
    model.optimizer.build(model.trainable_variables)
    batch = measure.random_batch(batch_size, size, SEQUENCE, PIECES)
    train_step = tf.function(lambda: model.train_step(batch))
    predict_step = tf.function(lambda: model.predict_step(batch))
    if form == "litert":
        towers = litert.LiteRTTowers(backbone)
        project = tf.function(backbone.project_image_features)
        return {
            "inference": lambda: (
                project(towers.image_features(batch["images"])).numpy(),
                towers.text_embeddings(batch),
            )
        }
    return {
        "train": lambda: train_step()["loss"].numpy(),
        "inference": lambda: predict_step()["image_embeddings"].numpy(),
    }


def pooled_width(width):
    """Returns the channels of the last stage, rounded as in EfficientNet."""
    return int(320 * width + 4) // 8 * 8


def run(library, image_tower, batch_size, kinds, form):
    """Measures one case, in its own process; prints the seconds per step of each kind."""
    steps = {"peer": peer_steps, "own": own_steps}[library](image_tower, batch_size, form)
    seconds = {}
    for kind in kinds:
        step = steps[kind]
        step()
        times = []
        for _ in range(ROUNDS[kind]):
            start = time.perf_counter()
            step()
            times.append(time.perf_counter() - start)
        seconds[kind] = min(times)
    print(json.dumps(seconds))


def main(image_towers, batch_size, kinds, turns):
    """Measures both libraries in turn and prints the table."""
    print(f"{measure.machine()}; BERT-mini, {batch_size} pairs of {SEQUENCE} pieces, float32\n")
    print(
        f"{'image tower':<24}{'step':<12}{'memory':<15}{'peer pairs/s':>14}{'own pairs/s':>14}"
        f"{'ratio':>8}"
    )
    for image_tower in image_towers:
        where = f"{image_tower} at {IMAGE_TOWERS[image_tower][2]}"
        best = {(name, kind): 0.0 for name in ("peer", "own") for kind in kinds}
        for memory, environment in FORMS.items():
            compared = [kind for kind in kinds if memory != "litert" or kind == "inference"]
            case = {"image_tower": image_tower, "batch_size": batch_size, "kinds": compared}
            case["form"] = memory
            measured = [
                {
                    name: measure.in_child(__file__, environment, library=name, **case)
                    for name in ("peer", "own")
                }
                for _ in range(turns)
            ]
            for kind in compared:
                speed = {
                    name: batch_size / min(turn[name][kind] for turn in measured)
                    for name in ("peer", "own")
                }
                for name, value in speed.items():
                    best[name, kind] = max(best[name, kind], value)
                print(
                    f"{where:<24}{kind:<12}{memory:<15}{speed['peer']:>14.1f}{speed['own']:>14.1f}"
                    f"{speed['own'] / speed['peer']:>8.2f}",
                    flush=True,
                )
        for kind, aim in (("train", 1.3), ("inference", 1.5)):
            if kind in kinds:
                value = best["own", kind] / best["peer", kind]
                measure.ratio(
                    f"{where}, {kind}: pairs/s of AlignModel, each at its best", value, aim
                )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", help="run one case, given as JSON, in this process")
    parser.add_argument("--image-towers", nargs="+", default=list(IMAGE_TOWERS))
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--kinds", nargs="+", default=list(ROUNDS), help="kinds of steps")
    parser.add_argument("--turns", type=int, default=2)
    arguments = parser.parse_args()
    if arguments.case:
        sys.exit(run(**json.loads(arguments.case)))
    case = (arguments.image_towers, arguments.batch_size, arguments.kinds, arguments.turns)
    sys.exit(main(*case))
