"""Pairs with known results: they break the rules at each threshold or lie just within it."""

import io
import itertools
import json
import re
import zipfile

import numpy as np
from conftest import SHARED
from PIL import Image

from align_keras.data.examples import open_images
from align_keras.data.examples.columns import Columns
from align_keras.data.preparation import filters, preparing
from align_keras.data.preparation.near_duplicates import EvaluationImages, decodable_images

#: The paper's rules, except for the size of photographs: the shared ones have a shorter side of 144
#: pixels.
RULES = filters.Rules(min_side_above=100, language="en")
COLUMNS = Columns(unsafe="rating")
_WORDS = re.findall(
    r"\w+",
    "red blue green old new small large wooden city garden street house dog horse boat train "
    "man woman child tree flower river bridge table window door snow beach field mountain sky cat",
)


def photographs():
    """Returns COCO's photographs with English captions if available, otherwise drawn images."""
    folder = SHARED / "data" / "captions" / "coco_mini"
    if folder.exists():
        lines = (folder / "pairs.jsonl").read_text().splitlines()
        rows = [json.loads(line) for line in lines]
        archives = {name: zipfile.ZipFile(folder / name) for name in {r["archive"] for r in rows}}
        images = [archives[row["archive"]].read(row["image"]) for row in rows]
        images = [(image, row["captions"][0]) for image, row in zip(images, rows, strict=True)]
        return [pair for pair in images if _is_plain(pair)][:60]
    rng = np.random.default_rng(0)
    captions = (f"a {first} and a {second}" for first, second in itertools.combinations(_WORDS, 2))
    return [
        (
            encode(Image.fromarray(rng.integers(0, 255, (9, 12, 3)).astype("uint8")), (192, 144)),
            text,
        )
        for text in itertools.islice(captions, 60)
    ]


def _is_plain(pair):
    image, caption = pair
    width, height = Image.open(io.BytesIO(image)).size
    return 3 <= len(caption.split()) <= 18 and max(width, height) < 2.5 * min(width, height)


def encode(image, size=None, quality=90):
    buffer = io.BytesIO()
    image = image.resize(size, Image.Resampling.BICUBIC) if size else image
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


class Planted:
    """A folder with a table of pairs, ``planted.jsonl``, and with images to evaluate on.

    ``expected`` holds, for each line, the rule that it breaks, or None. ``rules`` has a
    ``frequent_ngrams`` with which only the planted words are rare.
    """

    def __init__(self, folder):
        self.folder, self.rows, self.expected = folder, [], []
        pairs = photographs()
        evaluation, self.photos = pairs[:4], pairs[4:]
        (folder / "evaluation").mkdir(parents=True)
        for index, (image, _) in enumerate(evaluation):
            (folder / "evaluation" / f"{index}.jpg").write_bytes(image)
        for photo, caption in self.photos:
            # Each pair is added twice, so that its words are not rarer than a planted word.
            self.add(None, photo, caption)
            self.add(None, photo, caption)
        self._break_rules_of_the_table()
        self._break_rules_of_the_image(evaluation)
        lines = [json.dumps(row) + "\n" for row in self.rows]
        (folder / "planted.jsonl").write_text("".join(lines))
        counts = self.count_ngrams()
        frequent = sum(count > 1 for count in counts.values())
        self.rules = RULES.but(frequent_ngrams=frequent)
        self.table = str(folder / "planted.jsonl")

    def evaluation_images(self):
        return EvaluationImages(decodable_images(open_images(self.folder / "evaluation")))

    def prepare(self, output, source=None, rules=None, seed=0, images=True, **options):
        """Applies the rules; returns the report."""
        return preparing.prepare(
            source or preparing.open_pairs(self.table, columns=COLUMNS),
            preparing.Output(str(output), **options),
            rules or self.rules,
            evaluation_images=self.evaluation_images() if images else None,
            seed=seed,
        )

    def add(self, rule, image, *captions, **fields):
        """Adds a row; ``image`` holds the bytes of a new file or the value of the table's cell."""
        name = image
        if isinstance(image, bytes):
            name = f"{len(self.rows):04d}.jpg"
            (self.folder / name).write_bytes(image)
        self.rows.append({"image": name, "captions": list(captions), **fields})
        self.expected.append(rule)

    def count_ngrams(self):
        """Counts all n-grams one by one."""
        counts = {}
        for row in self.rows:
            for caption in row["captions"]:
                for ngram in filters.ngrams(filters.unigrams(caption or "")):
                    counts[ngram] = counts.get(ngram, 0) + 1
        return counts

    def _break_rules_of_the_table(self):
        photo, caption = self.photos[0]
        add = self.add
        add("unusable_row", photo, " ")
        add("unusable_row", None, caption)
        add("unsafe", photo, caption, rating="NSFW")
        add("unsafe", photo, caption, rating=0.7)
        add(None, photo, caption, rating="UNLIKELY")
        words = caption.lower().split()
        for count, rule in ((2, "few_words"), (3, None), (20, None), (21, "many_words")):
            text = " ".join((words * 10)[:count])
            add(rule, photo, text)
            add(rule, photo, text.upper() + "!")
        for images, rule in ((10, None), (11, "shared_caption")):
            for _ in range(images):
                add(rule, photo, f"{'the dog' if rule else 'the cat'} in the picture")
        add("rare_words", photo, "a picture of the zyzzyva")
        for text in (
            "der alte Mann und das Meer",
            "ein kleines Haus mit einem Garten und einem Hund",
        ):
            add("language", photo, text)
            add("language", photo, text)
        texts = [f"{first} things beside {second}" for first in _WORDS for second in _WORDS]
        add(None, photo, *texts[:1000])
        add("crowded_image", photo, *texts[:1001])
        # This row makes the words of the last caption frequent enough.
        add(None, photo, texts[1000])

    def _break_rules_of_the_image(self, evaluation):
        add = self.add
        for index, (size, rule) in enumerate(
            (
                ((100, 150), "small_image"),
                ((150, 100), "small_image"),
                ((101, 150), None),
                ((360, 120), "elongated_image"),
                ((120, 360), "elongated_image"),
                ((359, 120), None),
            )
        ):
            photo, caption = self.photos[index + 1]
            image = Image.open(io.BytesIO(photo)).convert("RGB")
            add(rule, encode(image, size), caption)
        photo, caption = self.photos[8]
        add("unreadable_image", photo[: len(photo) // 2], caption)
        add("unreadable_image", b"no image at all", caption)
        add("unreadable_image", "missing.jpg", caption)
        for index, (data, _) in enumerate(evaluation):
            image = Image.open(io.BytesIO(data)).convert("RGB")
            caption = self.photos[10 + index][1]
            add("near_duplicate", data, caption)
            add("near_duplicate", encode(image, quality=60), caption)
            width, height = image.size
            for factor in (0.8, 1.5):
                size = round(factor * width), round(factor * height)
                add("near_duplicate", encode(image, size), caption)
