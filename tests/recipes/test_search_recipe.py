import sys

import pytest
from in_process import run_recipe_here, run_recipe_plainly

from align_keras.data.examples.table_examples import TableExamples
from align_keras.errors import InputError
from align_keras.models.dual_encoder import AlignDualEncoder
from align_keras.search import page_server


@pytest.fixture(scope="module")
def made(tiny_run, scene_photos, tmp_path_factory):
    """An index of the test images, made by the command."""
    output = tmp_path_factory.mktemp("made") / "index"
    flags = [f"--model={tiny_run}", f"--images={scene_photos / 'pairs.jsonl'}"]
    flags += ["--select", "split=test", f"--output={output}"]
    assert run_recipe_here("search.py", "index", *flags) is None
    return output


def test_an_index_is_made_asked_and_evaluated(made, scene_photos, tmp_path, capsys):
    sheet, image = tmp_path / "found.png", next(scene_photos.rglob("test/*/*.jpg"))
    flags = [f"--index={made}", f"--image={image}", "--results=5", f"--sheet={sheet}"]
    assert run_recipe_here("search.py", "query", "a red ring", "--weight=0", *flags) is None
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["1", "1.000", str(image.relative_to(scene_photos))]
    assert len(lines) == 6
    assert lines[-1] == f"drawn: {sheet}"
    assert sheet.stat().st_size > 10_000
    flags = [f"--index={made}", f"--data={scene_photos / 'pairs.jsonl'}"]
    assert run_recipe_here("search.py", "evaluate", *flags) is None
    printed = capsys.readouterr().out
    assert "15 images, 45 captions, exact" in printed
    assert "text to image R@1" in printed


def test_litert_finds_what_tensorflow_finds(made, scene_photos, capsys, monkeypatch):
    runtimes = []
    use_runtime = AlignDualEncoder.use_runtime
    monkeypatch.setattr(
        AlignDualEncoder,
        "use_runtime",
        lambda self, runtime: runtimes.append(runtime) or use_runtime(self, runtime),
    )
    lines = []
    for flags in ([], ["--runtime=litert"]):
        flags = [f"--index={made}", "--sheet=", "--results=3", *flags]
        # Not `run_recipe_here`: LiteRT prints a line, which commands hide.
        assert run_recipe_plainly("search.py", "query", "a red ring", *flags) is None
        lines.append(capsys.readouterr().out)
    assert lines[0] == lines[1]
    assert runtimes == ["tensorflow", "litert"]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("query two --index=none", "--index: no finished index in none; make one with rec"),
        ("query a --index={made} --probes=0", "--probes: must be at least 1, not 0"),
        ("query a --index={made} --image=none", "--image: none: No such file or directory"),
        ("query a --index={made} --model=none", "--model: "),
        ("evaluate --index={made} --data=none.jsonl", "--data: "),
        (
            "serve --index=none --allowed-host http://a/",
            "--allowed-host: 'http://a/' is not a name",
        ),
        ("index --batch-size=0 {index}", "--batch-size: must be at least 1, not 0"),
        ("index --thumbnail-size=-1 {index}", "--thumbnail-size: must be at least 0, not -1"),
        ("index --thumbnail-size=5000 {index}", "--thumbnail-size: must be at most 1024"),
        ("index --model=none --images={photos} --output=x", "--model: "),
        ("index --model={run} --images=none --output=x", "--images: "),
        (
            "index --model={run} --images={photos} --output={photos}",
            "--output: {photos}: it holds pairs.jsonl, which is not part of an index",
        ),
    ],
)
def test_wrong_flags_end_in_one_line(arguments, line, made, tiny_run, scene_photos):
    index = f"--model={tiny_run} --images={scene_photos} --output=x"
    names = {"made": made, "photos": scene_photos, "run": tiny_run, "index": index}
    found = run_recipe_here("search.py", *arguments.format(**names).split())
    assert found.startswith(f"search.py: {line.format(**names)}")
    assert "\n" not in found


def test_a_page_is_called_by_its_own_names_and_those_allowed(made, capsys, monkeypatch):
    monkeypatch.setenv("TF_ONEDNN_USE_SYSTEM_ALLOCATOR", "0")  # otherwise the command sets it
    line = run_recipe_here("search.py", "serve", f"--index={made}", "--allowed-host=http://a/")
    assert line.startswith("search.py: --allowed-host: 'http://a/' is not a name or address; give")
    apps = []

    class Server:
        def run(self, sockets):
            assert len(sockets) == 1

    monkeypatch.setattr(page_server, "_return_memory", lambda: None)
    monkeypatch.setattr(page_server, "build_server", lambda app: apps.append(app) or Server())
    flags = [f"--index={made}", "--port=0", "--host=127.0.0.1"]
    flags += ["--allowed-host", "Photos.example.org", "--allowed-host=b.example:80"]
    assert run_recipe_here("search.py", "serve", *flags) is None
    assert capsys.readouterr().out.startswith("http://127.0.0.1:")
    own = {"localhost", "127.0.0.1", "::1"}
    assert apps[0].hosts == own | {"photos.example.org", "b.example"}
    assert apps[0].name_of("allowed_host") == "--allowed-host"


def test_what_fails_during_indexing_names_its_flag(tiny_run, scene_photos, tmp_path, monkeypatch):
    flags = [f"--model={tiny_run}", f"--images={scene_photos / 'pairs.jsonl'}"]
    flags += [f"--output={tmp_path / 'index'}"]
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "faiss", None)
        line = run_recipe_here("search.py", "index", *flags, "--exact-below=1")
    assert line.startswith("search.py: --exact-below: lists of images need faiss; pip install")

    def gone(_):
        raise InputError("gone")

    monkeypatch.setattr(TableExamples, "fingerprint", property(gone))
    assert run_recipe_here("search.py", "index", *flags) == "search.py: --images: gone"


def test_names_of_an_index_do_not_steer_the_terminal(made, tmp_path, capsys):
    for path in made.iterdir():
        data = path.read_bytes()
        (tmp_path / path.name).write_bytes(data.replace(b"picture ", b"\\u001b  "))
    (tmp_path / "checksums.json").unlink()
    flags = [f"--index={tmp_path}", "--sheet=", "--results=15"]
    assert run_recipe_here("search.py", "query", "a red ring", *flags) is None
    assert "\x1b" not in capsys.readouterr().out
