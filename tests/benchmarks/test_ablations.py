"""The benchmark of the paper's ablations, on a tiny run with cached features."""

import json
import shutil

import ablation_cases
import ablation_report
import ablations
import numpy as np
import pytest
import tensorflow as tf
from short_runs import settings_of

from align_keras.data.cached_pairs import CachedPairs
from align_keras.errors import InputError
from align_keras.runs.presets import load_model
from align_keras.runs.pretraining import pretrain

pytestmark = pytest.mark.usefixtures("tiny_preset")


@pytest.fixture(scope="module")
def run(tiny_preset, scene_shards, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("ablations") / "run"
    pretrain(
        settings_of(
            scene_shards, workdir, freeze="image_encoder,text_encoder", cache_features=2, seed=1
        )
    )
    return workdir


def pairs_of(records=60, each=5, seed=0):
    """Pairs; the text feature of each is the number of its record."""
    rng = np.random.default_rng(seed)
    images = rng.permutation(np.arange(records) // each)
    numbers = np.arange(records)
    return CachedPairs(
        image_features=rng.normal(size=(records // each, 1, 4)).astype("float32"),
        images=images,
        valid=numbers % 10 != 3,
        image_ids=images + 100,
        caption_ids=numbers + 1_000,
        texts={"text_features": numbers[:, None].astype("float32")},
        shards=np.ones(records, "int32"),
    )


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 1.0])
def test_a_share_of_the_captions_goes_to_another_image(share):
    pairs = pairs_of()
    noisy = ablations.swapped(pairs, share, np.random.default_rng(3))
    sources = noisy.texts["text_features"][:, 0].astype(int)
    np.testing.assert_array_equal(noisy.caption_ids, sources + 1_000)
    np.testing.assert_array_equal(np.sort(sources), np.arange(60))  # none is lost
    moved = np.flatnonzero(sources != np.arange(60))
    assert len(moved) == 2 * round(share * 54 / 2)
    assert np.all(pairs.images[moved] != pairs.images[sources[moved]])
    assert np.all(pairs.valid[moved])
    np.testing.assert_array_equal(noisy.images, pairs.images)
    other = ablations.swapped(pairs, share, np.random.default_rng(4))
    assert np.any(other.caption_ids != noisy.caption_ids)


def test_a_share_of_the_images_keeps_all_their_captions():
    pairs = pairs_of()
    kept = ablations.part(pairs, 0.5, np.random.default_rng(0))
    assert len(np.unique(kept.images)) == 6
    expected = np.flatnonzero(pairs.valid & np.isin(pairs.images, kept.images))
    np.testing.assert_array_equal(kept.caption_ids, expected + 1_000)
    np.testing.assert_array_equal(kept.texts["text_features"][:, 0], expected)
    np.testing.assert_array_equal(kept.image_ids, kept.images + 100)


def reference_loss(images, texts, temperature, smoothing):
    """The sum of both directions' cross entropies, as a mean over the pairs of a group."""
    logits = images @ texts.T / temperature
    total = 0.0
    for scores in (logits, logits.T):
        log_probabilities = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
        own, mean = np.diag(log_probabilities), log_probabilities.mean(axis=1)
        total -= np.mean((1 - smoothing) * own + smoothing * mean)
    return total


def test_groups_of_a_batch_have_losses_of_their_own(run):
    rng = np.random.default_rng(0)
    units = [rng.normal(size=(8, 5)) for _ in range(2)]
    images, texts = (unit / np.linalg.norm(unit, axis=1, keepdims=True) for unit in units)
    model = ablations.GroupedNegatives(load_model(str(run)).backbone, None, 0.2)
    model.compile("sgd", label_smoothing=0.1)
    embeddings = {"image_embeddings": images, "text_embeddings": texts}
    embeddings = {name: tf.constant(value, tf.float32) for name, value in embeddings.items()}
    for groups in (1, 2, 4):
        model.groups = groups
        parts = np.split(images, groups), np.split(texts, groups)
        own = [reference_loss(*pair, 0.2, 0.1) for pair in zip(*parts, strict=True)]
        found = model.contrastive_losses(embeddings, {})["loss"]
        np.testing.assert_allclose(found, np.mean(own), rtol=1e-5)


def command(run, output, *flags):
    ablations.main(ablations.parse([str(run), f"--output={output}", "--seeds=2", *flags]))


def test_runs_are_made_once_and_reported(run, tmp_path, monkeypatch, capsys):
    output, flags = tmp_path / "results", ("--only", "negatives")
    train, made = ablations.train, []

    def interrupted(*arguments):
        if len(made) == 4:
            raise KeyboardInterrupt
        made.append((arguments[2].name, arguments[-1]))
        return train(*arguments)

    monkeypatch.setattr(ablations, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        command(run, output, *flags)
    assert len(list((output / "runs").iterdir())) == 4
    monkeypatch.setattr(ablations, "train", lambda *a: made.append((a[2].name, a[-1])) or train(*a))
    command(run, output, *flags)
    names = ["base", "negatives-half", "negatives-quarter"]
    assert sorted(made) == sorted((name, seed) for name in names for seed in (0, 1))

    # All runs have results: none is trained again, and neither model nor shards are read.
    monkeypatch.setattr(ablations, "load_model", None)
    monkeypatch.setattr(ablations, "train", None)
    shutil.rmtree(output / "held_out")
    capsys.readouterr()
    command(run, output, *flags)
    table = capsys.readouterr().out
    assert table.strip() == (output / "table.txt").read_text().strip()
    assert "negatives all *" in table and table.count(" ± ") == 6
    assert (output / "ablations.png").read_bytes().startswith(b"\x89PNG")

    results = json.loads((output / "results.json").read_text())
    assert sorted(results) == names
    runs = [json.loads((output / "runs" / f"base-seed{s}.json").read_text()) for s in (0, 1)]
    values = [one["metrics"]["t2i_recall_at_10"] for one in runs]
    assert results["base"]["t2i_recall_at_10"] == {
        "mean": pytest.approx(sum(values) / 2),
        "deviation": pytest.approx(abs(values[0] - values[1]) / 2**0.5),
    }
    assert results["base"]["temperature"]["mean"] != pytest.approx(0.1, rel=1e-4)  # it is learned

    with pytest.raises(InputError, match="other settings"):
        command(run, output, *flags, "--steps=2")


def test_a_run_with_the_settings_of_the_pretraining_gives_its_figures(run):
    """Features, training step and evaluation are the same as in ``pretrain.py``."""
    settings, model = ablations.settings_of(run), load_model(str(run))
    pairs = ablations.cached_pairs(settings, model, settings.data.train_data.split(","), 2, run)
    held_out = ablations.cached_pairs(
        settings, model, settings.data.eval_data.split(","), 1, run.parent / "held_out"
    )
    found = ablations.evaluate(model, held_out)
    expected = json.loads((run / "metrics.json").read_text())
    for name in ablation_report.METRICS:
        assert found[name] == pytest.approx(expected[name])
    case = ablation_cases.axes_of(settings)["temperature"][1]
    one, other = (ablations.train(model, settings, case, pairs, held_out, 1) for _ in range(2))
    assert {**one, "seconds": 0} == {**other, "seconds": 0}  # depends only on the seed
    assert one["temperature"] == pytest.approx(1 / 64)  # it is fixed


def test_a_run_whose_towers_were_trained_is_refused(run, tmp_path):
    values = json.loads((run / "settings.json").read_text()) | {"freeze": "image_encoder"}
    (tmp_path / "settings.json").write_text(json.dumps(values))
    with pytest.raises(InputError, match="no cached features of both towers"):
        ablations.settings_of(tmp_path)


def test_cases_change_one_thing(run):
    settings = ablations.settings_of(run)
    axes = ablation_cases.axes_of(settings)
    bases = [case.axis for cases in axes.values() for case in cases if case.name == "base"]
    assert bases == list(axes)
    for case in axes["batch"]:
        changed = settings.replace(**case.settings).run
        assert changed.batch_size * changed.steps == settings.run.batch_size * settings.run.steps
    assert [case.settings.get("projection_dim") for case in axes["width"]] == [80, 160, 320, None]
