"""Fine-tuning a classifier, from a preset to a report."""

import dataclasses
import json
import runpy
import sys

import finetune_classification
import keras
import numpy as np
import pytest
from classification_experiments import EXPERIMENTS, Phase
from conftest import ROOT, TINY_IMAGE_SIZE, TINY_SEQUENCE, build_tiny_model

from align_keras import AlignPreprocessor, distribution
from align_keras.data import records, scenes
from align_keras.evaluation import data_sets
from align_keras.runs.monitoring import read_log

COLOURS = ("white", "black", "blue")


def save_start(run, pieces, **options):
    """An untrained preset in a run's directory, batch norm not synchronised."""
    preprocessor = AlignPreprocessor(pieces, TINY_IMAGE_SIZE, 20, TINY_SEQUENCE)
    model = build_tiny_model(preprocessor=preprocessor, vocabulary_size=len(pieces), **options)
    model.save_to_preset(run / "preset")
    return run


@pytest.fixture(scope="module")
def start(tmp_path_factory, pieces):
    # A fixture of the module comes before what seeds each test.
    keras.utils.set_random_seed(1)
    return save_start(tmp_path_factory.mktemp("start"), pieces)


@pytest.fixture(scope="module")
def coloured(tmp_path_factory):
    """Scenes of three colours: folders of classes in ``train`` and ``test``, and a table."""
    folder = tmp_path_factory.mktemp("coloured")
    patterns = scenes.write_scenes(folder / "scenes", num_train=220, num_eval=160, seed=3)
    data, rows = folder / "data", []
    for split, pattern in zip(("train", "test"), patterns, strict=True):
        for shard in records.find_shards(pattern):
            for index, frame in enumerate(records.read_frames(shard)):
                pair = records.parse_pair(frame)
                colour = pair["class_name"].decode().split()[0]
                if colour in COLOURS:
                    path = data / split / colour / f"{index}.jpg"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(pair["jpg"])
                    name = str(path.relative_to(data))
                    rows.append({"image": name, "class_name": colour, "split": split})
    (data / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return data


def settings_of(start, data, workdir, **options):
    options = {
        "model": str(start),
        "task": "colours",
        "data": str(data),
        "workdir": str(workdir),
        "head": Phase(0.1, steps=3, eval_size=20),
        "full": Phase(0.1, steps=3, backbone_factor=0.5, image_size=15, eval_size=21),
        "batch_size": 16,
        "checkpoint_every": 2,
        "log_every": 1,
        **options,
    }
    return dataclasses.replace(EXPERIMENTS["small_set"], **options)


def read_json(path):
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def finished(start, coloured, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    settings = settings_of(
        start,
        coloured,
        workdir,
        split="test",
        head=Phase(0.3, steps=30),
        full=Phase(0.1, steps=90, frozen_statistics=True, image_size=15, eval_size=21),
        batch_size=32,
        min_crop_area=0.6,
        checkpoint_every=50,
    )
    return workdir, finetune_classification.main(settings), settings


def test_fine_tuning_learns_and_leaves_what_the_readme_names(finished):
    workdir, metrics, _ = finished
    assert metrics["full"]["acc1"] > 1 / 3 + 0.2
    for phase, kind in (("head", "frozen"), ("full", "finetuned")):
        result = read_json(workdir / f"{kind}-colours.json")
        assert result["metrics"] == metrics[phase]
        assert result["chance"]["acc1"] == pytest.approx(1 / 3)
        for picture in ("confusion", "images"):
            assert (workdir / f"{kind}-colours-{picture}.png").stat().st_size > 5_000
    steps = [line["step"] for line in read_log(workdir / "full")]
    assert steps == list(range(1, 91))
    assert not list(workdir.rglob("*partial*"))


def test_the_saved_classifier_scores_as_the_report_says(finished, coloured):
    """Loaded anew, with the photographs of the folder."""
    workdir, metrics, _ = finished
    classifier = keras.models.load_model(workdir / "classifier.keras")
    sizes = classifier.preprocessor.image_size, classifier.preprocessor.resize_size
    assert sizes == (21, 21)
    files = sorted((coloured / "test").rglob("*.jpg"))
    predictions = classifier.score(files).argmax(1)
    names = np.array(classifier.class_names)[predictions]
    right = names == [file.parent.name for file in files]
    assert np.mean(right) == pytest.approx(metrics["full"]["acc1"], abs=1e-6)


def test_a_finished_run_reports_again_without_training(finished, capsys):
    workdir, metrics, settings = finished
    again = finetune_classification.main(settings)
    assert again["full"] == pytest.approx(metrics["full"])
    printed = capsys.readouterr().out
    assert f"resuming {workdir / 'full'} at step 90 of 90" in printed
    with pytest.raises(ValueError, match="--batch-size: the run in .* began with 32, not 8"):
        finetune_classification.main(dataclasses.replace(settings, batch_size=8))


def test_an_interrupted_run_resumes_to_the_same_weights(pieces, coloured, tmp_path, monkeypatch):
    """Of a table, with drop-connect, in less memory; stopped between the second's checkpoints."""
    start = save_start(tmp_path / "start", pieces, dropout=0.5)
    table = coloured / "labels.jsonl"
    options = {"precision": "mixed_bfloat16", "rematerialize": True}
    made = []
    make = finetune_classification.make_classifier
    monkeypatch.setattr(
        finetune_classification,
        "make_classifier",
        lambda *arguments: made.append(make(*arguments)) or made[-1],
    )
    finetune_classification.main(settings_of(start, table, tmp_path / "whole", **options))
    assert made[0].image_encoder.rematerialize
    assert made[0].image_encoder.get_layer("stem_conv").compute_dtype == "bfloat16"
    assert made[0].head.compute_dtype == "float32"

    class StopError(Exception):
        pass

    def stop(log, batch, logs=None):
        on_batch_end(log, batch, logs)
        if log.workdir.name == "full" and log.step == 3:
            raise StopError

    log_class = finetune_classification.monitoring.TrainingLog
    on_batch_end = log_class.on_train_batch_end
    monkeypatch.setattr(log_class, "on_train_batch_end", stop)
    settings = settings_of(start, table, tmp_path / "run", **options)
    with pytest.raises(StopError):
        finetune_classification.main(settings)
    monkeypatch.undo()
    assert not (tmp_path / "run" / "classifier.keras").exists()
    finetune_classification.main(settings)
    whole, resumed = (
        keras.models.load_model(tmp_path / name / "classifier.keras") for name in ("whole", "run")
    )
    for weight, expected in zip(resumed.weights, whole.weights, strict=True):
        np.testing.assert_array_equal(weight.numpy(), expected.numpy(), weight.path)


def test_two_replicas_take_the_same_steps(start, coloured, tmp_path, mirrored, monkeypatch):
    """Gradients of two halves are those of the batch, and so are batch norm's statistics."""
    full = Phase(0.1, steps=3)
    found = []
    for name in ("one", "two"):
        if name == "two":
            monkeypatch.setattr(distribution, "make_strategy", lambda *_: mirrored)
        settings = settings_of(start, coloured, tmp_path / name, split="test", full=full)
        finetune_classification.main(settings)
        found.append(keras.models.load_model(tmp_path / name / "classifier.keras"))
    for weight, other in zip(*(model.weights for model in found), strict=True):
        np.testing.assert_allclose(weight.numpy(), other.numpy(), atol=1e-5, err_msg=weight.path)
    settings = settings_of(start, coloured, tmp_path / "other", batch_size=15)
    with pytest.raises(ValueError, match="--batch-size: 15 images do not divide among 2"):
        finetune_classification.main(settings)


def test_the_papers_constants_are_the_defaults():
    """ImageNet's and the fine-grained sets'."""
    settings = finetune_classification.parse_settings(["--model=RUN", "--task=imagenet"])
    assert (settings.batch_size, settings.momentum, settings.weight_decay) == (1024, 0.9, 0.0)
    assert settings.head == Phase(0.1, epochs=100, image_size=289, eval_size=360)
    assert settings.full == Phase(
        0.01, epochs=100, backbone_factor=0.1, image_size=475, eval_size=600
    )
    steps = settings.head.num_steps(1_281_167, 1024)
    assert steps == 125_113
    rate = finetune_classification.make_schedule(settings, settings.head, 100)
    rates = [float(rate(step)) for step in (0, 29, 30, 59, 60, 89, 90, 99)]
    assert rates == pytest.approx(np.repeat([0.1, 0.02, 0.004, 0.0008], 2))
    flags = ["--model=RUN", "--task=pets", "--experiment=fine_grained", "--full.steps=10"]
    settings = finetune_classification.parse_settings(flags)
    assert (settings.batch_size, settings.weight_decay, settings.head.steps) == (256, 1e-5, 20_000)
    assert (settings.head.learning_rate, settings.full.learning_rate) == (1e-2, 1e-3)
    assert settings.full.frozen_statistics
    assert settings.full.steps == 10
    rate = finetune_classification.make_schedule(settings, settings.full, 10)
    expected = [1e-3 * (1 + np.cos(np.pi * step / 10)) / 2 for step in (0, 3, 9)]
    assert [float(rate(step)) for step in (0, 3, 9)] == pytest.approx(expected)
    assert data_sets.DATA_SETS["imagenet"].paper["finetuned_acc1"] == 0.8864


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "none"}, "--model: none: no such folder"),
        ({"data": "none.jsonl"}, "--data: no file none.jsonl"),
        ({"split": "train"}, "--train-split: .* train would be trained and tested on"),
        ({"train_split": "dev"}, "--train-data: no folder .*dev of the split dev"),
        ({"class_names": "none.txt"}, "--class-names: no file none.txt"),
        ({"head": Phase(0.1)}, "--head.steps: 0, and --head.epochs: 0; set one of them above 0"),
        ({"full": Phase(0.1, epochs=1, image_size=4)}, "--full.image-size: 4 is below 8; raise"),
        ({"full": Phase(float("nan"), epochs=1)}, "--full.learning-rate: nan is below 0"),
        ({"min_crop_area": 0.0}, "--min-crop-area: 0.0 is no share"),
        ({"momentum": 1.0}, "--momentum: 1.0 is not from 0 to below 1"),
        ({"batch_size": 0}, "--batch-size: 0 is below 1; raise --batch-size to 1 or more"),
        ({"data": "{tmp}/bad.jsonl"}, r"--train-data: bad\.jsonl line 1 .*: does not decode"),
        ({"data": "{tmp}/gone.jsonl"}, r"--train-data: gone\.jsonl .*: image cannot be read"),
        ({"data": "{tmp}/one.jsonl"}, "--train-data: classification needs two classes"),
        ({"full": Phase(1e30, steps=9)}, "the run diverged: .*; lower --full.learning-rate and"),
    ],
)
def test_bad_settings_are_one_clear_line(options, message, start, coloured, tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8broken")
    good = str(next((coloured / "train" / "blue").iterdir()))
    for name, image, classes in (
        ("bad", "bad.jpg", "ab"),
        ("gone", "gone.jpg", "ab"),
        ("one", good, "a"),
    ):
        rows = [{"image": image, "class_name": c, "split": "train"} for c in classes]
        rows += [{"image": good, "class_name": c, "split": "test"} for c in classes]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"{name}.jsonl").write_text(lines)
    options = {"data": str(coloured), "train_split": "", **options}
    options["data"] = options["data"].format(tmp=tmp_path)
    settings = settings_of(start, workdir=tmp_path / "run", **options)
    errors = (ValueError, OSError, FloatingPointError)
    with pytest.raises(errors, match=message) as raised:
        finetune_classification.main(settings)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "run" / "classifier.keras").exists()


def test_images_of_no_class_are_told_before_anything_is_trained(start, coloured, tmp_path):
    rows = [{"image": "1.jpg", "class_name": name, "split": "train"} for name in "ab"]
    rows += [{"image": "2.jpg", "class_name": "c", "split": "test"}]
    table = tmp_path / "table.jsonl"
    for label, flag in ((None, "--data"), (7, "--train-data")):
        rows[0]["label"] = label
        table.write_text("".join(json.dumps(row) + "\n" for row in rows))
        with pytest.raises(ValueError, match=f"^{flag}: table.jsonl .* is none of the 2 of colo"):
            finetune_classification.main(settings_of(start, table, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_other_training_images_do_not_resume(finished, coloured):
    _, _, settings = finished
    path = next((coloured / "train" / "blue").iterdir())
    image = path.read_bytes()
    path.unlink()
    with pytest.raises(ValueError, match="--train-data: .* images of 3 classes, not the .* of 3 "):
        finetune_classification.main(settings)
    path.write_bytes(image)


def test_the_command_ends_in_one_line(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["finetune_classification.py", "--model=x"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(ROOT / "recipes" / "finetune_classification.py"), run_name="__main__")
    assert stopped.value.code.startswith("finetune_classification.py: --task: give one")
