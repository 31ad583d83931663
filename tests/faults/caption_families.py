"""Tests captions of any text in filtering, packing, tokenizing, embedding and searching."""

import json
import shutil

import materials
import numpy as np
import tensorflow as tf
from harness import Family
from mutations import choose, odd_text, odd_value

from align_keras.data import records
from align_keras.data.preparation import filters, preparing
from align_keras.errors import InputError
from align_keras.search.image_search import clean_text

_NO_RULES = filters.NO_RULES
_PAPER = filters.Rules().but(("small_image", "elongated_image"))


class Captions(Family):
    """Rows with one caption or a list of captions; each is packed or counted under a reason."""

    name, share, batch = "captions", 0.08, 100

    def prepare(self, folder):
        self.folder, self.photos = folder, materials.photos(folder.parent)
        self.model = materials.model(folder.parent)
        self.rules = _NO_RULES

    def make_case(self, rng):
        if rng.uniform() < 0.2:
            return "a caption with five words"
        return odd_text(rng) if rng.uniform() < 0.8 else odd_value(rng)

    def run(self, cases):
        # Some texts have megabytes; a row of a table holds one caption.
        rows = [{"image": f"{n % 8}.jpg", "caption": case} for n, case in enumerate(cases)]
        rows.append({"image": "0.jpg", "caption": "a sound row of six words"})
        table = self.folder / "table.jsonl"
        table.write_text("".join(json.dumps(row) + "\n" for row in rows))
        output = self.folder / "packed"
        shutil.rmtree(output, ignore_errors=True)
        source = preparing.open_pairs(str(table), str(self.photos))
        rules = choose(np.random.default_rng(len(cases)), (_NO_RULES, _PAPER))
        report = preparing.prepare(source, preparing.Output(str(output / "set")), rules)
        dropped = sum(rule["pairs"] for rule in report["rules"])
        packed = [
            records.parse_pair(frame)["txt"]
            for shard in records.find_shards(output / "set-*.tfrecord")
            for frame in records.read_frames(shard)
        ]
        assert len(packed) == report["pairs_out"]
        assert report["pairs_in"] == report["pairs_out"] + dropped
        texts = [text.decode("utf-8") for text in packed]
        ids = self.model.preprocessor.tokenize(tf.constant(packed))["token_ids"].numpy()
        assert ids.min() >= 0 and ids.max() < len(self.model.preprocessor.vocabulary)
        assert np.isfinite(self.model.encode_texts(texts)).all()
        # A list or an empty value can give several pairs or none; the test checks that all are
        # counted.
        kept = min(len(packed) - 1, len(cases))
        return ["sound"] * kept + ["skipped"] * (len(cases) - kept)


class Sentences(Family):
    """Texts that a user might type into a search."""

    name, share, batch = "sentences", 0.05, 100

    def prepare(self, folder):
        self.model = materials.model(folder.parent)

    def make_case(self, rng):
        return "two dogs in the snow" if rng.uniform() < 0.1 else odd_text(rng)

    def run(self, cases):
        outcomes, texts = [], []
        for case in cases:
            try:
                texts.append(clean_text(case))
                outcomes.append("sound")
            except InputError as error:
                assert "\n" not in str(error) and len(str(error)) < 500
                outcomes.append("refused")
        assert np.isfinite(self.model.encode_texts(texts or [""])).all()
        return outcomes


FAMILIES = (Captions(), Sentences())
