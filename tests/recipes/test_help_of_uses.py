import subprocess
import sys

from conftest import ROOT

CODE = """
import runpy, socket, sys
taken = socket.create_server(("127.0.0.1", 0))
PORT = taken.getsockname()[1]
sys.path.insert(0, "recipes")
TABLE = sys.argv[1]
MODEL = ["--model=none", "--output=none"]
for name, *arguments in (
    ["evaluate.py", "--help"],
    ["export.py", "--help"],
    ["search.py", "query", "--help"],
    ["verify.py", "none"],
    ["compare_runs.py", "none"],
    ["prepare_data.py", f"--captions={TABLE}", "--caption-column=captoin", "--output=none"],
    ["evaluate.py", f"--data={TABLE}", "--task=zero_shot:x", *MODEL],
    ["search.py", "index", f"--images={TABLE}", "--select", "splti=test", *MODEL],
    ["finetune_classification.py", f"--train-data={TABLE}", "--task=x", "--model=none"],
    ["evaluate.py", "--task=retrieval:x", "--model=/none"],
    ["evaluate.py", "--task=retrieval:x", "--model=.", "--data=/none-*.tfrecord"],
    ["evaluate.py", "--task=zero_shot:x", "--model=.", f"--data={TABLE}.json"],
    ["evaluate.py", "--task=crisscrossed", "--model=.", "--data=/none"],
    ["export.py", "--model=/none", "--output=none"],
    ["export.py", "--model=.", "--output=."],
    ["search.py", "index", "--model=.", "--images=/none*.jpg", "--output=none"],
    ["search.py", "query", "a dog", "--index=/none"],
    ["search.py", "query", "--index=/none", "--image=/none.jpg"],
    ["search.py", "serve", "--index=/none", f"--port={PORT}"],
    ["prepare_data.py", "--source=/none-*.tar", "--output=none/x"],
    ["prepare_data.py", f"--captions={TABLE}", "--images=/none", "--output=none/x"],
    ["prepare_data.py", f"--captions={TABLE}", "--evaluation-images=/none", "--output=none/x"],
    ["pretrain.py", "--train-data=/none-*"],
    ["pretrain.py", f"--train-data={TABLE}", "--vocabulary=/none"],
    ["pretrain.py", f"--train-data={TABLE}", "--text-encoder=/none"],
    ["finetune_retrieval.py", "--train-data=x", "--model=/none"],
    ["finetune_classification.py", "--model=.", "--task=x", "--data=/none"],
    ["inspect_data.py", "--data=/none"],
    ["inspect_data.py", f"--data={TABLE}", "--vocabulary=/none"],
):
    sys.argv = [name, *arguments]
    try:
        runpy.run_path(f"recipes/{name}", run_name="__main__")
    except SystemExit as ended:
        print(ended.code or "")
    assert not {"tensorflow", "keras"} & sys.modules.keys(), name
"""


#: What commands say before TensorFlow loads, each by its command and its flag.
MISTAKES = """
evaluate.py --model: /none: no such folder
evaluate.py --data: no file matches '/none-*.tfrecord'
evaluate.py --data: no file TABLE.json
evaluate.py --data: /none: no sts_test.csv
export.py --model: /none: no such folder
export.py --output: .: it exists
search.py --images: no file matches '/none*.jpg'
search.py --index: no finished index in /none
search.py --image: /none.jpg: No such file or directory
search.py cannot listen on 127.0.0.1:
prepare_data.py --source: /none-*.tar is neither tfds:NAME nor
prepare_data.py --images: no folder /none
prepare_data.py --evaluation-images: no file matches '/none'
pretrain.py --train-data: no file matches '/none-*'
pretrain.py --vocabulary: /none: no such file
pretrain.py --text-encoder: /none: no such folder
finetune_retrieval.py --model: /none: no such folder
finetune_classification.py --data: no file matches '/none'
inspect_data.py --data: no file matches '/none'
inspect_data.py --vocabulary: /none: no such file
""".strip().splitlines()


def test_help_and_mistakes_need_no_tensorflow(tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("image,caption\n0.jpg,a ball\n")
    ended = subprocess.run(
        [sys.executable, "-c", CODE, table], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    for flag in ("--fold-size", "--quantize", "--without-weight"):
        assert flag in ended.stdout
    assert "verify.py: none: no such file or folder" in ended.stdout.splitlines()
    found = f"{table}: no column {{}}, only image, caption"
    for name, flag, column, more in (
        ("prepare_data.py", "caption-column", "captoin", "did you mean caption?"),
        ("evaluate.py", "data", "class_name or label", ""),
        ("search.py", "select", "splti", ""),
        ("finetune_classification.py", "train-data", "class_name or label", ""),
    ):
        line = f"{name}: --{flag}: {found.format(column)}" + (f"; {more}" if more else "")
        assert line in ended.stdout.splitlines()
    lines = ended.stdout.splitlines()
    places = []
    for mistake in MISTAKES:
        name, _, text = mistake.replace("TABLE", str(table)).partition(" ")
        places.append(next(n for n, line in enumerate(lines) if line.startswith(f"{name}: {text}")))
    assert places == sorted(places)
