"""The task of ``evaluate.py`` that searches images by captions and captions by images."""

import numpy as np
from evaluation_data import Result, pictures_of, some_right_and_wrong

from align_keras.evaluation import data_sets, embedding, report, retrieval, sheets


def run(settings, name, model, data, output):
    """Recalls of both directions, median ranks and mean recall; a sheet of what is found."""
    pairs = embedding.embed_pairs(model, data, settings.batch_size)
    values = pairs.images, pairs.texts, pairs.image_of_text
    metrics, chance = retrieval.full_metrics(*values)
    fold_size = settings.fold_size or data_sets.DATA_SETS.get(name, data_sets.DataSet()).fold_size
    notes, folds = [], {}
    if fold_size and len(pairs.images) >= 2 * fold_size:
        folds, fold_chance = retrieval.full_metrics(*values, fold_size)
        notes.append(
            report.format_table(
                f"mean over folds of {fold_size:,} images",
                report.clip_benchmark_names(folds),
                report.clip_benchmark_names(fold_chance),
                {},
            )
        )
    draw_retrievals(output / f"retrieval-{name}.png", pairs, data, model.preprocessor)
    return Result(
        "zeroshot_retrieval",
        f"{name}: {len(pairs.images):,} images, {len(pairs.texts):,} captions",
        report.clip_benchmark_names(metrics),
        report.clip_benchmark_names(chance),
        [f"retrieval-{name}.png"],
        notes,
        {"folds": report.clip_benchmark_names(folds)} if folds else {},
    )


def draw_retrievals(path, pairs, data, preprocessor, rows=8, columns=6):
    """Captions whose image comes first, then captions whose does not, with what is found."""
    ranks = retrieval.best_positive_ranks(
        pairs.texts, pairs.images, pairs.image_of_text, np.arange(len(pairs.images))
    )
    asked = some_right_and_wrong(ranks == 0, rows)
    columns = min(columns, len(pairs.images))
    scores = pairs.texts[asked] @ pairs.images.T
    best = np.argsort(-scores, axis=1)[:, :columns]
    pictures = pictures_of(data, best, preprocessor)
    path.parent.mkdir(parents=True, exist_ok=True)
    sheets.draw_retrievals(
        path,
        [f"{pairs.captions[row]}\n[its image: rank {ranks[row] + 1}]" for row in asked],
        pictures.reshape(*best.shape, *pictures.shape[1:]),
        best == pairs.image_of_text[asked][:, None],
        np.take_along_axis(scores, best, axis=1),
    )
