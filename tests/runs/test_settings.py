import dataclasses
import json
from typing import Annotated

import pytest

from align_keras.errors import InputError
from align_keras.runs.pretraining_settings import PretrainSettings
from align_keras.runs.settings import (
    FREE_ON_RESUME,
    Above,
    AtLeast,
    AtMost,
    Below,
    Part,
    Settings,
)


@dataclasses.dataclass(frozen=True)
class Sizes(Part):
    width: Annotated[int | None, AtLeast(8), AtMost("height")] = None
    height: Annotated[int, AtMost(100)] = 50


@dataclasses.dataclass(frozen=True)
class Phase:
    steps: Annotated[int, AtLeast(1)] = 5
    rate: Annotated[float, Above(0.0), Below(1.0)] = 0.1


@dataclasses.dataclass(frozen=True)
class Everything(Settings):
    sizes: Sizes = Sizes()
    head: Phase = Phase()
    name: str = "n"
    words: tuple[str, ...] = ("a",)
    log_every: Annotated[int, FREE_ON_RESUME] = 3


def test_names_are_flat_and_groups_keep_theirs():
    settings = Everything().replace(width=9, log_every=4, head=Phase(2))
    assert settings == Everything(Sizes(9), Phase(2), log_every=4)
    assert settings.flat() == {
        "width": 9,
        "height": 50,
        "head.steps": 2,
        "head.rate": 0.1,
        "name": "n",
        "words": ("a",),
        "log_every": 4,
    }
    with pytest.raises(TypeError, match="no setting hight, sizes"):
        settings.replace(hight=3, sizes=Sizes())


@pytest.mark.parametrize(
    ("options", "setting", "message"),
    [
        ({"width": 7}, "width", "7 is below 8; raise width to 8 or more"),
        ({"height": 101}, "height", "101 is above 100; lower height to 100 or less"),
        (
            {"width": 51},
            "width",
            "51 is above 50; lower width to 50 or less, or raise height",
        ),
        # The error names the setting that is itself invalid, not one that is compared with it.
        ({"width": 200, "height": 101}, "height", "101 is above 100"),
        ({"head": Phase(0)}, "head.steps", "0 is below 1; raise head.steps to 1 or more"),
        ({"head": Phase(rate=0.0)}, "head.rate", "0.0 is not above 0.0; raise head.rate"),
        ({"head": Phase(rate=1.0)}, "head.rate", "1.0 is not below 1.0; lower head.rate"),
        ({"head": Phase(rate=float("nan"))}, "head.rate", "nan is not above 0.0"),
    ],
)
def test_a_value_out_of_its_bounds_is_named_with_the_remedy(options, setting, message):
    with pytest.raises(InputError) as raised:
        Everything().replace(**options).check()
    assert raised.value.setting == setting
    assert message in str(raised.value)


def test_values_at_their_bounds_and_unknown_ones_pass():
    Everything().check()  # its width is None
    Everything().replace(width=8, height=8).check()
    Everything().replace(width=100, height=100).check()


def test_json_is_flat_with_groups_as_objects():
    assert json.loads(Everything().as_json()) == {
        "width": None,
        "height": 50,
        "head": {"steps": 5, "rate": 0.1},
        "name": "n",
        "words": ["a"],
        "log_every": 3,
    }


def test_a_run_resumes_with_equal_settings_except_the_free_ones(tmp_path):
    before = json.loads(Everything().replace(name="m").as_json())
    Everything().replace(name="m", log_every=9).check_resumable(before, tmp_path)
    # For a run that began before a setting existed, the default is assumed.
    del before["words"], before["head"]["rate"]
    Everything().replace(name="m").check_resumable(before, tmp_path)
    for options, setting, began in (
        ({"name": "o"}, "name", "began with 'm', not 'o'"),
        ({"name": "m", "head": Phase(6)}, "head.steps", "began with 5, not 6"),
        ({"name": "m", "words": ("b",)}, "words", "began with ['a'], not ['b']"),
    ):
        with pytest.raises(InputError) as raised:
            Everything().replace(**options).check_resumable(before, tmp_path)
        assert raised.value.setting == setting
        assert began in raised.value.problem
        assert raised.value.remedy == "resume with that, or give another <workdir>"


def test_a_finished_run_is_told_how_to_go_on(tmp_path):
    before = json.loads(PretrainSettings().replace(steps=5, warmup_steps=0).as_json())
    with pytest.raises(InputError) as raised:
        PretrainSettings().replace(steps=8, warmup_steps=0).check_resumable(before, tmp_path)
    assert raised.value.remedy == (
        f"resume with that, or train its model further with <model>={tmp_path} in another <workdir>"
    )
