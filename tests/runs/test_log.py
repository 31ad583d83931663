import json

from align_keras.runs import log


def test_the_log_keeps_the_last_line_of_a_step_and_skips_a_cut_one(tmp_path):
    lines = [
        {"kind": "train", "step": 2, "loss": 3.0},
        {"kind": "train", "step": 1, "loss": 4.0},
        {"kind": "train", "step": 2, "loss": 2.0},
    ]
    text = "\n".join(json.dumps(line) for line in lines) + '\n{"kind": "tr'
    (tmp_path / "log.jsonl").write_text(text)
    assert [line["loss"] for line in log.read_log(tmp_path)] == [4.0, 2.0]


def test_actions_fall_on_multiples_of_the_interval_and_the_end_after_resuming():
    calls = []
    callback = log.EveryNSteps(10, 17, 42, lambda: calls.append(callback.step))
    for batch in range(25):
        callback.on_train_batch_end(batch)
    assert calls == [20, 30, 40, 42]
