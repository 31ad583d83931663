"""Repeats the paper's ablations on a small scale: width, negatives, temperature, and others.

    python benchmarks/ablations.py runs/flickr8k --output=runs/ablations
    python benchmarks/ablations.py runs/flickr8k --output=runs/ablations --only width noise

It starts from a finished run of pretrain.py with frozen towers and cached features (``--freeze=
image_encoder,text_encoder --cache-features=N``), and takes all settings from it. Each ablation
changes one setting and trains the projections and the temperature again, from the run's
``features/``, with several seeds. The towers run only once, on the held-out pairs.

Each run writes a JSON file when it ends. If the command is interrupted, the same command trains the
remaining runs. At the end it prints a table and writes ``results.json`` and ``ablations.png``.
"""

import argparse
import dataclasses
import json
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import ablation_report
import keras
import measure
import numpy as np
import tensorflow as tf
from ablation_cases import axes_of

from align_keras import AlignBackbone, AlignDualEncoder, files, progress
from align_keras.data import pipeline, records
from align_keras.errors import InputError, Place
from align_keras.evaluation import retrieval
from align_keras.preprocessing.fields import IMAGE_FEATURES, TEXT_FEATURES
from align_keras.runs import feature_cache, mixed_sources
from align_keras.runs.frozen_towers import frozen_towers
from align_keras.runs.memory import keep_freed_memory
from align_keras.runs.model import compile_model
from align_keras.runs.presets import load_model
from align_keras.runs.pretraining_data import RunData
from align_keras.runs.pretraining_settings import PretrainSettings

# === Data ===


def settings_of(run, steps=None, eval_data=""):
    """The settings of a finished run, with other steps or held-out shards if given."""
    path = Path(run) / "settings.json"
    values = files.read_json(path, dict)
    values = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
    settings = PretrainSettings().replace(**values)
    always = [name for name, last in frozen_towers(settings.model.freeze).items() if last is None]
    if len(always) < 2 or not settings.data.cache_features:
        remedy = "train it with --freeze=image_encoder,text_encoder --cache-features=N"
        raise InputError("the run has no cached features of both towers", Place(str(path)), remedy)
    if steps:
        warmup = settings.optimizer.warmup_steps * steps // settings.run.steps
        settings = settings.replace(steps=steps, warmup_steps=warmup)
    return settings.replace(eval_data=eval_data) if eval_data else settings


def cached_pairs(settings, model, shards, views, folder):
    """The pairs of some shards with their features, which are stored in ``folder``."""
    counts = pipeline.shard_counts(shards)
    sources = mixed_sources.TrainingSources([""], [sum(counts.values())])
    data = RunData(counts, model.preprocessor, None, None, sources)
    settings = settings.replace(cache_features=views)
    return feature_cache.open_cache(settings, data, model, folder)


