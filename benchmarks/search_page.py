"""Measures latencies and memory of the search page under load.

    python benchmarks/search_page.py [--texts=200] [--images=16] [--checkout=.]

The model is EfficientNet-B0 at 224 pixels with BERT-mini. Its weights are random, but it needs the
time and memory of a trained model. The index has 10,000 embeddings. ``recipes/search.py serve``
runs in its own process. It receives three kinds of requests, all requests of a kind at once:
sentences; photographs of 67 megapixels, the largest that are decoded; and 40 uploads of 20 MiB that
are not images. ``--checkout`` measures another version of this repository. Memory is the resident
set, whose peak is reset for each kind. "CPU" is the server's processor time, which other load on
the machine hardly changes.
"""

import argparse
import asyncio
import base64
import contextlib
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import measure
import numpy as np
import photographs
from PIL import Image

from align_keras.preprocessing.decoding.faults import MAX_PIXELS

_EMBEDDINGS = 10_000
_UPLOAD_BYTES = 20 << 20
_ANSWERED_WITHIN = 300


def make(folder):
    """Writes a preset and an index, in its own process."""
    import serving

    from align_keras.evaluation.fingerprint import fingerprint
    from align_keras.search.image_index import Header
    from align_keras.search.index_writer import IndexWriter

    folder = Path(folder)
    captions = photographs._captions(1_000, real=photographs._SHARED.exists())
    model = serving.own_model(photographs.vocabulary(folder, captions))
    model.save_to_preset(folder / "model")
    embeddings = np.random.default_rng(0).standard_normal((_EMBEDDINGS, serving.WIDTH), "f4")
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    labels = [
        {"name": f"{number}.jpg", "caption": captions[number % len(captions)]}
        for number in range(_EMBEDDINGS)
    ]
    facts = {"width": serving.WIDTH, "precision": "float32", "count": 0, "unreadable": 0}
    header = Header("", fingerprint(model), "", "", **facts)
    with IndexWriter(folder / "index", header) as writer:
        writer.commit(embeddings, labels, [b""] * _EMBEDDINGS, [])
        writer.finish()
    (folder / "captions.json").write_text(json.dumps(captions))
    print("{}")


