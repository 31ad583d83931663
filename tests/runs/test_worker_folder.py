"""Workers of a run that were started with different flags."""

import threading

import pytest

from align_keras import distribution
from align_keras.errors import InputError
from align_keras.runs.command import one_line
from align_keras.runs.pretraining_settings import PretrainSettings
from align_keras.runs.worker_folder import check_same_settings


@pytest.fixture
def check(monkeypatch):
    """Checks the settings of two workers, simulated by threads; returns the result of each."""
    barrier, numbers = threading.Barrier(2, timeout=10), [0, 0]

    def gather(worker, number):
        numbers[worker] = number
        barrier.wait()
        found = list(numbers)
        barrier.wait()
        return found

    monkeypatch.setattr(distribution, "gather_from_workers", gather)

    def check(*settings):
        ended = ["", ""]

        def run(worker):
            try:
                check_same_settings(settings[worker], worker)
            except InputError as error:
                ended[worker] = one_line(error)

        threads = [threading.Thread(target=run, args=(worker,)) for worker in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return ended

    return check


SETTINGS = PretrainSettings().replace(train_data="a/*.tfrecord", workdir="run")


def test_workers_may_have_their_data_in_other_places(check):
    assert check(SETTINGS, SETTINGS.replace(train_data="b/*", workdir="/run")) == ["", ""]


def test_names_are_no_places(check):
    """Names of towers and of models on a hub must agree, since they select the model."""
    for name, values in {
        "image_encoder": ("efficientnet_b0_ra_imagenet", "efficientnet_b1_ft_imagenet"),
        "model": ("hf://kakaobrain/align-base", "hf://somebody/else"),
        "train_data": ("tfds:coco_captions", "tfds:another"),
    }.items():
        first, second = check(*(SETTINGS.replace(**{name: value}) for value in values))
        flag = name.replace("_", "-")
        assert first.startswith(f"--{flag}: {values[0]} here")
        assert second.startswith(f"--{flag}: {values[1]} here")


def test_another_setting_is_refused_in_every_worker(check):
    first, second = check(SETTINGS.replace(log_every=7), SETTINGS.replace(log_every=9))
    assert first == (
        "--log-every: 7 here, but different on another worker; give all workers the same value"
    )
    assert second.startswith("--log-every: 9 here")
    first, second = check(SETTINGS, SETTINGS.replace(max_skipped_share=0.5, eval_data="c/*"))
    assert first.startswith("--eval-data: none here")
    assert second.endswith("; give all workers the same value, also for --max-skipped-share")