def swapped(pairs, share, rng):
    """The pairs, with a share of the captions swapped between two images each."""
    valid = np.flatnonzero(pairs.valid)
    chosen = rng.permutation(valid)[: 2 * round(share * len(valid) / 2)]
    # The pairs of an image are adjacent, so a pair half the length away has another image.
    place = rng.permutation(len(pairs.image_features))[pairs.images[chosen]]
    chosen = chosen[np.argsort(place, kind="stable")]
    rows = np.arange(len(pairs.images))
    rows[chosen] = np.roll(chosen, len(chosen) // 2)
    texts = {name: values[rows] for name, values in pairs.texts.items()}
    return dataclasses.replace(pairs, texts=texts, caption_ids=pairs.caption_ids[rows])


def part(pairs, share, rng):
    """The pairs of a given share of the images."""
    count = len(pairs.image_features)
    kept = rng.permutation(count)[: round(share * count)]
    rows = np.flatnonzero(pairs.valid & np.isin(pairs.images, kept))
    by_record = {
        name: getattr(pairs, name)[rows]
        for name in ("images", "valid", "image_ids", "caption_ids", "shards")
    }
    texts = {name: values[rows] for name, values in pairs.texts.items()}
    return dataclasses.replace(pairs, texts=texts, **by_record)


# === Model ===


class GroupedNegatives(AlignDualEncoder):
    """A dual encoder that takes a pair's negatives only from the pair's group in the batch.

    The paper does not say how it leaves out negatives. Here all pairs of a batch are used, and the
    loss is computed separately for each group.
    """

    groups = 1

    def contrastive_losses(self, embeddings, batch, may_tile=True):
        """The mean over the groups."""
        embeddings = {name: tf.split(value, self.groups) for name, value in embeddings.items()}
        batch = {name: tf.split(value, self.groups) for name, value in batch.items()}
        found = [
            super(GroupedNegatives, self).contrastive_losses(
                {name: values[group] for name, values in embeddings.items()},
                {name: values[group] for name, values in batch.items()},
                may_tile,
            )
            for group in range(self.groups)
        ]
        return {name: tf.add_n([one[name] for one in found]) / self.groups for name in found[0]}


def build(trained, settings, case):
    """A model with the towers of a trained one, new projections and a new temperature."""
    towers = trained.backbone
    for tower in (towers.image_encoder, towers.text_encoder):
        tower.trainable = False
    backbone = AlignBackbone(
        towers.image_encoder,
        towers.text_encoder,
        settings.model.projection_dim or towers.projection_dim,
        image_feature_dropout=settings.model.image_feature_dropout,
    )
    temperatures = settings.model.initial_temperature, settings.model.min_temperature
    model = GroupedNegatives(backbone, None, *temperatures)
    model.groups = case.groups
    model.log_temperature.trainable = not case.fixed_temperature
    compile_model(model, settings.optimizer, settings.run.steps, {})
    return model


def train(trained, settings, case, pairs, held_out, seed):
    """Trains one run; returns its held-out recalls and other figures, as written to its file."""
    started = time.perf_counter()
    settings = settings.replace(**case.settings)
    rng = np.random.default_rng(seed)
    if case.data_share < 1:
        pairs = part(pairs, case.data_share, rng)
    if case.noise:
        pairs = swapped(pairs, case.noise, rng)
    keras.utils.set_random_seed(seed)
    model = build(trained, settings, case)
    steps, batch_size = settings.run.steps, settings.run.batch_size
    batches = pairs.batches(batch_size, seed=seed)
    history = model.fit(batches, steps_per_epoch=steps, shuffle=False, verbose=0).history
    return {
        "case": case.name,
        "seed": seed,
        "changed": case.changed(),
        "metrics": evaluate(model, held_out),
        "temperature": float(model.temperature),
        "mean_train_loss": history["loss"][-1],
        "steps": steps,
        "batch_size": batch_size,
        "train_pairs": len(pairs.images),
        "seconds": round(time.perf_counter() - started, 1),
        "machine": measure.machine(),
        "date": time.strftime("%Y-%m-%d"),
    }


def evaluate(model, held_out):
    """Recalls in both directions on all held-out pairs; an image may have several captions."""
    rows = np.flatnonzero(held_out.valid)
    embeddings = model.backbone.embed_pairs(
        {
            IMAGE_FEATURES: tf.constant(held_out.image_features[:, 0]),
            TEXT_FEATURES: tf.constant(held_out.texts[TEXT_FEATURES][rows]),
        }
    )
    images, texts = (embeddings[f"{kind}_embeddings"].numpy() for kind in ("image", "text"))
    return retrieval.full_metrics(images, texts, held_out.images[rows])[0]


# === Command ===


def read_results(folder):
    """The results of the finished runs by the names of their files."""
    return {path.stem: files.read_json(path, dict) for path in sorted(folder.glob("*-seed*.json"))}


def keep_settings(settings, output):
    """Writes the settings that all runs share, or compares them with those of earlier runs."""
    path, text = output / "settings.json", settings.replace(workdir="").as_json()
    if path.exists() and json.loads(path.read_text()) != json.loads(text):
        remedy = "give the same settings, or another --output"
        raise InputError("its runs had other settings", Place(str(output)), remedy)
    files.write_whole(path, text)


def missing_runs(axes, results, seeds):
    """The cases and seeds without a result: first all cases with one seed, then with the next."""
    cases = {case.name: case for cases in axes.values() for case in cases}
    every = [(case, seed) for seed in range(seeds) for case in cases.values()]
    return [(case, seed) for case, seed in every if file_of(case, seed) not in results]


def file_of(case, seed):
    """The stem of a run's file."""
    return f"{case.name}-seed{seed}"


def main(arguments):
    """Trains the missing runs and reports on all runs."""
    keep_freed_memory()
    settings = settings_of(arguments.run, arguments.steps, arguments.eval_data)
    output = Path(arguments.output)
    (output / "runs").mkdir(parents=True, exist_ok=True)
    keep_settings(settings, output)
    axes = axes_of(settings)
    axes = {name: axes[name] for name in arguments.only or axes}
    missing = missing_runs(axes, read_results(output / "runs"), arguments.seeds)
    if missing:
        trained = load_model(arguments.run)
        shards = [records.find_shards(settings.data.train_data)]
        shards.append(records.find_shards(settings.data.eval_data))
        views = settings.data.cache_features
        pairs = cached_pairs(settings, trained, shards[0], views, Path(arguments.run))
        held_out = cached_pairs(settings, trained, shards[1], 1, output / "held_out")
    for number, (case, seed) in enumerate(missing, 1):
        result = train(trained, settings, case, pairs, held_out, seed)
        text = json.dumps(result, indent=2) + "\n"
        files.write_whole(output / "runs" / f"{file_of(case, seed)}.json", text)
        recalls = [result["metrics"][name] for name in ablation_report.METRICS]
        progress.tell(
            f"{number} of {len(missing)}: {file_of(case, seed)}, R@1 {recalls[0]:.1%} and "
            f"{recalls[1]:.1%}, {result['seconds']:.0f} s"
        )
    results = read_results(output / "runs")
    ablation_report.write(axes, results.values(), output)


def parse(arguments=None):
    """Reads the flags."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", help="directory of a run of pretrain.py with cached features")
    parser.add_argument("--output", required=True, help="folder of the results")
    parser.add_argument("--seeds", type=int, default=3, help="number of runs of each case")
    parser.add_argument("--steps", type=int, help="steps of each run; default: those of the run")
    parser.add_argument("--eval-data", default="", help="held-out shards; default: the run's")
    parser.add_argument("--only", nargs="*", help="names of the ablations to run; default: all")
    found = parser.parse_args(arguments)
    names = axes_of(PretrainSettings())
    if unknown := set(found.only or ()) - names.keys():
        parser.error(f"no ablation {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    return found


if __name__ == "__main__":
    try:
        main(parse())
    except InputError as error:
        sys.exit(f"ablations.py: {error}")
