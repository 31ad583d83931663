"""Fine-tuning for retrieval, which is pretraining that starts from a trained model."""

import contextlib
import io
import itertools
import json

import numpy as np
import pytest
from experiments import PRETRAINING
from PIL import Image

from align_keras import AlignDualEncoder, Lamb, distribution, optimizers
from align_keras.data import pipeline, records, scenes
from align_keras.data.shard_writer import ShardWriter
from align_keras.errors import InputError
from align_keras.evaluation import retrieval
from align_keras.evaluation.metrics import RECALLS
from align_keras.runs.log_lines import read_log
from align_keras.runs.pretraining import pretrain
from align_keras.runs.pretraining_evaluation import evaluate_held_out, evaluate_start
from align_keras.runs.pretraining_run import PretrainingRun, open_run, restore


@pytest.fixture(scope="module")
def start(tiny_run):
    """A preset in a run's directory."""
    return tiny_run


@pytest.fixture(scope="module")
def captioned(tmp_path_factory):
    """Squares in 8 colours on 8 background colours, with two captions each.

    A table and shards of 256 images for training, and of 64 held-out images.
    """
    folder = tmp_path_factory.mktemp("captioned")
    rng = np.random.default_rng(0)
    pairs = list(itertools.product(scenes.COLOURS, repeat=2))
    for part, repeats in (("train", 4), ("test", 1)):
        rows = []
        with ShardWriter(str(folder / part), 1_000) as writer:
            for index, (square, ground) in enumerate(repeats * pairs):
                pixels = np.tile(scenes.COLOURS[ground], (20, 20, 1))
                pixels[5:15, 5:15] = scenes.COLOURS[square]
                pixels = np.clip(pixels + rng.integers(-15, 16, 3), 0, 255).astype("uint8")
                image = folder / f"{part}{index}.png"
                Image.fromarray(pixels).save(image)
                captions = [f"a {square} square on {ground}", f"{ground} with a {square} square"]
                rows.append({"image": image.name, "captions": captions})
                for number, caption in enumerate(captions):
                    key = f"{image.stem}-{number}"
                    record = records.make_record(
                        image.read_bytes(), caption, key, image_id=image.name
                    )
                    writer.write(record)
        table = folder / f"{part}.jsonl"
        table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def settings_of(start, captioned, workdir, **options):
    options = {
        "model": str(start),
        "train_data": f"{captioned}/train-*.tfrecord",
        "eval_data": f"{captioned}/test-*.tfrecord",
        "workdir": str(workdir),
        "batch_size": 40,
        "steps": 4,
        "eval_every": 4,
        "checkpoint_every": 2,
        "log_every": 1,
        **options,
    }
    return PRETRAINING["finetune_flickr30k"].replace(**options)


@pytest.fixture(scope="module")
def tuned(start, captioned, tmp_path_factory):
    """A finished run, with a learning rate that suits so small a model."""
    workdir = tmp_path_factory.mktemp("runs") / "tuned"
    settings = settings_of(
        start,
        captioned,
        workdir,
        steps=250,
        learning_rate=2e-2,
        eval_every=250,
        log_every=100,
        checkpoint_every=250,
    )
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        metrics = pretrain(settings)
    # The closing table has the figures of the starting model.
    assert "model    chance     start" in printed.getvalue()
    return workdir, metrics, settings


def recalls(preset, captioned):
    """Recalls of a preset on the held-out images and captions, without shards."""
    model = AlignDualEncoder.from_preset(str(preset))
    rows = [json.loads(line) for line in (captioned / "test.jsonl").read_text().splitlines()]
    images = model.encode_images([captioned / row["image"] for row in rows])
    texts = model.encode_texts([text for row in rows for text in row["captions"]])
    metrics, _ = retrieval.full_metrics(images, texts, np.repeat(np.arange(len(rows)), 2))
    return metrics


def test_fine_tuning_beats_its_start_on_held_out_pairs(tuned, start, captioned):
    workdir, metrics, _ = tuned
    before = recalls(start / "preset", captioned)
    after = recalls(workdir / "preset", captioned)
    # The report agrees with recalls that are computed from the images.
    assert {name: metrics["start"][name] for name in RECALLS} == pytest.approx(
        {name: before[name] for name in RECALLS}
    )
    for name in ("i2t_recall_at_10", "t2i_recall_at_10"):
        assert metrics[name] > metrics["start"][name] + 0.15
        assert after[name] > before[name] + 0.15
    assert after["t2i_median_rank"] < before["t2i_median_rank"] / 1.5


def test_the_starts_figures_stand_beside_and_in_the_log(tuned, capsys):
    workdir, metrics, settings = tuned
    (first,) = [line for line in read_log(workdir) if line["step"] == 0]
    assert first["i2t_recall_at_5"] == metrics["start"]["i2t_recall_at_5"]
    # A resumed run reads these figures, without the starting model.
    resumed = PretrainingRun(settings, workdir, None, None, None, None)
    assert evaluate_start(resumed, 250) == metrics["start"]
    assert metrics["start"]
    # For other held-out data there are no figures, since the starting model is not evaluated again.
    assert "start" not in pretrain(settings.replace(prompts=("{}",)))
    assert "no figures of the starting model on these held-out data" in capsys.readouterr().out


