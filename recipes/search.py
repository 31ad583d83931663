r"""Searches images by words and by images: makes an index, asks it, shows it on a page.

    python recipes/search.py index --model=runs/photos --images=PHOTOS --output=INDEX
    python recipes/search.py query "two dogs in the snow" --index=INDEX
    python recipes/search.py query "in blue" --image=dress.jpg --index=INDEX
    python recipes/search.py evaluate --index=INDEX --data=PHOTOS/test.jsonl
    python recipes/search.py serve --index=INDEX

Each command has its own flags: python recipes/search.py query --help.
"""

import os

os.environ["ALIGN_KERAS_IMPORT"] = "lazy"

import align_keras  # noqa: F401, before others: a signal ends their imports in one line

# isort: split
import dataclasses
import sys
import time
from pathlib import Path
from typing import Annotated, Literal

import tqdm
import tyro

from align_keras import paths
from align_keras.data.examples.table_columns import check_data
from align_keras.errors import InputError, concerning
from align_keras.runs import command
from align_keras.search.image_index import (
    MAX_THUMBNAIL_SIZE,
    UNREADABLE,
    ImageIndex,
    model_to_load,
)
from align_keras.search.inverted_lists import PROBES
from align_keras.search.queries import Query, read_image
from align_keras.wording import counted, rate


@dataclasses.dataclass(frozen=True)
class IndexSettings:
    """Embeds images into an index. The same command goes on where it was cut off."""

    model: Annotated[str, paths.PRESET]
    """A preset (a folder, hf://... or kaggle://...), or the directory of a run that has one."""
    images: Annotated[str, paths.DATA]
    """A folder, with all below it; a table (.jsonl, .csv, .tsv, .parquet) with a column image, as
    of prepare_data.py; or a quoted pattern of shards."""
    output: Annotated[str, paths.LOCAL]
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
    """From this many images on, the index is split into lists, and a search opens only a few."""
    lists: int = 0
    """How many. 0: the root of the number of images."""
    restart: bool = False
    """Throw away the index that is there and begin again."""


@dataclasses.dataclass(frozen=True)
class SearchSettings:
    """What every search needs."""

    index: Annotated[str, paths.LOCAL]
    """Folder of the index."""
    model: Annotated[str, paths.PRESET] = ""
    """The model that made the index. Empty: the folder that the index names."""
    exact: bool = False
    """Look at every image even if the index is large."""
    probes: int = PROBES
    """Lists of a large index that a search opens: more find more and take longer."""


@dataclasses.dataclass(frozen=True)
class QuerySettings(SearchSettings):
    """Looks for images by a sentence, an image, or an image changed by a sentence."""

    text: tyro.conf.Positional[str] = ""
    """A sentence; with --image what is added to the image."""
    image: Annotated[str, paths.FILES] = ""
    """An image to look for."""
    weight: float = 2.0
    """Of the sentence beside the image; below 0 what it says is taken away."""
    without: str = ""
    """Words to take away."""
    without_weight: float = 1.0
    """How much of them."""
    results: int = 12
    """Images to find."""
    sheet: Annotated[str, paths.LOCAL] = "search.png"
    """File for the picture of the matches, which is replaced; empty for none."""


@dataclasses.dataclass(frozen=True)
class EvaluateSettings(SearchSettings):
    """Asks the index with captions of its own images: recall as evaluate.py has it."""

    data: Annotated[str, paths.DATA] = tyro.MISSING
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
    """Address to listen on; 0.0.0.0 lets other machines in, :: those with IPv6."""
    port: int = 7860
    """Port to listen on; 0 for any that is free."""
    allowed_host: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """A name by which browsers may call the page, beside --host and localhost; may be repeated."""
    originals: Annotated[str, paths.LOCAL] = ""
    """The indexed folder or table: results then open at full size. Empty: thumbnails only."""


def index(settings):
    """Embeds, with a progress bar; returns the index's ``Header``."""
    from align_keras.data import examples
    from align_keras.runs.presets import check_model, load_model

    most = {"thumbnail_size": MAX_THUMBNAIL_SIZE}
    for name, least in (("batch_size", 1), ("thumbnail_size", 0), ("lists", 0)):
        check_range(settings, name, least, most.get(name))
    # Before TensorFlow loads: missing files are reported at once.
    with concerning("model"):
        check_model(settings.model)
    with concerning("images"):
        source = examples.open_images(settings.images, settings.select)
    with concerning("model"):
        model = load_model(settings.model)
    from align_keras.search import indexing

    start = time.monotonic()
    with tqdm.tqdm(total=source.count, unit="image", disable=None) as bar:

        def show(done, unreadable):
            bar.set_postfix({"unreadable": unreadable} if unreadable else {})
            bar.update(done - bar.n)

        with concerning("images"):
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
        speed = rate(embedded, seconds, "images")
        print(f"{counted(embedded, 'image')} in {seconds:,.0f} s, {speed}")
    search = f"in {counted(header.lists, 'list')}" if header.lists else "searched exactly"
    size = sum(path.stat().st_size for path in Path(settings.output).iterdir())
    print(f"{settings.output}: {counted(header.count, 'image')}, {size / 2**20:,.1f} MiB, {search}")
    if header.unreadable:
        print(f"left out as unreadable: {header.unreadable:,}, in {settings.output}/{UNREADABLE}")
    return header


