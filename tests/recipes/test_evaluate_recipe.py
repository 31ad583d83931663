import json
import runpy

import pytest
from conftest import ROOT
from in_process import run_recipe_here


def test_a_run_is_evaluated_into_its_directory(tiny_run, scene_photos, tmp_path, capsys):
    flags = [f"--model={tiny_run}", "--task=zero_shot:kinds", f"--data={scene_photos}"]
    line = run_recipe_here("evaluate.py", *flags, "--cache=", "--prompts", "a {}", "one {}")
    assert line is None
    result = json.loads((tiny_run / "evaluation" / "zero_shot-kinds.json").read_text())
    assert (result["dataset"], result["pretrained"]) == ("kinds", str(tiny_run))
    printed = capsys.readouterr().out
    assert "kinds: 15 images (split test), 3 classes, 2 prompts\n" in printed
    assert f"{tiny_run}/evaluation: zero_shot-kinds.json, zero_shot-kinds-confusion" in printed


def test_the_title_names_split_and_prompt_and_a_replaced_result_is_named(
    tiny_run, scene_photos, tmp_path, capsys
):
    flags = [f"--model={tiny_run}", f"--output={tmp_path}", "--task=zero_shot:kinds", "--cache="]
    table = f"--data={tmp_path / 'labels.jsonl'}"
    rows = [json.loads(line) for line in (scene_photos / "pairs.jsonl").read_text().splitlines()]
    for place, row in enumerate(rows):
        row |= {"image": str(scene_photos / row["image"]), "class_name": "ab"[place // 3 % 2]}
    (tmp_path / "labels.jsonl").write_text("\n".join(map(json.dumps, rows)))
    printed = []
    for split in ("", "--split=train", "--split=train"):
        assert run_recipe_here("evaluate.py", *flags, table, *filter(None, [split])) is None
        printed.append(capsys.readouterr().out)
    assert "images (split test), 2 classes, prompt 'a photo of a {}.'\n" in printed[0]
    assert "images (split train), 2 classes" in printed[1]
    replaced = f"replaced: {tmp_path / 'zero_shot-kinds.json'} held the result of other data"
    assert [replaced in text for text in printed] == [False, True, False]


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--task=retrieve:coco"], "--task: unknown task 'retrieve'; did you mean retrieval?"),
        (["--task=retrieval:mini"], "--data: give the data of mini; it is not a known name"),
        (
            ["--task=knn:x", "--data=x", "--split=train"],
            "--train-split: x train would be used for both",
        ),
        (["--task=multi30k", "--data=nowhere"], "--data: nowhere: no test_2016_flickr.en"),
        (["--task=zero_shot:kinds", "--data={photos}", "--model=none"], "--model: none: no such"),
        (
            ["--task=zero_shot:kinds", "--data={photos}", "--model={photos}"],
            "--model: {photos}: neither a run nor a preset: it has no config.json and no preset/; "
            "give the directory of a run, a preset, or hf://USER/MODEL",
        ),
        ([], "nothing to do; give one of --task, --suite and --compare"),
        (["--task=knn:x", "--suite=small"], "task and suite are given; give one of --task, --su"),
        (["--suite=smal"], "--suite: unknown suite or task 'smal'; did you mean small? choose"),
        (["--suite=knn:kinds", "--data=kinds={photos},nowhere"], "--data: nowhere: no such folder"),
        (["--task=knn:x", "--json=x"], "--json: cannot be used with --task"),
        (["--suite=small", "--split=val"], "--split: cannot be used with --suite"),
        (["--suite=retrieval:flickr8k"], "--data: no task can be run: retrieval:flickr8k: no data"),
    ],
)
def test_wrong_flags_end_in_one_line(flags, line, tiny_run, scene_photos):
    line, *flags = [text.format(photos=scene_photos) for text in (line, *flags)]
    found = run_recipe_here("evaluate.py", f"--model={tiny_run}", *flags)
    assert found.startswith(f"evaluate.py: {line}")
    assert "\n" not in found


def test_two_models_do_not_write_over_each_others_results(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    default_output = runpy.run_path(str(ROOT / "recipes" / "evaluate.py"))["default_output"]
    models = ("a/preset", "b/preset", "hf://a/preset", "b-preset")
    assert len({default_output(model) for model in models}) == 4
    assert default_output("a/preset") == default_output(f"{tmp_path}/a/preset/")
    (tmp_path / "retrieval-photos.json").write_text(json.dumps({"pretrained": "a/preset"}))
    (tmp_path / "x.csv").write_text("image,caption\n")
    flags = ["--model=b/preset", "--task=retrieval:photos", "--data=x.csv", "--output=."]
    assert run_recipe_here("evaluate.py", *flags) == (
        "evaluate.py: --output: retrieval-photos.json: it holds the result of another model, "
        "a/preset; give another folder"
    )


def test_a_suite_finds_its_data_and_runs_are_compared(tiny_run, scene_photos, tmp_path, capsys):
    (tmp_path / "data" / "kinds").parent.mkdir()
    (tmp_path / "data" / "kinds").symlink_to(scene_photos)
    # A suite does not repeat a task that has been run alone.
    alone = ["--task=retrieval:kinds", f"--data={tmp_path / 'data/kinds/pairs.jsonl'}"]
    output = f"--output={tmp_path / 'found'}"
    assert run_recipe_here("evaluate.py", f"--model={tiny_run}", *alone, output) is None
    flags = ["--suite=retrieval:kinds,multi30k", f"--data={tmp_path / 'data'}"]
    assert run_recipe_here("evaluate.py", f"--model={tiny_run}", *flags, output, "--cache=") is None
    printed = capsys.readouterr().out
    assert "multi30k                  not run: no data" in printed
    assert "retrieval:kinds: its result already exists" in printed
    runs = ["--compare", tmp_path / "found", tmp_path / "found", f"--json={tmp_path / 'c.json'}"]
    assert run_recipe_here("evaluate.py", *runs, "--bootstrap-samples=20") is None
    compared = json.loads((tmp_path / "c.json").read_text())
    assert compared["tasks"]["retrieval:kinds"][0]["differences"] == [[0.0, 0.0, 0.0]]
    printed = capsys.readouterr().out
    assert "retrieval:kinds" in printed and "+0.0% [+0.0%, +0.0%]" in printed
    assert run_recipe_here("evaluate.py", *runs, "--seed=1", "--batch-size=2") == (
        "evaluate.py: --batch-size: cannot be used with --compare"
    )
