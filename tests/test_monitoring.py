import json

import numpy as np
from PIL import Image

from align_keras import monitoring


def test_the_log_keeps_the_last_line_of_a_step_and_skips_a_cut_one(tmp_path):
    lines = [
        {"kind": "train", "step": 2, "loss": 3.0},
        {"kind": "train", "step": 1, "loss": 4.0},
        {"kind": "train", "step": 2, "loss": 2.0},
    ]
    text = "\n".join(json.dumps(line) for line in lines) + '\n{"kind": "tr'
    (tmp_path / "log.jsonl").write_text(text)
    assert [line["loss"] for line in monitoring.read_log(tmp_path)] == [4.0, 2.0]


def test_curves_are_drawn_from_the_log(tmp_path):
    with (tmp_path / "log.jsonl").open("w") as file:
        for step in range(10):
            line = {"kind": "train", "step": step, "loss": 10 - step, "temperature": 0.1}
            file.write(json.dumps(line) + "\n")
    monitoring.draw_curves(tmp_path)
    drawn = np.asarray(Image.open(tmp_path / "curves.png").convert("RGB"))
    (tmp_path / "log.jsonl").unlink()
    monitoring.draw_curves(tmp_path)
    empty = np.asarray(Image.open(tmp_path / "curves.png").convert("RGB"))
    blue = np.array([31, 119, 180])
    assert (np.abs(drawn - blue.astype(int)).max(axis=-1) < 10).sum() > 100
    assert (np.abs(empty - blue.astype(int)).max(axis=-1) < 10).sum() == 0


def test_retrieval_sheet_frames_the_right_image(tmp_path):
    images = np.full((2, 3, 8, 8, 3), 0.5)
    right = np.array([[True, False, False], [False, False, False]])
    path = tmp_path / "sheet.png"
    monitoring.draw_retrievals(path, ["costs $5 or $6", "b" * 300], images, right, np.zeros((2, 3)))
    pixels = np.asarray(Image.open(path).convert("RGB"), int)
    green = (np.abs(pixels - [44, 160, 44]).max(axis=-1) < 10).any(axis=1)
    height = len(green) // 2
    assert green[:height].any()
    assert not green[height + 20 :].any()


def test_actions_fall_on_multiples_of_the_interval_after_resuming():
    calls = []
    callback = monitoring.EveryNSteps(10, first_step=17, action=lambda: calls.append(callback.step))
    for batch in range(25):
        callback.on_train_batch_end(batch)
    assert calls == [20, 30, 40]