def large_photograph():
    """Returns a JPEG of the largest size that is decoded, composed of several photographs."""
    side = round(MAX_PIXELS**0.5)
    picture = Image.new("RGB", (side, side))
    with tempfile.TemporaryDirectory() as folder:
        photographs.write(Path(folder), 8)
        files = sorted(Path(folder).glob("*.jpg"))
        tiles = [Image.open(file).resize((side // 4, side // 2)) for file in files]
    for place, tile in enumerate(tiles):
        picture.paste(tile, (place % 4 * tile.width, place // 4 * tile.height))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


# === The server ===


@contextlib.contextmanager
def served(folder, checkout):
    """Starts ``recipes/search.py serve``; yields the process id and the port."""
    command = [f"{checkout}/recipes/search.py", "serve", f"--index={folder}/index"]
    own = {name: os.environ[name] for name in os.environ if name != "TF_CPP_MIN_LOG_LEVEL"}
    process = subprocess.Popen(
        [sys.executable, *command, f"--model={folder}/model", "--port=0"],
        env={**own, "PYTHONPATH": str(checkout)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        line = process.stdout.readline()
        if not (found := re.match(r"http://127\.0\.0\.1:(\d+)", line)):
            sys.exit("the server did not start")
        yield process.pid, int(found[1])
    finally:
        process.terminate()
        process.wait()


def memory(pid, name):
    """Returns the memory of a process in MiB: ``VmRSS`` is current, ``VmHWM`` is the peak."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(rf"{name}:\s+(\d+)", status)[1]) / 1024


def cpu_seconds(pid):
    """Returns the processor time of a process, which other load hardly changes."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def forget_peak(pid):
    """Resets the peak memory of a process."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


# === Its clients ===


async def ask(port, body):
    """Posts a search; returns the status and the seconds until the answer is complete."""
    start = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 24)
    head = (
        f"POST /search HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    try:
        writer.write(head.encode())
        writer.write(body)
        answer = await reader.read()
    except ConnectionError:
        answer = b""
    finally:
        writer.close()
    return int(answer[9:12] or 0), time.perf_counter() - start


async def ask_all(port, bodies):
    """Posts all requests at once; returns statuses, seconds of each, and total seconds."""
    start = time.perf_counter()
    async with asyncio.timeout(_ANSWERED_WITHIN):
        answers = await asyncio.gather(*(ask(port, body) for body in bodies))
    statuses, seconds = zip(*answers, strict=True)
    return statuses, np.array(seconds), time.perf_counter() - start


def report(name, pid, port, bodies):
    """Posts all requests at once and prints a row of the table."""
    forget_peak(pid)
    before = cpu_seconds(pid)
    statuses, seconds, total = asyncio.run(ask_all(port, bodies))
    counts = ", ".join(f"{statuses.count(status)} x {status}" for status in sorted(set(statuses)))
    half, most = np.percentile(seconds, [50, 99])
    print(
        f"{name:<24}{half:>8.2f}{most:>8.2f}{total:>8.2f}"
        f"{cpu_seconds(pid) - before:>8.2f}{memory(pid, 'VmHWM'):>10,.0f}"
        f"{memory(pid, 'VmRSS'):>8,.0f}  {counts}",
        flush=True,
    )


def main(num_texts, num_images, num_uploads, checkout):
    """Makes a model and an index, serves them and prints the table."""
    with tempfile.TemporaryDirectory() as folder:
        measure.in_child(__file__, folder=folder)
        captions = json.loads((Path(folder) / "captions.json").read_text())
        texts = [
            json.dumps({"text": f"{number} {captions[number % len(captions)]}"[:200]}).encode()
            for number in range(num_texts)
        ]
        photograph = large_photograph()
        image = json.dumps({"image": base64.b64encode(photograph).decode()}).encode()
        upload = json.dumps({"image": base64.b64encode(bytes(_UPLOAD_BYTES)).decode()}).encode()
        print(
            f"{measure.machine()}; EfficientNet-B0 at 224, BERT-mini, {_EMBEDDINGS:,} images\n"
            f"photographs of {MAX_PIXELS / 1e6:.0f} megapixels, {len(photograph) >> 20} MiB\n"
        )
        with served(folder, checkout) as (pid, port):
            print(f"MiB at rest, started: {memory(pid, 'VmRSS'):,.0f}")
            for _ in range(3):
                asyncio.run(ask_all(port, texts[:1]))
            print(f"MiB at rest, after three sentences: {memory(pid, 'VmRSS'):,.0f}\n")
            heads = f"{'p50 s':>8}{'p99 s':>8}{'all s':>8}{'CPU s':>8}{'peak MiB':>10}{'after':>8}"
            print(f"{'at once':<24}{heads}  answers")
            report(f"{num_texts} sentences", pid, port, texts)
            report(f"{num_texts} sentences again", pid, port, texts)
            report("1 photograph", pid, port, [image])
            report(f"{num_images} photographs", pid, port, [image] * num_images)
            report(f"{num_uploads} uploads of 20 MiB", pid, port, [upload] * num_uploads)
            print(f"\nMiB at rest afterwards: {memory(pid, 'VmRSS'):,.0f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", help="run one case, given as JSON, in this process")
    parser.add_argument("--texts", type=int, default=200)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--uploads", type=int, default=40)
    parser.add_argument("--checkout", default=Path(__file__).parent.parent, type=Path)
    arguments = parser.parse_args()
    if arguments.case:
        sys.exit(make(**json.loads(arguments.case)))
    counts = arguments.texts, arguments.images, arguments.uploads
    sys.exit(main(*counts, arguments.checkout.resolve()))
