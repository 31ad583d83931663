r"""Searches images by words and by images: makes an index, asks it, shows it on a page.

python recipes/search.py index --model=runs/photos --images=PHOTOS --output=INDEX
python recipes/search.py query "two dogs in the snow" --index=INDEX
python recipes/search.py query "in blue" --image=dress.jpg --index=INDEX
python recipes/search.py evaluate --index=INDEX --data=PHOTOS/test.jsonl
python recipes/search.py serve --index=INDEX
"""

import dataclasses
import io
import sys
import time
from pathlib import Path
from typing import Literal

from quiet_tensorflow import load_quietly

load_quietly()

import numpy as np
import tqdm
import tyro
from PIL import Image
from run_presets import load_model

from align_keras.data import examples
from align_keras.data.examples import image_files
from align_keras.errors import InputError, concerning
from align_keras.evaluation import embedding, report, retrieval, sheets
from align_keras.search import indexing, inverted_lists
from align_keras.search.image_index import MAX_THUMBNAIL_SIZE, UNREADABLE, ImageIndex
from align_keras.search.image_search import ImageSearch, Query

# What recall is looked at among; more than 10, so that ties at the tenth place are seen.
_RANKED = 50


@dataclasses.dataclass(frozen=True)
class IndexSettings:
    """Embeds images into an index. The same command goes on where it was cut off."""

    model: str
    """A preset (a folder, hf://... or kaggle://...), or the directory of a run that has one."""
    images: str
    """A folder, with all below it; a table (.jsonl, .csv, .tsv, .parquet) with a column image, as
    of prepare_data.py; or a quoted pattern of shards."""
    output: str
    """Folder of the index."""
    select: tuple[str, ...] = ()
    """Keep only the rows of a table with these values, as in: --select split=test."""
    batch_size: int = 64
    """Images embedded at a time."""
    precision: Literal["float32", "float16"] = "float32"
    """Of the embeddings on disk; float16 takes half of the space."""
    thumbnail_size: int = 192
    """Longer side of the pictures that the index keeps to show, pixels; 0 for none."""
    exact_below: int = 100_000
    """From so many images on the index is divided into lists, of which a search opens a few."""
    lists: int = 0
    """How many. 0: the root of the number of images."""
    restart: bool = False
    """Throw away the index that is there and begin again."""

    def check(self):
        """Raises a ValueError that names the flag on what cannot be."""
        for name, least in (("batch_size", 1), ("thumbnail_size", 0), ("lists", 0)):
            if getattr(self, name) < least:
                flag = name.replace("_", "-")
                raise ValueError(f"--{flag}: must be at least {least}, not {getattr(self, name)}")
        if self.thumbnail_size > MAX_THUMBNAIL_SIZE:
            raise ValueError(f"--thumbnail-size: must be at most {MAX_THUMBNAIL_SIZE}")


@dataclasses.dataclass(frozen=True)
class SearchSettings:
    """What every search needs."""

    index: str
    """Folder of the index."""
    model: str = ""
    """The model that made the index. Empty: the folder that the index names."""
    exact: bool = False
    """Look at every image even if the index is large."""
    probes: int = inverted_lists.PROBES
    """Lists of a large index that a search opens: more find more and take longer."""

    def open(self):
        """An ``ImageSearch``; what is wrong with the index is told before a model is loaded."""
        if self.probes < 1:
            raise ValueError(f"--probes: must be at least 1, not {self.probes}")
        index = ImageIndex(self.index, self.exact)
        named = index.header.model
        if not self.model and "://" in named:
            # An index may come from elsewhere: what it names is not fetched unasked.
            raise ValueError(f"--model: the index names {named}; to fetch it add --model={named}")
        return ImageSearch(load_model(self.model or named), index)


@dataclasses.dataclass(frozen=True)
class QuerySettings(SearchSettings):
    """Looks for images by a sentence, an image, or an image changed by a sentence."""

    text: tyro.conf.Positional[str] = ""
    """A sentence; with --image what is added to the image."""
    image: str = ""
    """An image to look for."""
    weight: float = 2.0
    """Of the sentence beside the image; below 0 what it says is taken away."""
    without: str = ""
    """Words to take away."""
    without_weight: float = 1.0
    """How much of them."""
    results: int = 12
    """Images to find."""
    sheet: str = "search.png"
    """The picture of what was found; empty for none."""


@dataclasses.dataclass(frozen=True)
class EvaluateSettings(SearchSettings):
    """Asks the index with captions of its own images: recall as evaluate.py has it."""

    data: str = tyro.MISSING
    """A table with the columns image and captions, Karpathy's .json or a pattern of shards: the
    images of the index, all of them."""
    split: str = ""
    """As of evaluate.py."""
    select: tuple[str, ...] = ()
    """As of evaluate.py."""