def test_captions_of_an_image_are_no_negatives_of_each_other(start, captioned):
    """Compares the loss of a batch with an explicit sum in NumPy."""
    model = AlignDualEncoder.from_preset(str(start / "preset"))
    model.compile(Lamb(1e-3), label_smoothing=0.0)
    counts = pipeline.shard_counts(records.find_shards(f"{captioned}/train-*.tfrecord"))
    batch = next(iter(pipeline.training_dataset(counts, model.preprocessor, 200)))
    ids = batch["image_ids"].numpy()
    assert (ids != 0).all()
    shared = ids[:, None] == ids
    assert shared.sum() > 200  # some images occur twice in the batch
    images = model.backbone.encode_images(model.preprocessor.scale(batch["pixels"]))
    texts = model.backbone.encode_texts(batch)
    logits = (images.numpy().astype("float64") @ texts.numpy().T) / float(model.temperature)
    logits[shared & ~np.eye(200, dtype=bool)] = -np.inf
    losses = model.contrastive_losses(
        {"image_embeddings": images, "text_embeddings": texts}, {"image_ids": batch["image_ids"]}
    )
    for name, scores in (("loss_i2t", logits), ("loss_t2i", logits.T)):
        expected = np.mean(np.log(np.exp(scores).sum(1)) - np.diag(scores))
        assert float(losses[name]) == pytest.approx(expected, rel=1e-5)


def test_a_model_brings_all_but_what_is_given(start, captioned, tmp_path):
    """Only the image size is given; vocabulary, temperature and weights are the model's."""
    settings = settings_of(
        start, captioned, tmp_path / "run", image_size=24, synchronized_batch_norm=False
    )
    run = open_run(settings)
    before, after = AlignDualEncoder.from_preset(str(start / "preset")), run.model
    sizes = {"image_size": 24, "resize_size": 30}  # the model has 16 and 20
    config = before.preprocessor.get_config()
    assert after.preprocessor.get_config() == {**config, **sizes}
    assert run.settings.data.resize_size == 30
    assert not after.backbone.image_encoder.synchronized_batch_norm
    assert after.preprocessor.vocabulary == before.preprocessor.vocabulary
    assert float(after.temperature) == float(before.temperature)
    for weight, expected in zip(after.trainable_weights, before.trainable_weights, strict=True):
        np.testing.assert_array_equal(weight.numpy(), expected.numpy(), weight.path)


def test_two_replicas_fine_tune_in_float16_keeping_little_and_resume(
    start, captioned, tmp_path, mirrored, monkeypatch
):
    """Uses all ways to save memory at once, and a moving average of the weights."""
    monkeypatch.setattr(distribution, "make_strategy", lambda *_: mirrored)
    options = {"precision": "mixed_float16", "micro_batch_size": 10, "rematerialize": True}
    options |= {"loss_tile_rows": 8, "ema_momentum": 0.5}
    settings = settings_of(start, captioned, tmp_path / "run", **options)
    metrics = pretrain(settings)
    assert metrics["num_pairs"] == 128
    lines = [line for line in read_log(tmp_path / "run") if line["kind"] == "train"]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert all(np.isfinite(line["loss"]) for line in lines)
    assert "loss_scale" in lines[0]
    # The rate falls only if steps are applied, so not all were skipped.
    assert lines[-1]["learning_rate"] < lines[0]["learning_rate"]
    # It resumes at its last step, and the preset has the averaged weights, which were evaluated.
    run = open_run(settings)
    assert restore(run) == 4
    backbone = run.model.backbone
    own = [weight.numpy() for weight in backbone.weights]
    with optimizers.averaged_weights(run.model):
        averaged = [weight.numpy() for weight in backbone.weights]
        again, _, _ = evaluate_held_out(run)
    assert [again[name] for name in RECALLS] == [metrics[name] for name in RECALLS]
    backbone.load_weights(tmp_path / "run" / "preset" / "model.weights.h5")
    for weight, value in zip(backbone.weights, averaged, strict=True):
        np.testing.assert_array_equal(weight.numpy(), value, err_msg=weight.path)
    moved = [np.any(value != other) for value, other in zip(averaged, own, strict=True)]
    assert sum(moved) > len(moved) / 2


@pytest.mark.parametrize(
    ("options", "setting", "message"),
    [
        ({"model": "none"}, "model", "none: no such folder"),
        ({"sequence_length": 13}, "sequence_length", "13 is more than the 12 positions of the mo"),
        ({"resize_size": 15}, "resize_size", "15 is below 16"),
    ],
)
def test_bad_settings_are_one_clear_line(options, setting, message, start, captioned, tmp_path):
    settings = settings_of(start, captioned, tmp_path / "run", **options)
    with pytest.raises(InputError, match=message) as raised:
        pretrain(settings)
    assert raised.value.setting == setting
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "run" / "settings.json").exists()


def test_the_strategy_is_made_before_a_model_is_read(captioned, tmp_path):
    """TensorFlow can set up several workers only before its first operation."""
    settings = settings_of("none", captioned, tmp_path / "run", strategy="nothing")
    with pytest.raises(InputError) as raised:
        pretrain(settings)
    assert raised.value.setting == "strategy"


def test_a_run_goes_on_in_a_directory_of_its_own(tuned, captioned):
    workdir, _, _ = tuned
    with pytest.raises(InputError, match="the run in .* began with ") as raised:
        pretrain(settings_of(workdir, captioned, workdir))
    assert raised.value.setting == "model"