def open_search(settings, originals=None):
    """An ``ImageSearch``; faults in the index are reported before TensorFlow loads."""
    from align_keras.runs.presets import load_model

    check_range(settings, "probes", 1)
    with concerning("index"):
        opened = ImageIndex(settings.index, settings.exact)
    with concerning("model"):
        model = load_model(model_to_load(opened, settings.model))
        from align_keras.search.image_search import ImageSearch

        return ImageSearch(model, opened, originals)


def query(settings):
    """Finds, prints and draws; returns a list of ``Match``."""
    with concerning("sheet"):
        own, sheet = (paths.path_of(path).resolve() for path in (settings.image, settings.sheet))
        if settings.image and own == sheet:
            raise InputError("the image itself would be written over", remedy="give another")
    with concerning("image"):
        image = read_image(settings.image) if settings.image else b""
    search = open_search(settings)
    asked = Query(settings.text, image, settings.weight, settings.without, settings.without_weight)
    # Whoever made the index chose its names.
    found = [
        dataclasses.replace(
            match, name=command.printable(match.name), caption=command.printable(match.caption)
        )
        for match in search.find(asked, settings.results, settings.probes)
    ]
    for rank, match in enumerate(found, 1):
        print(f"{rank:>4}{match.score:>8.3f}  {match.name}  {match.caption}".rstrip(), flush=True)
    if settings.sheet:
        from align_keras.search.match_sheet import draw_matches

        title = " ".join(filter(None, [Path(settings.image).name, settings.text]))
        title = f"{title} without {settings.without}".strip() if settings.without else title
        with concerning("index"):
            draw_matches(settings.sheet, title, found, image=image)
        print(f"drawn: {settings.sheet}")
    return found


def evaluate(settings):
    """Asks with every caption; returns the ``IndexRecall``."""
    from align_keras.data import examples
    from align_keras.search.recall import measure_recall, read_captions

    with concerning("data"):
        data = examples.open_examples(settings.data, settings.split, "", settings.select)
        captions = read_captions(data)
    search = open_search(settings)
    with concerning("data"):
        found = measure_recall(search, captions, settings.probes)
    from align_keras.evaluation import report

    print(report.format_table(found.title, found.metrics, found.chance, {}))
    print(f"\n{found.milliseconds:.2f} ms a query, all asked together")
    return found


def serve(settings):
    """Shows the page until it is interrupted."""
    from align_keras.search import listening, page_guard
    from align_keras.search.originals import Originals

    page_guard.require_starlette()
    page_guard.allowed_names(settings.allowed_host)
    with concerning("originals"):
        originals = Originals(settings.originals) if settings.originals else None
    # Whoever asks while the model loads is answered once it has.
    with listening.listen(settings.host, settings.port) as listener:
        search = open_search(settings, originals)
        search.index.verify_in_background(tell)
        from align_keras.search import page_server

        page_server.serve(
            search,
            listener,
            settings.host,
            settings.probes,
            settings.allowed_host,
            command.flag_of,
        )


def tell(fault):
    """Prints that a file of the index is damaged; the page goes on."""
    line = command.printable(command.one_line(fault))
    print(f"search.py: --index: {line}", file=sys.stderr, flush=True)


def check_range(settings, name, least, most=None):
    """Raises InputError unless a setting is from ``least`` to ``most``."""
    value = getattr(settings, name)
    if value < least:
        raise InputError(f"must be at least {least}, not {value}", setting=name)
    if most is not None and value > most:
        raise InputError(f"must be at most {most}, not {value}", setting=name)


#: Each command's settings, and what does it.
COMMANDS = {
    "index": (IndexSettings, index),
    "query": (QuerySettings, query),
    "evaluate": (EvaluateSettings, evaluate),
    "serve": (ServeSettings, serve),
}


def main(settings):
    """Runs the command; returns its result."""
    return dict(COMMANDS.values())[type(settings)](settings)


def parse():
    """Reads the flags of the command that is typed.

    Checks the columns of a table, before TensorFlow loads.
    """
    commands = {name: settings for name, (settings, _) in COMMANDS.items()}
    settings = command.parse_command(commands, description=__doc__)
    if isinstance(settings, ServeSettings):
        # TensorFlow reads it once, as it loads. Else it keeps what the largest images took.
        os.environ.setdefault("TF_ONEDNN_USE_SYSTEM_ALLOCATOR", "1")
    for field, needs in (("images", ""), ("data", "captions")):
        if hasattr(settings, field):
            with concerning(field):
                check_data(getattr(settings, field), settings.select, needs)
    return settings


if __name__ == "__main__":
    command.run("search.py", parse, main)
