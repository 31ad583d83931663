import numpy as np
from PIL import Image

from align_keras import figures
from align_keras.evaluation.metrics import ACCURACIES, RECALLS
from align_keras.runs import report


def test_the_table_shows_chance_beside_and_leaves_out_what_is_unknown():
    metrics = dict.fromkeys(RECALLS + ACCURACIES)
    metrics |= {"t2i_recall_at_5": 0.25, "num_pairs": 1280, "num_classes": 0, "seconds": 1234.5}
    metrics |= {"train_pairs_per_second": None, "resumed_at_step": 0}
    table = report.format_table(metrics, {"t2i_recall_at_5": 0.004}).splitlines()
    assert table[1] == "1,280 held-out pairs"
    assert table[3].split() == ["text", "to", "image", "R@5", "25.0%", "0.4%"]
    assert table[-1] == "1,234 s in all; training not timed"
    # The time of earlier processes is unknown.
    table = report.format_table({**metrics, "resumed_at_step": 1000}, {"t2i_recall_at_5": 0.004})
    assert table.endswith("1,234 s since resuming at step 1,000; training not timed")
    table = report.format_table({**metrics, "shared_captions": 12}, {"t2i_recall_at_5": 0.004})
    assert table.splitlines()[4].startswith("12 of 1,280 captions belong to more than one image.")
    unknown = dict.fromkeys(RECALLS + ACCURACIES) | {"num_pairs": 0, "num_classes": 0}
    table = report.format_table({**metrics, **unknown}, {}).splitlines()
    assert table[1:3] == ["no held-out data: nothing was evaluated", ""]


def test_curves_are_drawn_from_the_log(tmp_path):
    path = tmp_path / "curves.png"
    lines = [{"kind": "train", "step": step, "loss": 10 - step} for step in range(10)]
    report.draw_curves(path, lines)
    drawn = np.asarray(Image.open(path).convert("RGB"))
    report.draw_curves(path, [])
    empty = np.asarray(Image.open(path).convert("RGB"))
    blue = np.array([31, 119, 180])
    assert (np.abs(drawn - blue.astype(int)).max(axis=-1) < 10).sum() > 100
    assert (np.abs(empty - blue.astype(int)).max(axis=-1) < 10).sum() == 0


def test_a_curve_that_hardly_moves_keeps_off_the_edge(monkeypatch):
    drawn = []
    monkeypatch.setattr(figures, "save", lambda figure, path: drawn.append(figure))
    values = [0.1, 0.10001, 0.0999]
    lines = [{"kind": "train", "step": i, "temperature": v} for i, v in enumerate(values)]
    report.draw_curves("unused.png", lines)
    bottom, top = drawn[0].axes[3].get_ylim()
    assert bottom == 0
    assert top > 1.05 * max(values)


def test_curves_have_chance_beside_them(monkeypatch):
    drawn = []
    monkeypatch.setattr(figures, "save", lambda figure, path: drawn.append(figure))
    lines = [
        {"kind": "train", "step": 1, "loss": 4.0, "i2t_recall_at_1": 0.1, "t2i_recall_at_1": 0.2},
        {"kind": "eval", "step": 1, "i2t_recall_at_5": 0.3, "t2i_recall_at_5": 0.4},
    ]
    chance = {"i2t_recall_at_5": 0.05, "t2i_recall_at_5": 0.07}
    report.draw_curves("unused.png", lines, 32, chance)
    loss, batch, held_out, temperature = drawn[0].axes[:4]

    def dashed(axes):
        return [line.get_ydata()[0] for line in axes.lines if line.get_linestyle() == "--"]

    np.testing.assert_allclose(dashed(loss), [2 * np.log(32)])
    assert loss.get_ylim()[1] > 2 * np.log(32)
    assert dashed(batch) == [1 / 32]
    assert dashed(held_out) == [0.05, 0.07]
    assert dashed(temperature) == []
    labels = [text.get_text() for text in held_out.get_legend().get_texts()]
    assert labels == ["image to text", "text to image", "chance"]
