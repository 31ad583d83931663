"""The task of ``evaluate.py`` on Crisscrossed Captions: correlations and four retrievals."""

import json
from pathlib import Path

import numpy as np
from evaluation_data import Result

from align_keras.data import examples
from align_keras.errors import Place
from align_keras.evaluation import crisscrossed, embedding, retrieval


def open_judgements(settings, name):
    """The judgements of --data, the captions of --captions, the images there are of --images."""
    if not settings.data:
        raise ValueError("--data: give the folder of sts_test.csv, sis_test.csv and sits_test.csv")
    split = settings.split or "test"
    judgements = {
        kind: crisscrossed.read_judgements(settings.data, kind, split)
        for kind in ("sts", "sis", "sits")
    }
    caption_ids = np.unique(np.concatenate([*judgements["sts"][:2], judgements["sits"][0]]))
    image_ids = np.unique(np.concatenate([*judgements["sis"][:2], judgements["sits"][1]]))
    captions = read_coco_captions(settings.captions) if settings.captions else {}
    captions = {own: captions[own] for own in caption_ids.tolist() if own in captions}
    files = find_coco_images(settings.images) if settings.images else {}
    files = {own: files[own] for own in image_ids.tolist() if own in files}
    if not captions and not files:
        raise ValueError(
            f"--captions and --images: {len(caption_ids):,} captions and {len(image_ids):,} images "
            "of COCO are judged, and none is there; give captions_val2014.json or "
            "dataset_coco.json, and the folder val2014"
        )
    return judgements, captions, files, (len(caption_ids), len(image_ids))


def read_coco_captions(path):
    """Captions of COCO's annotations or Karpathy's file: ``{id: (image id, text)}``."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"--captions: no file {path}")
    try:
        table = json.loads(Path(path).read_bytes())
        if "annotations" in table:
            rows = [(row["id"], row["image_id"], row["caption"]) for row in table["annotations"]]
        else:
            rows = [
                (sentence["sentid"], row["cocoid"], sentence["raw"])
                for row in table["images"]
                for sentence in row["sentences"]
            ]
    except (ValueError, KeyError, TypeError):
        raise ValueError(
            f"--captions: {path} is neither COCO's captions_val2014.json nor dataset_coco.json"
        ) from None
    return {own: (image, text.strip()) for own, image, text in rows}


def find_coco_images(folder):
    """The files of a folder by COCO's number: ``{391895: .../COCO_val2014_000000391895.jpg}``."""
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"--images: no folder {folder}")
    return {crisscrossed.coco_id(path.name): path for path in Path(folder).glob("*[0-9].jpg")}


def run(settings, name, model, data, output):
    """Correlations with people's judgements, and retrieval with the pairs that they found right."""
    judgements, captions, files, totals = data
    embedded, notes = {}, []
    if captions:
        texts = embedding.embed_texts(model, [text for _, text in captions.values()])
        embedded["t"] = np.array(list(captions)), texts
    else:
        notes.append("no --captions: STS, SITS and all retrieval but image to image are left out")
    if files:
        pictures = [
            examples.Example(Place(str(path)), path.name, path.read_bytes)
            for path in files.values()
        ]
        images = embedding.embed_images(model.encode_images, pictures, settings.batch_size)
        embedded["i"] = np.array(list(files)), images
    else:
        notes.append("no --images: SIS, SITS and all retrieval but text to text are left out")
    metrics, chance = {}, {}
    for kind, ways in (("sts", "tt"), ("sis", "ii"), ("sits", "ti")):
        if set(ways) <= embedded.keys():
            try:
                figures = correlation(judgements[kind], [embedded[way] for way in ways], settings)
            except ValueError as error:
                notes.append(f"{kind.upper()} is left out: {error}")
                continue
            metrics |= {f"{kind}_spearman{end}": value for end, value in figures.items()}
            chance[f"{kind}_spearman"] = 0.0
    for way in ("i2t", "t2i", "t2t", "i2i"):
        if {way[0], way[2]} <= embedded.keys():
            positives = right_answers(way, judgements, captions, embedded)
            figures = recalls_among(embedded[way[0]][1], embedded[way[2]][1], positives, way)
            metrics, chance = metrics | figures[0], chance | figures[1]
    title = (
        f"{name}: {len(captions):,} of {totals[0]:,} captions, {len(files):,} of {totals[1]:,} "
        "images"
    )
    return Result("crisscrossed", title, metrics, chance, [], notes)


def correlation(judgements, embedded, settings):
    """Spearman's correlation over the judged pairs that are there, and its deviation."""
    first, second, scores = judgements
    (first_ids, first_embeddings), (second_ids, second_embeddings) = embedded
    there = np.isin(first, first_ids) & np.isin(second, second_ids)
    # The ids are sorted, as they were made.
    rows = np.searchsorted(first_ids, first[there])
    columns = np.searchsorted(second_ids, second[there])
    similarities = np.sum(first_embeddings[rows] * second_embeddings[columns], axis=1)
    mean, deviation = crisscrossed.bootstrap_correlation(
        first[there], similarities, scores[there], settings.bootstrap_samples, settings.seed
    )
    return {"": mean, "_deviation": deviation, "_pairs": int(there.sum())}


def right_answers(way, judgements, captions, embedded):
    """The places of each query's right answers.

    Between a caption and an image the pairs judged 3 or more, the original ones among them;
    between two captions also those of one image; between two images the judged ones alone.
    """
    queries, keys = embedded[way[0]][0], embedded[way[2]][0]
    if way in ("i2t", "t2i"):
        caption, image, scores = judgements["sits"]
        pair = (caption, image) if way == "t2i" else (image, caption)
        return crisscrossed.positive_places(*pair, scores, queries, keys)
    first, second, scores = judgements["sts" if way == "t2t" else "sis"]
    both = np.concatenate([first, second]), np.concatenate([second, first])
    scores = np.concatenate([scores, scores])
    places = crisscrossed.positive_places(*both, scores, queries, keys)
    if way == "t2t":
        of_image = {}
        for place, (image, _) in enumerate(captions.values()):
            of_image.setdefault(image, []).append(place)
        images = [image for image, _ in captions.values()]
        places = [
            sorted({*own, *of_image[image]} - {place})
            for place, (own, image) in enumerate(zip(places, images, strict=True))
        ]
    return places


def recalls_among(queries, keys, positives, way):
    """Recalls of the queries that have a right answer, and their chance."""
    is_same = way[0] == way[2]
    ranks = retrieval.ranks_among_positives(queries, keys, positives, is_same)
    answered = ranks >= 0
    if not answered.any():
        return {}, {}
    counts = np.array([len(own) for own in positives])[answered]
    numbers = {k: f"{way}_recall@{k}" for k in retrieval.RECALL_AT}
    candidates = len(keys) - is_same
    return (
        {own: retrieval.recall_at_k(ranks[answered], k) for k, own in numbers.items()},
        {own: retrieval.chance_recall_at_k(candidates, counts, k) for k, own in numbers.items()},
    )
