import json

from experiments import PRETRAINING
from in_process import run_recipe_here


def test_runs_are_listed_and_written_as_json(tmp_path, capsys):
    run, written = tmp_path / "runs" / "a", tmp_path / "found.json"
    run.mkdir(parents=True)
    (run / "settings.json").write_text(PRETRAINING["quickstart"].as_json())
    assert run_recipe_here("compare_runs.py", run.parent, run, f"--json={written}") is None
    assert capsys.readouterr().out.splitlines()[1].startswith(f"{run}  quickstart")
    (found,) = json.loads(written.read_text())
    assert found["path"] == str(run)
    line = run_recipe_here("compare_runs.py", tmp_path / "none")
    assert line == f"compare_runs.py: {tmp_path / 'none'}: no such folder"
