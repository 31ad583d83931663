"""Measures the seconds until a command prints its first line and its first result.

    python benchmarks/startup.py

Each command runs in a fresh process. The first word is the first line that the command writes to
any output, and the first result is the first line on standard output. On a shared machine, compare
the CPU seconds (user and system). The model is an EfficientNet-B0 with BERT-mini and random weights
in Hugging Face's layout. If torch and transformers are installed, the last row is the same query
with these libraries.
"""

import argparse
import json
import os
import pathlib
import resource
import select
import subprocess
import sys
import tempfile
import time

import measure

ROOT = pathlib.Path(__file__).parent.parent
IMAGES, QUERY = 8, "a red ring"
PEER = """
import sys, numpy as np, torch, transformers
folder, index, query = sys.argv[1:]
model = transformers.AlignModel.from_pretrained(folder).eval()
tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
images = np.fromfile(index + "/embeddings.bin", np.float32).reshape(-1, model.config.projection_dim)
with torch.inference_mode():
    fields = tokenizer(query, return_tensors="pt")
    text = model.get_text_features(**fields)
    text = getattr(text, "pooler_output", text)[0].numpy()
for place in (images @ text).argsort()[::-1][:12]:
    print(place)
"""


def make(folder):
    """Writes the model, images and captions, in its own process."""
    import numpy as np
    from PIL import Image

    import align_keras

    words = ["a", "red", "blue", "green", "ring", "star", *map(str, range(2_000))]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    backbone = align_keras.AlignBackbone(
        align_keras.build_image_encoder("efficientnet_b0", first_block_residuals=False),
        align_keras.build_text_encoder("bert_mini", len(vocabulary), 64, approximate_gelu=False),
        projection_dim=320,
    )
    preprocessor = align_keras.AlignPreprocessor(vocabulary, 224, 256, sequence_length=64)
    model = align_keras.AlignDualEncoder(backbone, preprocessor)
    model.export_to_transformers(f"{folder}/model")
    pixels = np.random.default_rng(0).integers(0, 255, (IMAGES, 12, 16, 3), np.uint8)
    with open(f"{folder}/images.jsonl", "w") as file:
        for number, image in enumerate(pixels):
            Image.fromarray(image).resize((320, 240)).save(f"{folder}/{number}.jpg")
            file.write(json.dumps({"image": f"{number}.jpg", "captions": [f"{number} a"]}) + "\n")


def watch(command, folder):
    """Runs a command; returns seconds to the first word, first result and end, and CPU seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=folder
    )
    first, printed, left = {}, [], {process.stdout, process.stderr}
    while left:
        for pipe in select.select(list(left), [], [])[0]:
            part = os.read(pipe.fileno(), 1 << 16)
            if part:
                first.setdefault(pipe, time.perf_counter() - start)
                printed.append(part)
            else:
                left.remove(pipe)
    process.wait()
    seconds = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = {
        "first word": min(first.values(), default=seconds),
        "first result": first.get(process.stdout, seconds),
        "end": seconds,
        "CPU": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
    }
    return found, process.returncode, b"".join(printed).decode(errors="replace")


def commands_in(folder):
    """Returns each command by its name."""
    recipes, model = ROOT / "recipes", f"--model={folder}/model"
    found = {
        "--help": [recipes / "evaluate.py", "--help"],
        "a missing model": [recipes / "export.py", "--model=none", "--output=none"],
        "search.py index": [
            *(recipes / "search.py", "index", model, f"--images={folder}/images.jsonl"),
            *(f"--output={folder}/index", "--restart"),
        ],
        "search.py query": [recipes / "search.py", "query", QUERY, f"--index={folder}/index"],
        "evaluate.py": [
            *(recipes / "evaluate.py", model, "--task=retrieval:x"),
            *(f"--data={folder}/images.jsonl", f"--output={folder}/out"),
        ],
    }
    script = folder / "peer.py"
    script.write_text(PEER)
    has_peer = subprocess.run([sys.executable, "-c", "import torch, transformers"]).returncode == 0
    if has_peer:
        found["the query with Hugging Face"] = [script, f"{folder}/model", f"{folder}/index", QUERY]
    return found


def main(rounds):
    """Measures the commands in turn and prints the best time of each."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        subprocess.run([sys.executable, __file__, "--make", folder], check=True)
        commands = commands_in(folder)
        found = {name: [] for name in commands}
        for _ in range(rounds):
            for name, command in commands.items():
                seconds, code, printed = watch(list(map(str, command)), folder)
                if code and name != "a missing model":
                    sys.exit(f"{name}: {printed.strip()}")
                found[name].append(seconds)
    print(f"{measure.machine()}, seconds, the best of {rounds} rounds\n")
    print(f"{'command':<30}" + "".join(f"{name:>14}" for name in found["--help"][0]))
    for name, rows in found.items():
        best = {kind: min(row[kind] for row in rows) for kind in rows[0]}
        print(f"{name:<30}" + "".join(f"{value:>14.2f}" for value in best.values()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--make", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.make:
        make(arguments.make)
    else:
        main(arguments.rounds)
