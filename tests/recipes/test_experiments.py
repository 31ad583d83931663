"""How recipes read their flags, which override the settings of an experiment."""

import experiments
import numpy as np
import pytest
from experiments import CLASSIFICATION, PRETRAINING

from align_keras.errors import InputError
from align_keras.evaluation import data_sets
from align_keras.models import presets
from align_keras.optimizers import WarmupLinearDecay
from align_keras.runs.classification_settings import Phase
from align_keras.runs.pretraining_data import with_sizes
from align_keras.runs.pretraining_settings import PretrainSettings


def read(*flags):
    return experiments.read_pretraining(flags, "quickstart", "")


def test_a_short_run_has_its_share_of_warm_up():
    for flags, warmup in (
        (["--steps=5"], 0),
        (["--steps=65"], 5),
        (["--steps=101"], 100),
        (["--steps=2600"], 100),
        (["--steps=65", "--warmup-steps=3"], 3),
    ):
        assert read(*flags).optimizer.warmup_steps == warmup
    with pytest.raises(InputError, match="is not below 5"):
        read("--steps=5", "--warmup-steps=100")


def test_flags_override_the_experiment():
    flags = ["--batch-size=32", "--experiment=cc3m_b3_mini", "--no-mask-false-negatives"]
    flags += ["--warmup_steps=7", "--exclude-from-decay", "a", "b"]
    assert read(*flags, "--train-data=x") == PRETRAINING["cc3m_b3_mini"].replace(
        batch_size=32,
        mask_false_negatives=False,
        warmup_steps=7,
        exclude_from_decay=("a", "b"),
        train_data="x",
    )
    assert read("--experiment", "quickstart") == PRETRAINING["quickstart"]


@pytest.mark.parametrize(
    ("flags", "setting", "message"),
    [
        (["--experiment=b99"], "experiment", "unknown experiment 'b99'; choose one of quickstart"),
        (["--experiment=cc3m_b3_mini"], "experiment", "give train_data; only quickstart renders"),
        (
            ["--model=x", "--train-data=x", "--initial_temperature=1"],
            "initial_temperature",
            "a trained model comes with its own; leave out initial_temperature or model",
        ),
        (["--steps=0"], "steps", "0 is below 1"),
    ],
)
def test_wrong_flags_are_named(flags, setting, message):
    with pytest.raises(InputError, match=message) as raised:
        read(*flags)
    assert raised.value.setting == setting


def test_experiments_name_presets_and_keep_the_papers_constants():
    assert {settings.model.preset for settings in PRETRAINING.values()} == presets.PRESETS.keys()
    name = "align_l2_large"
    assert PRETRAINING[name] == PretrainSettings().replace(preset=name, experiment=name)
    paper = PRETRAINING["align_l2_large"]
    paper = {**paper.flat(), **vars(with_sizes(paper.data, ""))}
    facts = {
        "optimizer": "lamb",
        "learning_rate": 1e-3,
        "weight_decay": 1e-5,
        "warmup_steps": 10_000,
        "steps": 1_200_000,
        "batch_size": 16_384,
        "label_smoothing": 0.1,
        "initial_temperature": 1.0,
        "resize_size": 346,
        "image_size": 289,
        "sequence_length": 64,
        "vocabulary_size": 100_000,
    }
    assert {name: paper[name] for name in facts} == facts


def test_fine_tuning_for_retrieval_has_the_papers_constants():
    flags = ["--model=RUN", "--train-data=DIR"]
    settings = experiments.read_pretraining(flags, "finetune_flickr30k", "")
    assert (settings.run.batch_size, settings.run.steps) == (2048, 3000)
    assert (settings.optimizer.learning_rate, settings.optimizer.warmup_steps) == (1e-5, 0)
    assert settings.optimizer.mask_false_negatives
    coco = experiments.read_pretraining([*flags, "--experiment=finetune_coco"], "quickstart", "")
    assert coco == settings.replace(steps=6000, experiment="finetune_coco")
    rate = WarmupLinearDecay(1e-5, 0, 3000)
    expected = [1e-5 * (3000 - step) / 3000 for step in (0, 1, 1500, 2999)]
    assert [float(rate(step)) for step in (0, 1, 1500, 2999)] == pytest.approx(expected)


def test_an_experiments_sizes_give_way_to_the_models():
    flags = ["--model=RUN", "--train-data=DIR", "--experiment=products_nano"]
    data = read(*flags).data
    assert data.image_size is data.resize_size is data.sequence_length is None
    assert read(*flags, "--image-size=96").data.image_size == 96
    assert read(*flags[1:]).data.image_size == 64


def test_fine_tuning_a_classifier_has_the_papers_constants():
    """The constants are those for ImageNet and for the fine-grained sets."""
    from align_keras.optimizers import make_finetuning_schedule

    settings = experiments.read_classification(["--model=RUN", "--task=imagenet"], "")
    assert settings == CLASSIFICATION["imagenet"].replace(model="RUN", task="imagenet")
    training = settings.training
    assert (training.batch_size, training.momentum, training.weight_decay) == (1024, 0.9, 0.0)
    assert settings.head == Phase(0.1, epochs=100, image_size=289, eval_size=360)
    assert settings.full == Phase(
        0.01, epochs=100, backbone_factor=0.1, image_size=475, eval_size=600
    )
    assert settings.head.num_steps(1_281_167, 1024) == 125_113
    rate = make_finetuning_schedule(training.schedule, 0.1, 100)
    rates = [float(rate(step)) for step in (0, 29, 30, 59, 60, 89, 90, 99)]
    assert rates == pytest.approx(np.repeat([0.1, 0.02, 0.004, 0.0008], 2))
    assert data_sets.DATA_SETS["imagenet"].paper["finetuned_top_1"] == 0.8864

    flags = ["--model=RUN", "--task=pets", "--experiment=fine_grained", "--full.steps=10"]
    settings = experiments.read_classification(flags, "")
    assert (settings.training.batch_size, settings.training.weight_decay) == (256, 1e-5)
    assert (settings.head.steps, settings.full.steps) == (20_000, 10)
    assert (settings.head.learning_rate, settings.full.learning_rate) == (1e-2, 1e-3)
    assert settings.full.frozen_statistics
    rate = make_finetuning_schedule(settings.training.schedule, 1e-3, 10)
    expected = [1e-3 * (1 + np.cos(np.pi * step / 10)) / 2 for step in (0, 3, 9)]
    assert [float(rate(step)) for step in (0, 3, 9)] == pytest.approx(expected)


@pytest.mark.parametrize("setting", ["model", "task"])
def test_a_classifier_needs_a_model_and_a_task(setting):
    flags = [f"--{name}=x" for name in ("model", "task") if name != setting]
    with pytest.raises(InputError, match="not given; see --help") as raised:
        experiments.read_classification(flags, "")
    assert raised.value.setting == setting
