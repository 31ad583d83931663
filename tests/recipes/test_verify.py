import shutil

from in_process import run_recipe_here


def test_damage_is_a_line_a_file_and_exit_code_1(page_search, tmp_path, capsys):
    index = shutil.copytree(page_search.index.directory, tmp_path / "index")
    assert run_recipe_here("verify.py", index) is None
    assert capsys.readouterr().out.startswith(f"{index}: index, 7 files, ")
    for name in ("embeddings.bin", "thumbnails.bin"):
        (index / name).write_bytes((index / name).read_bytes()[:-1])
    assert run_recipe_here("verify.py", index, index) == 1
    printed = capsys.readouterr()
    assert printed.out.splitlines()[0].endswith("2 damaged")
    assert [line.split(":")[:3] for line in printed.err.splitlines()[:2]] == [
        ["verify.py", f" {index}/{name}", " damaged"]
        for name in ("embeddings.bin", "thumbnails.bin")
    ]
    line = run_recipe_here("verify.py", tmp_path / "none")
    assert line == f"verify.py: {tmp_path}/none: no such file or folder"
