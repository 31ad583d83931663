"""Common mistakes: a message says what was found and what to do, before TensorFlow loads.

Loading TensorFlow takes seconds, so a command that does not load it answers at once.
"""

import json
import shlex
import subprocess
import sys

import pytest
from conftest import ROOT

#: Commands, each with parts of its message. DIR is the folder of ``files``, PORT a busy port.
MISTAKES = """
pretrain.py --batch-sise=3 | unknown flag --batch-sise; did you mean --batch-size?
pretrain.py --stpes=5 --modle=x | unknown flag --stpes, --modle; did you mean --steps, --model?
pretrain.py -batch-size=3 | unknown flag -batch-size; did you mean --batch-size?
pretrain.py --experiment=quikstart | unknown experiment 'quikstart'; did you mean quickstart? | cc3m
pretrain.py --preset=align_b7 | unknown preset 'align_b7'; did you mean align_b7_base?
pretrain.py --optimizer=adam | unknown value 'adam'; did you mean adamw? choose one of lamb, adamw
pretrain.py --strategy=gpu | unknown value 'gpu'; choose one of auto, cpu, mirrored, multi_worker
pretrain.py --freeze=text-encoder | unknown tower 'text-encoder'; did you mean text_encoder?
pretrain.py --captions=pairs.jsonl | unknown value 'pairs.jsonl'; choose one of all, sample
pretrain.py --steps=many | --steps: 'many' is not a whole number; give one such as --steps=1300
pretrain.py --learning-rate 1e-3x | --learning-rate: '1e-3x' is not a number; give one such as
pretrain.py --steps | --steps: it needs a value; give one such as --steps=1300
pretrain.py --antialias=True | takes no value, not 'True'; give --antialias or --no-antialias
pretrain.py --steps 5 6 | --steps: 2 values instead of one: 5 6; give --steps=5
pretrain.py photos | 'photos' belongs to no flag; give each value directly after its flag
pretrain.py --batch-size=1 | --batch-size: 1 is below 2; raise --batch-size to 2 or more
pretrain.py --profile=5 | --profile: '5' is not START:STOP; give the first and the last step
pretrain.py --eval-data=x | --eval-data: it needs training data; give --train-data too
pretrain.py --train-data DIR/a-0.tfrecord DIR/a-1.tfrecord | quote | 'DIR/a-*.tfrecord'
pretrain.py --train-data=/none-* | --train-data: no file matches '/none-*'
pretrain.py --train-data=DIR/a-*=2,DIR/b-* | 'DIR/b-*' has no weight, but other patterns do; give \
'DIR/b-*=1'
pretrain.py --train-data=DIR/t.csv --vocabulary=/none | --vocabulary: /none: no such file
pretrain.py --train-data=DIR/t.csv --text-encoder=/none | --text-encoder: /none: no such folder
pretrain.py --completion=powershell | unknown shell 'powershell'; choose one of bash, zsh
finetune_retrieval.py --train-data=x | --model: | a preset or a run's directory
finetune_retrieval.py --train-data=x --model=/none | --model: /none: no such folder
finetune_classification.py --steps=5 | did you mean --head.steps, --full.steps?
finetune_classification.py --experiment=small | unknown experiment 'small'; did you mean small_set?
finetune_classification.py --train-data=DIR/t.csv --task=x --model=none | --train-data: DIR/t.csv: \
no column class_name or label, only image, caption
finetune_classification.py --model=R --task=x --data=/none | --data: no file matches '/none'
evaluate.py --model=R | nothing to do; give one of --task, --suite and --compare
evaluate.py --model=R --task=retreival:x | unknown task 'retreival'; did you mean retrieval? | knn
evaluate.py --model=R --task=zeroshot:x --data=DIR/t.csv | --task: | did you mean zero_shot?
evaluate.py --model=R --task=zero_shot:x --data=DIR/photos --prompts "a photo" | --prompts: no {}
evaluate.py --model=R --task=zero_shot:imagnet | not a known name; did you mean imagenet?
evaluate.py --model=R --suite=smal | unknown suite or task 'smal'; did you mean small?
evaluate.py --model=R --task=retrieval:x --data=DIR/p.csv --split=dev | dev; split is train, test
evaluate.py --model=R --task=retrieval:x --data=DIR/p.csv --select lang=fr | lang=fr; lang is en, de
evaluate.py --model=R --task=retrieval:x --data=DIR/p.csv --select Lang=de | no column Lang | lang?
evaluate.py --model=R --task=zero_shot:x --data=DIR/photos --split=tset | there are test, train
evaluate.py --model=R --task=retrieval:x --data=DIR/k.json --split=dev | split dev; it has test, val
evaluate.py --model=R --task=zero_shot:x --data=DIR/t.csv | no column class_name or label, only
evaluate.py --model=R --task=retrieval:x --data=/none-*.tfrecord | no file matches '/none-*
evaluate.py --model=R --task=zero_shot:x --data=DIR/t.json | --data: no file DIR/t.json
evaluate.py --model=R --task=crisscrossed --data=/none | --data: /none: no sts_test.csv
evaluate.py --model=/none --task=retrieval:x | --model: /none: no such folder
prepare_data.py --captions=DIR/t.csv --output=DIR/a | --output: DIR/a-00000.tfrecord already exists
prepare_data.py --captions=DIR/t.csv | --output: must be given; see --help
prepare_data.py --captions=DIR/t.csv --caption-column=captoin --output=none | --caption-column: \
DIR/t.csv: no column captoin, only image, caption; did you mean caption?
prepare_data.py --captions=DIR/p.csv --select split=dev --output=none | split is train, test
prepare_data.py --captions=DIR/t.csv --without smal_image --output=none | did you mean small_image?
prepare_data.py --source=/none-*.tar --output=none/x | /none-*.tar is neither tfds:NAME nor
prepare_data.py --captions=DIR/t.csv --images=/none --output=none/x | --images: no folder /none
prepare_data.py --captions=DIR/t.csv --evaluation-images=/none --output=none/x | matches '/none'
inspect_data.py --data=/none | --data: no file matches '/none'
inspect_data.py --data DIR/a-0.tfrecord DIR/a-1.tfrecord | quote a pattern | 'DIR/a-*.tfrecord'
inspect_data.py --data=DIR/t.csv --vocabulary=/none | --vocabulary: /none: no such file
export.py | --model: must be given; so must --output; see --help
export.py --model=/none --output=none | --model: /none: no such folder
export.py --model=R --output=. | --output: .: | give a new folder
export.py --model=R --output=none --format=onx | unknown value 'onx'; did you mean onnx?
export.py --model=R --output=none --class-names=imagnet | did you mean imagenet?
export.py --model=R --output=none --quantize=int8 | --quantize: | give --format=litert
search.py | no command; begin with one of index, query, evaluate, serve
search.py qurey "a dog" | unknown command 'qurey'; did you mean query? choose one of index, query
search.py query a red square --index=x | 3 words instead of one text; quote it: "a red square"
search.py query --index=x --without a red ball | --without: 3 values | --without="a red ball"
search.py query "a dog" --index=/none | --index: no finished index in /none; make one with
search.py query --index=/none --image=/none.jpg | --image: /none.jpg: No such file or directory
search.py query --index=/none --image=DIR/t.csv | --image: DIR/t.csv: not an image in a supported
search.py query "" --index=/none | nothing to look for; give a sentence, an image or words to take
search.py index --model=R --images=/none*.jpg --output=none | --images: no file matches '/none*.jpg'
search.py index --images=DIR/t.csv --select splti=test --model=R --output=none | no column splti
search.py serve --index=/none --port=PORT | cannot listen on 127.0.0.1:
compare_runs.py none | none: no such folder
verify.py | PATHS must be given; see --help
verify.py none | none: no such file or folder
serving_client.py --texts x --signatrue=y | unknown flag --signatrue; did you mean --signature?
serving_client.py --texts x --server=localhost:1 | no server answers at localhost:1 (Connection \
refused); start one with the command that export.py printed | docs/serving.md
serving_client.py --images=none.jpg | --images: no file none.jpg
"""
TABLE = [
    [part.strip() for part in line.split(" | ")]
    for line in MISTAKES.replace("\\\n", "").strip().splitlines()
]

