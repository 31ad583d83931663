"""The names and titles of metrics, for logs, tables and JSON.

``i2t``: In ``i2t``, images are queries and texts are retrieved; in ``t2i``, the reverse.
"""

from collections.abc import Mapping
from typing import Any

#: The ranks at which recall is reported.
RECALL_AT = (1, 5, 10)
_WAYS = {
    "i2t": "image to text",
    "t2i": "text to image",
    "t2t": "text to text",
    "i2i": "image to image",
}
#: Metrics that a run reports on held-out pairs.
RECALLS = tuple(f"{way}_recall_at_{k}" for way in ("i2t", "t2i") for k in RECALL_AT)
#: Metrics that a run reports on held-out pairs with class names.
ACCURACIES = ("zero_shot_top_1", "zero_shot_unseen_top_1")
TITLES = {
    **{f"{way}_recall_at_{k}": f"{title} R@{k}" for way, title in _WAYS.items() for k in RECALL_AT},
    "mean_recall": "mean recall",
    "i2t_median_rank": "image to text median rank",
    "t2i_median_rank": "text to image median rank",
    "top_1": "top-1",
    "top_5": "top-5",
    "mean_per_class": "mean per-class accuracy",
    "zero_shot_top_1": "zero-shot top-1",
    "zero_shot_unseen_top_1": "zero-shot top-1, unseen classes",
    **{f"knn_recall_at_{k}": f"nearest neighbours R@{k}" for k in RECALL_AT},
    "sts_spearman": "STS, two captions",
    "sis_spearman": "SIS, two images",
    "sits_spearman": "SITS, caption and image",
}
# CLIP_benchmark calls it "text retrieval" if the queries are images, and "image retrieval" if they
# are texts.
_CLIP_BENCHMARK = {
    **{f"i2t_recall_at_{k}": f"text_retrieval_recall@{k}" for k in RECALL_AT},
    **{f"t2i_recall_at_{k}": f"image_retrieval_recall@{k}" for k in RECALL_AT},
    "i2t_median_rank": "text_retrieval_median_rank",
    "t2i_median_rank": "image_retrieval_median_rank",
    "top_1": "acc1",
    "top_5": "acc5",
    "mean_per_class": "mean_per_class_recall",
}


def title_of(name: str) -> str:
    """The title of a metric; else its name without underscores, as for ``mean_recall_de``."""
    return TITLES.get(name) or name.replace("_", " ")


def json_names(values: Mapping[str, Any], task: str) -> dict[str, Any]:
    """Metrics under the names used in result files.

    Args:
        values: values by the names in this module.
        task: CLIP_benchmark's name of the task. If CLIP_benchmark has the task, its metric names
            are used. Recalls of other tasks, such as ``crisscrossed``, are called ``i2t_recall@1``.
    """
    names = {} if task == "crisscrossed" else _CLIP_BENCHMARK
    return {
        names.get(name) or name.replace("_recall_at_", "_recall@"): value
        for name, value in values.items()
    }


def names_of_json(values: Mapping[str, Any], task: str) -> dict[str, Any]:
    """The inverse of ``json_names``: metrics of a result file under the names in this module."""
    names = {} if task == "crisscrossed" else {own: name for name, own in _CLIP_BENCHMARK.items()}
    return {
        names.get(name) or name.replace("_recall@", "_recall_at_"): value
        for name, value in values.items()
    }


def chief(metrics: Mapping[str, Any]) -> list[str]:
    """The main metrics of a task, for a table of many tasks: the strictest ones."""
    found = [
        own for own in metrics if own.endswith(("_at_1", "top_1", "spearman", "accuracy", "score"))
    ]
    return found or [own for own in metrics if not own.startswith("unknown")]
