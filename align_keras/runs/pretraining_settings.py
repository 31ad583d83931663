"""The settings of a pretraining run, and checks of those that exclude each other."""

import dataclasses
from typing import Any

from tyro.conf import OmitArgPrefixes

from align_keras import paths
from align_keras.data import mixing
from align_keras.errors import InputError
from align_keras.models.presets import PRESETS
from align_keras.runs.frozen_towers import check_freeze, frozen_towers
from align_keras.runs.pretraining_parts import (
    DataSettings,
    ModelSettings,
    OptimizerSettings,
    RunSettings,
)
from align_keras.runs.setting_values import check_divides, check_prompts, read_steps
from align_keras.runs.settings import Settings
from align_keras.wording import choose

#: Settings that come with a trained model; they cannot be given together with it.
BROUGHT_BY_MODEL = (
    "preset",
    "image_encoder",
    "text_encoder",
    "text_gelu",
    "text_pooling",
    "top_convolution",
    "projection_dim",
    "image_feature_dropout",
    "initial_temperature",
    "vocabulary",
    "vocabulary_size",
    "vocabulary_captions",
)


@dataclasses.dataclass(frozen=True)
class PretrainSettings(Settings):
    """Trains ALIGN on TFRecord shards of image-text pairs."""

    data: OmitArgPrefixes[DataSettings] = DataSettings()
    model: OmitArgPrefixes[ModelSettings] = ModelSettings()
    optimizer: OmitArgPrefixes[OptimizerSettings] = OptimizerSettings()
    run: OmitArgPrefixes[RunSettings] = RunSettings()

    def check(self) -> None:
        """Checks everything that needs no data, model or device.

        Raises:
            InputError: names the setting and says what to do.
        """
        super().check()
        check_prompts(self.data.prompts)
        run = self.run
        run.check_shared()
        intervals = ("log_every", "eval_every", "checkpoint_every", "steps")
        check_divides(run.steps_per_execution, {name: getattr(run, name) for name in intervals})
        if run.profile and read_steps(run.profile)[1] > run.steps:
            raise InputError(
                f"{run.profile} ends after the last step, {run.steps:,}",
                remedy="give earlier steps",
                setting="profile",
            )
        if self.model.preset not in PRESETS:
            remedy = choose(self.model.preset, sorted(PRESETS))
            raise InputError(
                f"unknown preset {self.model.preset!r}", remedy=remedy, setting="preset"
            )
        check_freeze(self.model.freeze, run.steps)
        self._check_cache()
        self._check_origins()

    def _check_cache(self) -> None:
        """Checks that cached features would stay the same during the run."""
        if not self.data.cache_features:
            return
        if frozen_towers(self.model.freeze).get("image_encoder", 0) is not None:
            raise InputError(
                "the image tower is not frozen in all steps",
                remedy="give <freeze> image_encoder, or leave out <cache_features>",
                setting="cache_features",
            )
        if any(weight for _, weight in mixing.split_weights(self.data.train_data)):
            raise InputError(
                "sources with weights cannot be cached",
                remedy="leave out the weights of <train_data>, or <cache_features>",
                setting="cache_features",
            )

    def check_resumable(self, before: dict[str, Any], workdir: paths.AnyPath) -> None:
        """See ``Settings.check_resumable``."""
        # Older runs have no such setting: they used the tanh approximation.
        gelu = None if before.get("model") else "tanh"
        before = {"text_gelu": gelu, **before}
        # With a constant learning rate, no step so far depended on the total number of steps, so
        # the run can be made longer.
        if self.optimizer.schedule == "constant":
            began = before.get("steps", self.run.steps)
            if isinstance(began, int) and began < self.run.steps:
                before["steps"] = self.run.steps
        super().check_resumable(before, workdir)

    def _check_origins(self) -> None:
        """Checks that no part of the model or the data has two sources, or none."""
        if self.model.text_encoder and self.data.vocabulary:
            raise InputError(
                "the text tower comes with its own",
                remedy="leave out <vocabulary> or <text_encoder>",
                setting="vocabulary",
            )
        if self.model.model:
            given = self.flat()
            for name in ("image_encoder", "text_encoder", "text_gelu", "vocabulary"):
                if given[name]:
                    raise brought_by_model(name)
        for name, value in (("model", self.model.model), ("eval_data", self.data.eval_data)):
            if value and not self.data.train_data:
                raise InputError(
                    "it needs training data", remedy="give <train_data> too", setting=name
                )


def brought_by_model(name: str) -> InputError:
    """The error about a setting that was given together with a trained model."""
    return InputError(
        "a trained model comes with its own", remedy=f"leave out <{name}> or <model>", setting=name
    )
