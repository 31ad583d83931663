"""The task of ``evaluate.py`` on Multi30K: the same captions in four languages."""

import gzip
from pathlib import Path

import numpy as np
from evaluation_data import Result

from align_keras.data import examples
from align_keras.errors import Place
from align_keras.evaluation import embedding, retrieval

_LANGUAGES = ("en", "de", "fr", "cs")


def open_captions(settings, name):
    """The parallel captions of --data by language, and the images if --images has them."""
    split = settings.split or "test_2016_flickr"
    if not settings.data:
        raise ValueError(f"--data: give Multi30K's folder of {split}.en, {split}.de and others")
    captions = {}
    for language in _LANGUAGES:
        for path in (Path(settings.data) / f"{split}.{language}{end}" for end in ("", ".gz")):
            if path.is_file():
                opener = gzip.open if path.suffix == ".gz" else open
                with opener(path, "rt", encoding="utf-8") as file:
                    captions[language] = [line.strip() for line in file]
    if not captions:
        raise FileNotFoundError(f"--data: no {split}.en, nor another language, in {settings.data}")
    if len({len(lines) for lines in captions.values()}) > 1:
        raise ValueError(f"--data: the files {split}.* of {settings.data} differ in length")
    return captions, open_images(settings, split, len(next(iter(captions.values()))))


def open_images(settings, split, count):
    """The images in the order of the captions; None without --images."""
    if not settings.images:
        return None
    if not settings.captions:
        raise ValueError(
            f"--captions: give the list of the images' names, Multi30K's image_splits/{split}.txt"
        )
    names = Path(settings.captions).read_text("utf-8").split()
    if len(names) != count:
        raise ValueError(f"--captions: {len(names):,} names for {count:,} captions")
    folder = Path(settings.images)
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise FileNotFoundError(f"--images: no {missing[0]} in {folder} ({len(missing):,} missing)")
    return [
        examples.Example(Place(str(folder / name)), name, (folder / name).read_bytes)
        for name in names
    ]


def run(settings, name, model, data, output):
    """The mean recall of each language, and of captions between English and each other."""
    captions, pictures = data
    notes = []
    texts = {own: embedding.embed_texts(model, lines) for own, lines in captions.items()}
    places = np.arange(len(next(iter(texts.values()))))
    metrics, chance = {}, {}
    if pictures:
        images = embedding.embed_images(model.encode_images, pictures, settings.batch_size)
        for language in texts:
            own, by_chance = retrieval.full_metrics(images, texts[language], places)
            metrics[f"mean_recall_{language}"] = own["mean_recall"]
            chance[f"mean_recall_{language}"] = by_chance["mean_recall"]
    else:
        notes.append("no --images: the recalls of images are left out, captions alone are compared")
    for language in [other for other in texts if other != "en" and "en" in texts]:
        own, by_chance = retrieval.full_metrics(texts["en"], texts[language], places)
        metrics[f"text_mean_recall_en_{language}"] = own["mean_recall"]
        chance[f"text_mean_recall_en_{language}"] = by_chance["mean_recall"]
    unknown = model.preprocessor.vocabulary.index("[UNK]")
    for language, lines in captions.items():
        pieces = model.preprocessor.tokenize(lines)
        real = np.array(pieces["padding_mask"]).astype(bool)
        share = float(np.mean(np.array(pieces["token_ids"])[real] == unknown))
        metrics[f"unknown_pieces_{language}"] = share
    title = f"{name}: {len(places):,} captions in each of {', '.join(texts)}"
    return Result("multi30k", title, metrics, chance, [], notes)
