"""The real img2dataset downloads from a local server; the pairs are filtered and trained on."""

import functools
import http.server
import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from conftest import ROOT
from in_process import run_recipe_here
from planted import photographs
from short_runs import settings_of

from align_keras.runs import pretraining

_COMMAND = shutil.which("img2dataset", path=str(Path(sys.executable).parent))
pytestmark = pytest.mark.skipif(
    _COMMAND is None, reason="img2dataset is not installed: make test-data has it"
)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The address of a web server with 40 photographs."""
    folder = tmp_path_factory.mktemp("web")
    for index, (image, _) in enumerate(photographs()[:40]):
        (folder / f"{index}.jpg").write_bytes(image)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()
        thread.join()


def documented_command():
    """The documentation's flags for img2dataset, except paths and sizes."""
    text = (ROOT / "docs" / "filtering.md").read_text().replace("\\\n", " ")
    (line,) = [line for line in text.splitlines() if line.startswith("img2dataset --url_list")]
    return line.split()[1:]


def test_what_img2dataset_downloads_is_filtered_and_trained_on(tiny_preset, server, tmp_path):
    captions = [caption for _, caption in photographs()[:40]]
    rows = [{"url": f"{server}/{i}.jpg", "caption": text} for i, text in enumerate(captions)]
    rows.append({"url": f"{server}/missing.jpg", "caption": "a photograph that is gone"})
    rows.append({"url": f"{server}/0.jpg", "caption": "click"})
    raw, clean = tmp_path / "urls.jsonl", tmp_path / "clean"
    raw.write_text("".join(json.dumps(row) + "\n" for row in rows))
    filtering = [f"--captions={raw}", "--image-column=url", f"--output={clean}", "--table-only"]
    assert run_recipe_here("prepare_data.py", *filtering, "--rules=paper") is None
    flags = [
        flag.replace("URLS-kept.jsonl", f"{clean}-kept.jsonl").replace(
            "CRAWL", str(tmp_path / "crawl")
        )
        for flag in documented_command()
    ]
    result = subprocess.run(
        [_COMMAND, *flags, "--processes_count=1", "--retries=0"],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr[-2_000:]
    output = tmp_path / "train"
    packing = [f"--source={tmp_path / 'crawl'}", f"--output={output}", "--min-side-above=100"]
    assert run_recipe_here("prepare_data.py", *packing, "--rules=paper") is None
    report = json.loads((tmp_path / "train-report.json").read_text())
    assert report["pairs_out"] == 40
    pattern = f"{output}-*.tfrecord"
    metrics = pretraining.pretrain(
        settings_of(([pattern], [pattern]), tmp_path / "run", steps=1, warmup_steps=0)
    )
    assert metrics["num_pairs"] == 40