@dataclasses.dataclass(frozen=True)
class ServeSettings(SearchSettings):
    """Shows a page to search on, until interrupted."""

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 lets other machines in."""
    port: int = 7860
    """Port to listen on; 0 for any that is free."""


def main(settings):
    """Does what a subcommand says; returns what it found."""
    return COMMANDS[type(settings)](settings)


def index(settings):
    """Embeds, with a progress bar; returns the index's ``Header``."""
    settings.check()
    # What is wrong with the images is told before a model is loaded.
    with concerning("images"):
        source = examples.open_images(settings.images, settings.select)
    model = load_model(settings.model)
    start = time.monotonic()
    with tqdm.tqdm(total=source.count, unit="image", disable=None) as bar:

        def show(done, unreadable):
            bar.set_postfix({"unreadable": unreadable} if unreadable else {})
            bar.update(done - bar.n)

        header, embedded = indexing.build_index(
            model,
            source,
            settings.output,
            model_name=settings.model,
            images_name=settings.images,
            batch_size=settings.batch_size,
            precision=settings.precision,
            thumbnail_size=settings.thumbnail_size,
            exact_below=settings.exact_below,
            num_lists=settings.lists,
            restart=settings.restart,
            progress=show,
        )
    seconds = time.monotonic() - start
    if embedded:
        print(f"{embedded:,} images in {seconds:,.0f} s, {embedded / seconds:,.0f} images/s")
    search = f"in {header.lists:,} lists" if header.lists else "searched exactly"
    size = sum(path.stat().st_size for path in Path(settings.output).iterdir())
    print(f"{settings.output}: {header.count:,} images, {size / 2**20:,.1f} MiB, {search}")
    if header.unreadable:
        print(f"left out as unreadable: {header.unreadable:,}, in {settings.output}/{UNREADABLE}")
    return header


def query(settings):
    """Finds, prints and draws; returns a list of ``Match``."""
    search = settings.open()
    asked = Query(
        settings.text,
        read_image(settings.image) if settings.image else b"",
        settings.weight,
        settings.without,
        settings.without_weight,
    )
    found = search.find(asked, settings.results, settings.probes)
    for rank, match in enumerate(found, 1):
        names = printable(f"{match.name}  {match.caption}".rstrip())
        print(f"{rank:>4}{match.score:>8.3f}  {names}")
    if settings.sheet:
        title = " ".join(filter(None, [Path(settings.image).name, settings.text]))
        title += f" without {settings.without}" if settings.without else ""
        draw(settings.sheet, title, found)
        print(f"drawn: {settings.sheet}")
    return found


def evaluate(settings):
    """Asks with every caption; returns the recalls, text to image, under evaluate.py's names."""
    try:
        data = examples.open_examples(settings.data, settings.split, "", settings.select)
        captions = [(own.image_id, caption) for own in data for caption in own.captions]
    except InputError as error:
        error.setting = error.setting or "data"
        raise
    search = settings.open()
    index = search.index
    place_of = {index.label(place).name: place for place in range(len(index))}
    right = [place_of.get(name.removeprefix("/")) for name, _ in captions]
    if None in right or set(right) != set(place_of.values()):
        raise ValueError("--data: its images are not those of the index; give what it was made of")
    queries = embedding.embed_texts(search.model, [caption for _, caption in captions])
    start = time.monotonic()
    places, scores = index.search(queries, _RANKED, settings.probes)
    seconds = time.monotonic() - start
    is_right = places == np.array(right)[:, None]
    # As in evaluate.py a tie is lost.
    own = np.where(is_right, scores, -np.inf).max(1, keepdims=True)
    ranks = np.where(is_right.any(1), (scores >= own).sum(1) - 1, len(index))
    metrics = {
        f"image_retrieval_recall@{k}": retrieval.recall_at_k(ranks, k) for k in retrieval.RECALL_AT
    }
    chance = {name: k / len(index) for name, k in zip(metrics, retrieval.RECALL_AT, strict=True)}
    way = "approximate" if index.is_approximate else "exact"
    title = f"{len(index):,} images, {len(queries):,} captions, {way}"
    print(report.format_table(title, metrics, chance, {}))
    print(f"\n{1000 * seconds / len(queries):.2f} ms a query, all asked together")
    return metrics


def serve(settings):
    """Shows the page until it is interrupted."""
    from align_keras.search import page

    page.require_starlette()
    page.serve(settings.open(), settings.host, settings.port, settings.probes)


COMMANDS = {
    IndexSettings: index,
    QuerySettings: query,
    EvaluateSettings: evaluate,
    ServeSettings: serve,
}


def read_image(path):
    """The bytes of ``--image``."""
    try:
        return image_files.read_file(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"--image: {path}: {reason}") from None


def printable(text):
    """A text in one line that does not steer the terminal, whoever made the index."""
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text
    )


def draw(path, title, found):
    """Draws the sheet of what was found; images without a thumbnail are white."""
    pictures = []
    for match in found:
        picture = Image.new("RGB", (1, 1), "white")
        if match.thumbnail:
            picture = Image.open(io.BytesIO(match.thumbnail))
            if max(picture.size) > MAX_THUMBNAIL_SIZE:
                raise ValueError(f"--index: the thumbnail of {printable(match.name)} is too large")
        pictures.append(picture)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    names = [printable(match.caption or match.name) for match in found]
    sheets.draw_matches(path, title, pictures, names, [match.score for match in found])


def parse_settings(arguments=None):
    """The settings of the subcommand that is typed."""
    commands = {
        "index": IndexSettings,
        "query": QuerySettings,
        "evaluate": EvaluateSettings,
        "serve": ServeSettings,
    }
    return tyro.extras.subcommand_cli_from_dict(commands, description=__doc__, args=arguments)


if __name__ == "__main__":
    try:
        main(parse_settings())
    except (ValueError, OSError) as error:
        sys.exit(f"search.py: {printable(' '.join(str(error).splitlines()))}")
    except KeyboardInterrupt:
        sys.exit("search.py: interrupted")
