import json
from types import SimpleNamespace

from align_keras.remote_path import RemotePath
from align_keras.runs import log, log_lines, report


def test_the_log_keeps_the_last_line_of_a_step_and_skips_a_cut_one(tmp_path):
    lines = [
        {"kind": "train", "step": 2, "loss": 3.0},
        {"kind": "train", "step": 1, "loss": 4.0},
        {"kind": "train", "step": 2, "loss": 2.0},
    ]
    text = "\n".join(json.dumps(line) for line in lines) + '\n{"kind": "tr'
    (tmp_path / "log.jsonl").write_text(text)
    assert [line["loss"] for line in log_lines.read_log(tmp_path)] == [4.0, 2.0]


ODD = [
    b"[]",
    b"3",
    b"{}",
    b'"text"',
    b"[" * 9_999,
    b"\xff\xfe",
    b'{"kind": "train"}',
    b'{"step": 3}',
    b'{"step": "3", "kind": "train"}',
    b'{"step": true, "kind": "train"}',
    b'{"step": -1, "kind": "train"}',
    b'{"step": 3.5, "kind": "train"}',
    b'{"step": 3, "kind": []}',
    b'{"step": 3, "kind": "train", "loss": "high"}',
    b'{"step": 3, "kind": "train", "loss": null}',
    b'{"step": 3, "kind": "train", "loss": NaN}',
    b'{"step": 3, "kind": "train", "loss": 1e400}',
    b'{"step": 3, "kind": "train", "loss": 1%s}' % (b"0" * 400),
    b'{"step": 3, "kind": "train", "loss": 1%s}' % (b"0" * 9_999),
]


def test_odd_lines_are_left_out_and_counted_and_the_curves_are_drawn(tmp_path, capsys):
    good = b'{"kind": "train", "step": 1, "loss": 4.0}'
    (tmp_path / "log.jsonl").write_bytes(b"\n".join([*ODD, b"", good]))
    lines = log_lines.read_log(tmp_path)
    assert [line["loss"] for line in lines] == [4.0]
    report.draw_curves(tmp_path / "curves.png", lines)
    skipped = f"skipped {len(ODD)} of {len(ODD) + 1} lines, which are incomplete or damaged"
    printed = f"{tmp_path / 'log.jsonl'}: {skipped}"
    assert capsys.readouterr().out == f"{printed}\n"


def test_a_torn_line_does_not_cost_the_next(tmp_path, capsys):
    path = tmp_path / "log.jsonl"
    training = log.TrainingLog(tmp_path, SimpleNamespace(step=0), 9, 8, 1, None)
    for step, start in ((1, b'{"kind": "tr'), (2, b"")):
        with path.open("ab") as file:
            file.write(start)
        training.step = step
        training.write("train", {"loss": float(step)})
    assert [line["loss"] for line in log_lines.read_log(tmp_path)] == [1.0, 2.0]
    assert "skipped 1 of 3 lines" in capsys.readouterr().out
    assert path.read_bytes().count(b"\n") == 3


def test_where_files_cannot_grow_lines_and_events_are_written_together():
    workdir = RemotePath("ram://logs/run")
    training = log.TrainingLog(workdir, SimpleNamespace(step=0), 9, 8, 1, None)

    def written():
        (events,) = (workdir / "logs").iterdir()
        return [line["step"] for line in log_lines.read_log(workdir)], events.stat().st_size

    sizes = []
    for step, kind, steps in ((1, "train", [1]), (2, "train", [1]), (3, "eval", [1, 2, 3])):
        training.step = step
        training.write(kind, {"loss": float(step)})
        lines, size = written()
        assert lines == steps
        sizes.append(size)
    assert sizes[0] == sizes[1] < sizes[2]
    training.step = 4
    training.write("train", {"loss": 4.0})
    training.close()
    assert written()[0] == [1, 2, 3, 4]


def test_actions_fall_on_multiples_of_the_interval_and_the_end_after_resuming():
    calls = []
    callback = log.EveryNSteps(10, 17, 42, lambda: calls.append(17 + batch + 1))
    for batch in range(25):
        callback.on_train_batch_end(batch)
    assert calls == [20, 30, 40, 42]


def test_recalls_in_the_batch_are_named_so():
    metrics = {"loss": 2.13, "i2t_recall_at_1": 0.719, "t2i_recall_at_1": 0.688, "temperature": 0.1}
    assert log.format_metrics(metrics) == "loss=2.13 in-batch R@1 72%/69% temp=0.1"
    classifier = {"loss": 0.5, "accuracy": 0.75, "images_per_second": 3.0, "other": 1.0}
    assert log.format_metrics(classifier) == "loss=0.5 acc=0.75 images/s=3"


def test_held_out_figures_have_chance_beside_them():
    metrics = {"i2t_recall_at_1": 0.008, "t2i_recall_at_1": None, "zero_shot_top_1": 0.25}
    chance = {"i2t_recall_at_1": 0.003, "zero_shot_top_1": 0.125}
    assert report.format_evaluation(1_250, metrics, chance) == (
        "step 1,250, held out: image to text R@1 0.8% (chance 0.3%), "
        "zero-shot top-1 25.0% (chance 12.5%)"
    )