RECIPES = {file.name for file in (ROOT / "recipes").glob("*.py")} - {"experiments.py"}

#: Program that runs all commands in one process; it prints each answer as a line of JSON.
CODE = """
import contextlib, io, json, runpy, socket, sys
taken = socket.create_server(("127.0.0.1", 0))
sys.path.insert(0, "recipes")
for name, *arguments in json.load(sys.stdin):
    port = str(taken.getsockname()[1])
    sys.argv = [name, *(one.replace("PORT", port) for one in arguments)]
    code, written = 0, io.StringIO()
    with contextlib.redirect_stderr(written), contextlib.redirect_stdout(io.StringIO()):
        try:
            runpy.run_path(f"recipes/{name}", run_name="__main__")
        except SystemExit as ended:
            code = ended.code or 0
    loaded = sorted({"tensorflow", "keras"} & sys.modules.keys())
    print(json.dumps([code, written.getvalue(), loaded]))
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mistakes")
    (folder / "t.csv").write_text("image,caption\n0.jpg,a ball\n")
    rows = ("0.jpg,a ball,train,en", "1.jpg,ein Ball,train,de", "2.jpg,a cat,test,en")
    (folder / "p.csv").write_text("\n".join(("image,caption,split,lang", *rows, "")))
    images = [
        {"filename": "0.jpg", "split": split, "sentences": [{"raw": "a ball"}]}
        for split in ("test", "val")
    ]
    (folder / "k.json").write_text(json.dumps({"images": images}))
    (folder / "a-00000.tfrecord").touch()
    for split in ("train", "test"):
        (folder / "photos" / split / "cat").mkdir(parents=True)
    (folder / "run" / "preset").mkdir(parents=True)
    (folder / "run" / "preset" / "config.json").write_text("{}")
    return folder


@pytest.fixture(scope="module")
def answers(files):
    """For each command, its exit code, its output, and the modules loaded by then."""
    # The help comes first, because it must not load TensorFlow either.
    commands = [[name, "--help"] for name in RECIPES]
    lines = (one.replace("=R ", "=DIR/run ").replace("DIR", str(files)) for one, *_ in TABLE)
    commands += list(map(shlex.split, lines))
    ended = subprocess.run(
        [sys.executable, "-c", CODE],
        cwd=ROOT,
        input=json.dumps(commands),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    lines = list(map(json.loads, ended.stdout.splitlines()))
    assert lines[: len(RECIPES)] == [[0, "", []]] * len(RECIPES)
    mistakes = lines[len(RECIPES) :]
    return {command: answer for (command, *_), answer in zip(TABLE, mistakes, strict=True)}


@pytest.mark.parametrize(("command", "phrases"), [(row[0], row[1:]) for row in TABLE])
def test_a_mistake_is_named_with_what_to_do(command, phrases, answers, files):
    code, written, loaded = answers[command]
    assert code, "a mistake has an exit code"
    message = (code if isinstance(code, str) else written).replace(str(files), "DIR")
    assert all(phrase in message for phrase in phrases), message
    # One recipe does not use this package; its argparse prints the usage before the message.
    last = message.strip().splitlines()[-1]
    assert last.startswith(f"{command.split()[0]}: ")
    assert len(message.strip().splitlines()) == 1 or "usage: serving_client.py" in message
    assert not loaded


def test_there_are_thirty_mistakes_of_all_recipes():
    assert len({command for command, *_ in TABLE}) == len(TABLE) > 30
    assert {command.split()[0] for command, *_ in TABLE} == RECIPES
