"""Damages the directory of a run: checkpoints, settings, lists of shards, log and vocabulary."""

import json

import experiments
import keras
import materials
import numpy as np
from harness import Family
from materials import made_once
from mutations import choose, damaged, damaged_json

from align_keras import Lamb
from align_keras.errors import InputError
from align_keras.preprocessing.tokenizer import read_vocabulary, write_vocabulary
from align_keras.runs import pretraining_run, report, shard_lists
from align_keras.runs.checkpoints import RunCheckpoints
from align_keras.runs.log_lines import read_log
from align_keras.runs.workdir import check_training_data, open_workdir


def small_checkpoints(directory):
    """Returns a model of one layer and its checkpoints."""
    model = keras.Sequential([keras.layers.Dense(1, kernel_initializer="zeros")])
    model.build((None, 1))
    model.compile(Lamb(0.01))
    return RunCheckpoints(directory, model, max_to_keep=3)


@made_once
def run_directory(shared, folder):
    """Writes three checkpoints, whose only weight is their step, and the best one."""
    checkpoints = small_checkpoints(folder)
    for step in (1, 2, 3):
        checkpoints.count_steps(step)
        checkpoints.model.weights[0].assign([[float(step)]])
        checkpoints.save()
        # The first checkpoint stays the best one, so there is no second copy of the newest
        # checkpoint.
        checkpoints.save_if_best(1.0 / step)


class Checkpoints(Family):
    """One file of the newest checkpoint is damaged or missing; the run continues at a sound one."""

    name, share, batch = "checkpoints: newest, best", 0.03, 10

    def prepare(self, folder):
        self.folder = folder
        self.sound = run_directory(folder.parent)
        self.files = [
            file
            for file in materials.files_of(self.sound)
            if "ckpt-3" in file[0] or not file[0].rsplit("/", 1)[-1].startswith("ckpt-")
        ]

    def make_case(self, rng):
        name, data = choose(rng, self.files)
        if rng.uniform() < 0.1:
            return name, None
        return name, damaged(data, rng)

    def run(self, cases):
        return list(map(self.run_one, cases))

    def run_one(self, case):
        copy = materials.with_file(self.sound, self.folder, *case)
        checkpoints = small_checkpoints(copy)
        step = checkpoints.restore()
        weight = float(checkpoints.model.weights[0].numpy().item())
        assert step in (2, 3), f"resumes at step {step} with {case[0]} damaged"
        assert weight == step, f"weights of step {weight} at step {step}"
        checkpoints.count_steps(4)
        checkpoints.save()
        assert small_checkpoints(copy).restore() == 4
        return "sound" if step == 3 else "skipped"


class RunFiles(Family):
    """Damaged files of a resumed run; each is reported in one line or has the same meaning."""

    name, share, batch = "settings and lists of a run", 0.04, 50

    def prepare(self, folder):
        self.folder, self.shared = folder, folder.parent
        self.settings = experiments.PRETRAINING["quickstart"]
        self.shards = {"shards": {f"train-{n:05}.tfrecord": 10 for n in range(3)}, "order": 2}
        photos = materials.photos(folder.parent)
        counts = {str(path): 10 for path in sorted(photos.glob("*"))}
        self.shards = shard_lists.list_shards(counts)
        lines = [
            {"step": step, "kind": kind, "loss": 5.0 / step, "i2t_recall_at_1": 0.1}
            for step in (1, 2, 3)
            for kind in ("train", "eval")
        ]
        write_vocabulary(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "##b"], folder / "vocab.txt")
        self.texts = {
            "settings.json": self.settings.as_json(),
            "train_shards.json": json.dumps(self.shards) + "\n",
            "log.jsonl": "".join(json.dumps(line) + "\n" for line in lines),
            "vocab.txt": (folder / "vocab.txt").read_text(),
        }

    def make_case(self, rng):
        name = choose(rng, list(self.texts))
        text = self.texts[name]
        if name.endswith(".json"):
            return name, damaged_json(text, rng)
        if name == "log.jsonl" and rng.uniform() < 0.5:
            line = damaged_json(text.splitlines()[0], rng)
            return name, line + b"\n" + text.encode()
        return name, damaged(text.encode(), rng)

    def run(self, cases):
        return list(map(self.run_one, cases))

    def run_one(self, case):
        name, data = case
        workdir = self.folder / "run"
        workdir.mkdir(exist_ok=True)
        for path in workdir.iterdir():
            path.unlink()
        (workdir / name).write_bytes(data)
        try:
            return {
                "settings.json": self.read_settings,
                "train_shards.json": self.read_shards,
                "log.jsonl": self.read_log,
                "vocab.txt": self.read_vocabulary,
            }[name](workdir)
        except (InputError, OSError) as error:
            assert "\n" not in str(error), str(error)
            return "refused"

    def read_settings(self, workdir):
        open_workdir(self.settings, str(workdir), written=pretraining_run.WRITTEN)
        return "sound"

    def read_shards(self, workdir):
        path = workdir / "train_shards.json"
        shard_lists.check_order(path)
        check_training_data(path, self.shards, shard_lists.difference_of_shards)
        return "sound"

    def read_log(self, workdir):
        lines = read_log(workdir)
        assert all(isinstance(line["step"], int) for line in lines)
        report.draw_curves(workdir / "curves.png", lines) if np.random.default_rng(
            len((workdir / "log.jsonl").read_bytes())
        ).uniform() < 0.1 else None
        return "sound" if len(lines) == 6 else "skipped"

    def read_vocabulary(self, workdir):
        read_vocabulary(str(workdir / "vocab.txt"))
        return "sound"


FAMILIES = (Checkpoints(), RunFiles())
