import argparse
import importlib.metadata
import json

import pytest
import tpu_compile
from test_tpu_figures import COMPILED

VERSIONS = {"libtpu": "0.0.42", "jax": "1", "tensorflow": "2", "keras": "3"}


@pytest.fixture
def arguments(tmp_path):
    return argparse.Namespace(
        experiments=["quickstart"],
        variants=["plain", "remat"],
        chips=["v5e"],
        pairs=16,
        replicas=1,
        effort=0.0,
        limit=None,
        again=False,
        code=False,
        only_table=False,
        results=tmp_path / "results",
    )


@pytest.fixture
def compiled(monkeypatch):
    """Replaces the compiler by one that takes no time; returns the compiled variants."""
    found = []

    def compile_case(case, path, code, limit):
        found.append(case["variant"])
        facts = {name: COMPILED[name] for name in COMPILED.keys() - case.keys()}
        memory = {**COMPILED["memory"], "code": 1 if code else None}
        return {**facts, "memory": memory, "machine": "a machine", "date": "2026-11-27"}

    monkeypatch.setattr(tpu_compile, "compile_case", compile_case)
    monkeypatch.setattr(tpu_compile, "installed_versions", lambda: VERSIONS)
    return found


def test_a_run_goes_on_where_one_ended(arguments, compiled, capsys):
    arguments.variants = ["plain"]
    tpu_compile.main(arguments)
    arguments.variants = ["plain", "remat"]
    tpu_compile.main(arguments)
    assert compiled == ["plain", "remat"]
    arguments.again = True
    tpu_compile.main(arguments)
    assert compiled == ["plain", "remat"] * 2
    printed = capsys.readouterr().out
    assert "compiled on a machine, 2026-11-27, by libtpu 0.0.42" in printed
    assert printed.count("v5e   remat") == 2


def test_code_is_generated_where_it_was_not(arguments, compiled):
    arguments.variants = ["plain"]
    tpu_compile.main(arguments)
    arguments.code = True
    tpu_compile.main(arguments)
    tpu_compile.main(arguments)
    arguments.code = False
    tpu_compile.main(arguments)
    assert compiled == ["plain", "plain"]


def test_the_table_needs_no_compiler(arguments, compiled, capsys, monkeypatch):
    tpu_compile.main(arguments)
    monkeypatch.undo()
    arguments.only_table = True
    tpu_compile.main(arguments)
    assert "v5e   plain" in capsys.readouterr().out


def test_what_takes_too_long_leaves_no_result(arguments, compiled, monkeypatch):
    monkeypatch.setattr(tpu_compile, "compile_case", lambda *_: None)
    with pytest.raises(SystemExit, match="no results in"):
        tpu_compile.main(arguments)


def test_a_missing_compiler_is_one_line(arguments, monkeypatch):
    def version(name):
        if name == "libtpu":
            raise importlib.metadata.PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr(importlib.metadata, "version", version)
    with pytest.raises(SystemExit) as ended:
        tpu_compile.main(arguments)
    assert ended.value.code == (
        "tpu_compile.py: libtpu is not installed: pip install -e '.[tpu-compile]', or make "
        "tpu-compile"
    )


def test_more_replicas_than_a_slice_has(arguments, monkeypatch):
    monkeypatch.setattr(tpu_compile, "installed_versions", lambda: VERSIONS)
    arguments.replicas = 1_000_000
    with pytest.raises(SystemExit, match="lower --replicas"):
        tpu_compile.main(arguments)


def test_a_failed_child_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "child.py").write_text("raise ValueError('no such preset')")
    monkeypatch.setattr(tpu_compile, "_FOLDER", tmp_path)
    with pytest.raises(SystemExit, match=r"child\.py, case \{'pairs': 16\}: ValueError: no such"):
        tpu_compile.in_child("child.py", None, pairs=16)


def test_every_case_can_be_a_file(arguments):
    arguments.experiments, arguments.chips = tpu_compile.EXPERIMENTS, ["v4", "v6e"]
    cases = list(tpu_compile.cases(arguments, VERSIONS))
    names = {tpu_compile.tpu_figures.key(case) for case in cases}
    assert len(names) == len(cases) == 6 * 2 * 2
    json.dumps(cases)
