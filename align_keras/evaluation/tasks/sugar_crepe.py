"""SugarCrepe (Hsieh et al., 2023): is an image nearer to its true caption than to a wrong one?"""

import dataclasses
import json
import zlib
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from align_keras import files, lazy, paths
from align_keras.data.examples.example import caption_fault
from align_keras.errors import InputError, MissingInputError, Place, concerning
from align_keras.evaluation.tasks.data import image_file, images_in
from align_keras.evaluation.tasks.result import Result, query_digest
from align_keras.paths import AnyPath
from align_keras.wording import counted

if TYPE_CHECKING:
    from align_keras.evaluation import embedding
else:
    embedding = lazy.Module("align_keras.evaluation.embedding")

#: How the wrong captions were made; also the names of the files.
KINDS = ("add_att", "add_obj", "replace_att", "replace_obj", "replace_rel", "swap_att", "swap_obj")


@dataclasses.dataclass(frozen=True)
class Choices:
    """Images that were found, each with a right and a wrong caption."""

    rows: list[tuple[str, str, str, str]]
    """``(kind, name of the image, caption, wrong caption)``."""
    files: dict[str, AnyPath]
    """Image files by name, in the order of ``rows``."""
    num_rows: int
    """Number of all rows, including those whose image was not found."""


@dataclasses.dataclass(frozen=True)
class SugarCrepe:
    """The fraction of images nearer to the right of two captions, by kind and their mean."""

    kind: ClassVar[str] = "sugar_crepe"
    name: str = "sugar_crepe"
    data: str = ""
    """The folder with ``add_att.json`` and so on, plain or ``.gz``."""
    images: str = ""
    """The folder of COCO's val2017."""
    batch_size: int = 64

    def open(self) -> Choices:
        """Reads the captions and locates the images; raises InputError if there are none."""
        with concerning("data"):
            rows = read_choices(self.data)
        with concerning("images"):
            if not self.images:
                raise MissingInputError("give the folder of COCO's val2017")
            found = images_in(self.images, (name for _, name, _, _ in rows), "SugarCrepe")
        return Choices([row for row in rows if row[1] in found], found, len(rows))

    def run(self, model: Any, data: Choices, output: AnyPath) -> Result:
        """Embeds the images and both captions of each image."""
        with concerning("images"):
            images = embedding.embed_images(
                model.encode_images,
                embedding.watched([image_file(path) for path in data.files.values()]),
                model.preprocessor,
                self.batch_size,
            )
        places = {name: place for place, name in enumerate(data.files)}
        of_row = np.array([places[name] for _, name, _, _ in data.rows])
        texts = embedding.embed_texts(model, [text for row in data.rows for text in row[2:]])
        right, wrong = (np.sum(images[of_row] * own, axis=1) for own in (texts[::2], texts[1::2]))
        # A tie counts as wrong.
        hits = right > wrong
        kinds = np.array([row[0] for row in data.rows])
        result = Result(
            "sugar_crepe",
            f"{self.name}: {len(data.rows):,} of {counted(data.num_rows, 'choice')}, "
            f"{counted(len(images), 'image')}",
            {},
            {},
            outcomes={"queries": query_digest(data.rows)},
        )
        for kind in dict.fromkeys(kinds.tolist()):
            own = f"{kind}_accuracy"
            result.metrics[own] = float(np.mean(hits[kinds == kind]))
            result.outcomes |= {own: hits[kinds == kind], f"{own}_group": of_row[kinds == kind]}
        result.metrics["mean_accuracy"] = float(np.mean(list(result.metrics.values())))
        result.chance = dict.fromkeys(result.metrics, 0.5)
        return result


def read_choices(folder: str) -> list[tuple[str, str, str, str]]:
    """The rows of ``add_att.json`` and so on, as in ``Choices.rows``.

    Raises:
        MissingInputError: if a file does not exist.
        InputError: if a file has another format.
    """
    if not folder:
        raise InputError("give SugarCrepe's folder of add_att.json, swap_obj.json and others")
    rows = []
    for kind in KINDS:
        plain = paths.path_of(folder) / f"{kind}.json"
        found = [path for path in (plain, plain.with_name(f"{plain.name}.gz")) if path.is_file()]
        if not found:
            raise MissingInputError(f"no {plain.name} or {plain.name}.gz", Place(folder))
        place = Place(str(found[0]))
        try:
            with files.opened(found[0], encoding="utf-8") as file:
                table = json.load(file)
            own = [
                (kind, row["filename"], row["caption"], row["negative_caption"])
                for row in table.values()
            ]
        except (ValueError, KeyError, TypeError, AttributeError, EOFError, OSError, zlib.error):
            raise InputError("not a file of SugarCrepe", place, "download it again") from None
        for _, name, *texts in own:
            if fault := next(filter(None, map(caption_fault, texts)), None):
                raise InputError(fault, dataclasses.replace(place, row=str(name)))
        rows += own
    return rows
