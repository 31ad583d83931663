"""Fine-tuning a classifier, from a preset to a report."""

import json
import re
import shutil
import types

import keras
import numpy as np
import pytest
from conftest import TINY_IMAGE_SIZE, TINY_SEQUENCE, build_tiny_model
from experiments import CLASSIFICATION

from align_keras import AlignPreprocessor, distribution
from align_keras.data import records, scenes
from align_keras.errors import InputError
from align_keras.evaluation.tasks.result import Result
from align_keras.locks import locked
from align_keras.runs import classification
from align_keras.runs.classification import finetune
from align_keras.runs.classification_settings import Phase
from align_keras.runs.command import one_line
from align_keras.runs.log import DivergedError, TrainingLog
from align_keras.runs.log_lines import read_log
from align_keras.runs.skipped import LostDataError

COLOURS = ("white", "black", "blue")


def save_start(run, pieces, **options):
    """Saves an untrained preset, without synchronised batch norm, in a run's directory."""
    preprocessor = AlignPreprocessor(pieces, TINY_IMAGE_SIZE, 20, TINY_SEQUENCE)
    model = build_tiny_model(preprocessor=preprocessor, vocabulary_size=len(pieces), **options)
    model.save_to_preset(run / "preset")
    return run


@pytest.fixture(scope="module")
def start(tmp_path_factory, pieces):
    # Module fixtures run before the fixture that seeds each test.
    keras.utils.set_random_seed(1)
    return save_start(tmp_path_factory.mktemp("start"), pieces)


@pytest.fixture(scope="module")
def coloured(tmp_path_factory):
    """Scenes of three colours, as folders of classes in ``train`` and ``test``, and as a table."""
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
        "head": Phase(0.1, steps=2, eval_size=20),
        "full": Phase(0.1, steps=3, backbone_factor=0.5, image_size=15, eval_size=21),
        "batch_size": 16,
        "checkpoint_every": 2,
        "log_every": 1,
        **options,
    }
    return CLASSIFICATION["small_set"].replace(**options)


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
    return workdir, finetune(settings), settings


def test_fine_tuning_learns_and_leaves_what_the_readme_names(finished):
    workdir, metrics, _ = finished
    assert metrics["full"]["top_1"] > 1 / 3 + 0.2
    for phase, kind in (("head", "frozen"), ("full", "finetuned")):
        result = json.loads((workdir / f"{kind}-colours.json").read_text())
        assert result["metrics"]["acc1"] == metrics[phase]["top_1"]
        assert result["chance"]["acc1"] == pytest.approx(1 / 3)
        assert result["skipped_images"] == 0
        for picture in ("confusion", "images"):
            assert (workdir / f"{kind}-colours-{picture}.png").stat().st_size > 5_000
    steps = [line["step"] for line in read_log(workdir / "full")]
    assert steps == list(range(1, 91))
    card = (workdir / "README.md").read_text()
    assert "pipeline_tag: image-classification" in card
    assert f"| top-1 | {metrics['full']['top_1']:.1%} | 33.3% |" in card
    assert not list(workdir.rglob("*partial*"))


def test_the_saved_classifier_scores_as_the_report_says(finished, coloured):
    """The classifier is loaded and scores the photographs of the folder."""
    workdir, metrics, _ = finished
    classifier = keras.models.load_model(workdir / "classifier.keras")
    sizes = classifier.preprocessor.image_size, classifier.preprocessor.resize_size
    assert sizes == (21, 21)
    files = sorted((coloured / "test").rglob("*.jpg"))
    predictions = classifier.score(files).argmax(1)
    names = np.array(classifier.class_names)[predictions]
    right = names == [file.parent.name for file in files]
    assert np.mean(right) == pytest.approx(metrics["full"]["top_1"], abs=1e-6)


def test_a_finished_run_reports_again_without_training(finished, capsys):
    workdir, metrics, settings = finished
    again = finetune(settings)
    assert again["full"] == pytest.approx(metrics["full"])
    printed = capsys.readouterr().out
    assert f"resuming {workdir / 'full'} at step 90 of 90" in printed
    with pytest.raises(InputError, match="the run in .* began with 32, not 8") as raised:
        finetune(settings.replace(batch_size=8))
    assert raised.value.setting == "batch_size"


def train_both(settings):
    """Trains both phases without evaluation; returns the classifier."""
    run = classification.open_run(settings)
    for phase in classification.PHASES:
        classification.fit(run, phase)
    return run.classifier


def test_a_killed_run_resumes_to_the_same_weights(pieces, coloured, tmp_path, monkeypatch, capsys):
    """With a table, drop-connect and rematerialization; killed in the second phase."""
    start = save_start(tmp_path / "start", pieces, dropout=0.5)
    table = coloured / "labels.jsonl"
    options = {"precision": "mixed_bfloat16", "rematerialize": True}

    def keep(log, batch, logs=None):
        """Copies the run as a kill at this step would leave it."""
        on_batch_end(log, batch, logs)
        if log.workdir.name == "full" and log.step == 3:
            shutil.copytree(tmp_path / "whole", tmp_path / "run")

    on_batch_end = TrainingLog.on_train_batch_end
    monkeypatch.setattr(TrainingLog, "on_train_batch_end", keep)
    whole = train_both(settings_of(start, table, tmp_path / "whole", **options))
    assert whole.image_encoder.rematerialize
    assert whole.image_encoder.get_layer("stem_conv").compute_dtype == "bfloat16"
    assert whole.head.compute_dtype == "float32"
    monkeypatch.undo()
    capsys.readouterr()
    resumed = train_both(settings_of(start, table, tmp_path / "run", **options))
    printed = capsys.readouterr().out
    assert f"resuming {tmp_path / 'run' / 'head'} at step 2 of 2" in printed
    assert f"resuming {tmp_path / 'run' / 'full'} at step 2 of 3" in printed
    for weight, expected in zip(resumed.weights, whole.weights, strict=True):
        np.testing.assert_array_equal(weight.numpy(), expected.numpy(), weight.path)


