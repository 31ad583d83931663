import json

import pytest
from in_process import run_recipe_here


def test_a_run_is_evaluated_into_its_directory(tiny_run, scene_photos, tmp_path, capsys):
    flags = [f"--model={tiny_run}", "--task=zero_shot:kinds", f"--data={scene_photos}"]
    line = run_recipe_here("evaluate.py", *flags, "--cache=", "--prompts", "a {}", "one {}")
    assert line is None
    result = json.loads((tiny_run / "evaluation" / "zero_shot-kinds.json").read_text())
    assert (result["dataset"], result["pretrained"]) == ("kinds", str(tiny_run))
    printed = capsys.readouterr().out
    assert "kinds: 15 images, 3 classes, 2 prompts each" in printed
    assert f"{tiny_run}/evaluation: zero_shot-kinds.json, zero_shot-kinds-confusion" in printed


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--task=retrieve:coco"], "--task: no 'retrieve'; choose one of retrieval, zero_shot"),
        (["--task=retrieval:mini"], "--data: give the data of mini; it is not a known name"),
        (["--task=knn:x", "--data=x", "--split=train"], "--train-split: x train would be trained"),
        (["--task=multi30k", "--data=nowhere"], "--data: nowhere: no test_2016_flickr.en"),
        (["--task=zero_shot:kinds", "--data={photos}"], "--model: "),
    ],
)
def test_wrong_flags_end_in_one_line(flags, line, scene_photos):
    flags = [flag.format(photos=scene_photos) for flag in flags]
    found = run_recipe_here("evaluate.py", "--model=nowhere", *flags)
    assert found.startswith(f"evaluate.py: {line}")
    assert "\n" not in found