def test_two_replicas_take_the_same_steps(start, coloured, tmp_path, mirrored, monkeypatch):
    """Two half batches give the gradients and batch-norm statistics of the whole batch."""
    # Keras would draw a batch and trace the model once more to build losses and metrics.
    monkeypatch.setattr(keras.Model, "_symbolic_build", lambda *_, **__: pytest.fail("built twice"))
    phases = {"head": Phase(0.1, steps=1), "full": Phase(0.1, steps=2)}
    one = train_both(settings_of(start, coloured, tmp_path / "one", split="test", **phases))
    monkeypatch.setattr(distribution, "make_strategy", lambda *_: mirrored)
    two = train_both(settings_of(start, coloured, tmp_path / "two", split="test", **phases))
    for weight, other in zip(one.weights, two.weights, strict=True):
        np.testing.assert_allclose(weight.numpy(), other.numpy(), atol=1e-5, err_msg=weight.path)
    settings = settings_of(start, coloured, tmp_path / "other", batch_size=15)
    with pytest.raises(InputError, match="15 cannot be divided among 2 replicas") as raised:
        finetune(settings)
    assert raised.value.setting == "batch_size"


def test_a_run_that_diverges_names_the_learning_rate_of_its_phase(start, coloured, tmp_path):
    settings = settings_of(start, coloured, tmp_path / "run", full=Phase(1e30, steps=9))
    run = classification.open_run(settings)
    with pytest.raises(DivergedError, match="the run diverged: loss is ") as raised:
        classification.fit(run, "full")
    assert one_line(raised.value).endswith(
        "; lower --full.learning-rate and give another --workdir"
    )


def test_training_images_that_do_not_decode_are_left_out_and_counted(
    start, coloured, tmp_path, capsys, monkeypatch
):
    data = tmp_path / "data"
    shutil.copytree(coloured, data)
    for damaged in sorted((data / "train").rglob("*.jpg"))[::9]:
        damaged.write_bytes(damaged.read_bytes()[:100])

    def take_one(model, batches, log, *_):
        """Only draws a batch, since training would first trace a step."""
        next(iter(batches))
        log.skipped.check(1, True, False)

    monkeypatch.setattr(classification, "train", take_one)
    options = {"split": "test", "max_skipped_share": 0.5}
    train_both(settings_of(start, data, tmp_path / "run", **options))
    [head, full] = re.findall(
        r"skipped (\d+) images that could not be decoded", capsys.readouterr().out
    )
    assert int(head) and int(full)
    lost = r"images were skipped .*train/\w+/\d+.jpg \(1\)"
    with pytest.raises(LostDataError, match=lost) as raised:
        train_both(settings_of(start, data, tmp_path / "other", split="test"))
    assert raised.value.setting == "data"


def test_the_report_counts_the_images_that_a_phase_has_skipped(tmp_path, monkeypatch):
    counts = {"2": {"skipped_pairs": 4}, "3": {"skipped_pairs": 7}}
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "skipped.json").write_text(json.dumps(counts))
    result = Result("finetuned", "", {"top_1": 0.5}, {"top_1": 0.3})
    nothing = types.SimpleNamespace(features=None)
    monkeypatch.setattr(classification, "make_preprocessor", lambda *_: None)
    monkeypatch.setattr(classification, "embed_labelled", lambda *_: nothing)
    monkeypatch.setattr(classification, "classification_result", lambda *_: result)
    settings = settings_of("", "", tmp_path)
    classes = types.SimpleNamespace(names=COLOURS)
    train = types.SimpleNamespace(count=100, classes=classes)
    model = types.SimpleNamespace(score=None, preprocessor=None)
    run = classification.ClassificationRun(settings, tmp_path, None, None, train, model)
    classification.evaluate(run, "full")
    assert json.loads((tmp_path / "finetuned-colours.json").read_text())["skipped_images"] == 7


def test_a_second_run_in_its_directory_is_refused(start, coloured, tmp_path):
    with locked(tmp_path / ".align_keras.lock"), pytest.raises(InputError) as raised:
        finetune(settings_of(start, coloured, tmp_path, split="test"))
    assert one_line(raised.value).startswith(f"--workdir: {tmp_path}: another run is using it")


def test_a_preprocessor_that_does_not_load_names_the_model():
    with pytest.raises(InputError, match="/none: no such folder") as raised:
        classification.make_preprocessor("/none", None, 0.875)
    assert raised.value.setting == "model"


def test_other_training_images_do_not_resume(finished, coloured):
    _, _, settings = finished
    path = next((coloured / "train" / "blue").iterdir())
    image = path.read_bytes()
    path.unlink()
    with pytest.raises(InputError, match="images of 3 classes, not the .* of 3,") as raised:
        finetune(settings)
    assert raised.value.setting == "data"
    path.write_bytes(image)
