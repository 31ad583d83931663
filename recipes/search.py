r"""Searches images by text and by image: builds an index, answers queries and serves a web page.

    python recipes/search.py index --model=runs/photos --images=PHOTOS \
        --output=INDEX
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
import time
from pathlib import Path
from typing import Annotated, Literal

import tyro

from align_keras import paths, progress
from align_keras.data.examples.table_columns import check_data
from align_keras.errors import InputError, concerning
from align_keras.runs import command, next_steps
from align_keras.search.image_index import (
    MAX_THUMBNAIL_SIZE,
    UNREADABLE,
    ImageIndex,
    model_to_load,
)
from align_keras.search.inverted_lists import PROBES
from align_keras.search.queries import Query, checked_texts, read_image
from align_keras.wording import counted, rate


@dataclasses.dataclass(frozen=True)
class IndexSettings:
    """Embeds images into an index. If interrupted, the same command continues."""

    model: Annotated[str, paths.PRESET]
    """A preset (a folder, hf://... or kaggle://...), or the directory of a run that has saved a
    preset.
    """
    images: Annotated[str, paths.DATA]
    """Images to index: a folder, with all its subfolders; a table (.jsonl, .csv, .tsv, .parquet)
    with a column image, as for prepare_data.py; or a quoted pattern of shards."""
    output: Annotated[str, paths.LOCAL]
    """Folder of the index."""
    select: tuple[str, ...] = ()
    """Use only the table rows with these values, such as --select split=test."""
    batch_size: int = 64
    """Number of images in a batch."""
    runtime: Literal["tensorflow", "litert"] = "tensorflow"
    """Library that computes the embeddings. litert is faster on a CPU, but needs pip install
    'align-keras[litert]' and some seconds to convert the model.
    """
    precision: Literal["float32", "float16"] = "float32"
    """Data type of the embeddings on disk; float16 takes half the space."""
    thumbnail_size: int = 192
    """Longer side, in pixels, of the thumbnails that the index keeps. 0: no thumbnails."""
    exact_below: int = 100_000
    """Indexes with fewer images than this are searched completely. Larger indexes are split into
    lists, and a search opens only some of the lists (--probes).
    """
    lists: int = 0
    """Number of lists in a large index. 0: the square root of the number of images."""
    restart: bool = False
    """Delete the existing index and start again."""


@dataclasses.dataclass(frozen=True)
class SearchSettings:
    """Settings of every search."""

    index: Annotated[str, paths.LOCAL]
    """Folder of the index."""
    model: Annotated[str, paths.PRESET] = ""
    """The model that made the index. Empty: the folder stored in the index. If a web address is
    stored there instead, this flag is required.
    """
    exact: bool = False
    """Compare the query with every image, even if the index is large."""
    probes: int = PROBES
    """Number of lists that a search opens in a large index. With more lists, a search finds more
    matches but takes longer.
    """
    runtime: Literal["tensorflow", "litert"] = "tensorflow"
    """Library that computes the embeddings. litert is faster on a CPU, but needs pip install
    'align-keras[litert]' and some seconds to convert the model.
    """


@dataclasses.dataclass(frozen=True)
class QuerySettings(SearchSettings):
    """Finds images by a sentence, by an image, or by an image modified by a sentence."""

    text: tyro.conf.Positional[str] = ""
    """A sentence that describes the image. With --image: a sentence that describes the change to
    that image.
    """
    image: Annotated[str, paths.FILES] = ""
    """An image file, for which similar images are found."""
    weight: float = 2.0
    """Weight of the sentence relative to --image. Below 0, the sentence is subtracted."""
    without: str = ""
    """Words to subtract from the query."""
    without_weight: float = 1.0
    """Weight of the words in --without."""
    results: int = 12
    """Number of images to find."""
    sheet: Annotated[str, paths.LOCAL] = "search.png"
    """File for a picture of the matches; an existing file is replaced. Empty: no picture."""


@dataclasses.dataclass(frozen=True)
class EvaluateSettings(SearchSettings):
    """Queries the index with the captions of its images; measures recall as evaluate.py does."""

    data: Annotated[str, paths.DATA] = tyro.MISSING
    """All images of the index, with captions: a table with the columns image and captions,
    Karpathy's .json, or a quoted pattern of shards.
    """
    split: str = ""
    """Split of --data: a split of Karpathy's file, or a value in the column split of the table."""
    select: tuple[str, ...] = ()
    """Use only the table rows with these values, such as --select split=test."""


@dataclasses.dataclass(frozen=True)
class ServeSettings(SearchSettings):
    """Serves a web page for searching until it is interrupted."""

    host: str = "127.0.0.1"
    """Address to listen on. Other machines are accepted with 0.0.0.0 (IPv4), or :: (also IPv6)."""
    port: int = 7860
    """Port to listen on. 0: any free port."""
    allowed_host: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Another host name under which browsers may open the page, in addition to --host and
    localhost. May be repeated.
    """
    originals: Annotated[str, paths.LOCAL] = ""
    """The folder or table that was indexed. Results then open at full size. Empty: thumbnails only.
    """


def index(settings):
    """Embeds the images, with a progress bar; returns the ``Header`` of the index."""
    from align_keras.data import examples
    from align_keras.runs.presets import check_model, load_model

    most = {"thumbnail_size": MAX_THUMBNAIL_SIZE}
    for name, least in (("batch_size", 1), ("thumbnail_size", 0), ("lists", 0)):
        check_range(settings, name, least, most.get(name))
    # This check runs before TensorFlow loads, so that missing files are reported at once.
    with concerning("model"):
        check_model(settings.model)
    with concerning("images"):
        source = examples.open_images(settings.images, settings.select)
    with concerning("model"):
        model = load_model(settings.model, settings.runtime)
    from align_keras.search import indexing

    start = time.monotonic()
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
        )
    seconds = time.monotonic() - start
    if embedded:
        speed = rate(embedded, seconds, "images")
        print(f"{counted(embedded, 'image')} in {seconds:,.0f} s, {speed}")
    search = f"in {counted(header.lists, 'list')}" if header.lists else "searched exactly"
    size = sum(path.stat().st_size for path in Path(settings.output).iterdir())
    print(f"{settings.output}: {counted(header.count, 'image')}, {size / 2**20:,.1f} MiB, {search}")
    if header.unreadable:
        unreadable = counted(header.unreadable, "unreadable image")
        print(f"{unreadable} left out; {settings.output}/{UNREADABLE} lists them")
    next_steps.show(
        next_steps.recipe("search.py", "query", "two dogs in the snow", index=settings.output),
        next_steps.recipe("search.py", "serve", index=settings.output),
    )
    return header


def open_search(settings, originals=None):
    """Returns an ``ImageSearch``; faults in the index are reported before TensorFlow loads."""
    from align_keras.runs.presets import load_model

    check_range(settings, "probes", 1)
    with concerning("index"):
        opened = ImageIndex(settings.index, settings.exact)
    with concerning("model"):
        model = load_model(model_to_load(opened, settings.model), settings.runtime)
        from align_keras.search.image_search import ImageSearch

        return ImageSearch(model, opened, originals)


def query(settings):
    """Finds images, prints them and draws them; returns a list of ``Match``."""
    with concerning("sheet"):
        own, sheet = (paths.path_of(path).resolve() for path in (settings.image, settings.sheet))
        if settings.image and own == sheet:
            raise InputError("the query image would be overwritten", remedy="give another file")
    with concerning("image"):
        image = read_image(settings.image) if settings.image else b""
    asked = Query(settings.text, image, settings.weight, settings.without, settings.without_weight)
    if isinstance(fault := checked_texts(asked), InputError):
        raise fault
    search = open_search(settings)
    # The names come from the index, which may be untrusted.
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
    """Queries the index with every caption; returns the ``IndexRecall``."""
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
    print(f"\n{found.milliseconds:.2f} ms per query, all queries together")
    return found


def serve(settings):
    """Serves the page until it is interrupted."""
    from align_keras.search import listening, page_guard
    from align_keras.search.originals import Originals

    page_guard.require_starlette()
    page_guard.allowed_names(settings.allowed_host)
    with concerning("originals"):
        originals = Originals(settings.originals) if settings.originals else None
    # Requests that arrive while the model loads are answered afterwards.
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
    """Prints that a file of the index is damaged; the server keeps running."""
    line = command.printable(command.one_line(fault))
    progress.tell(f"search.py: --index: {line}")


def check_range(settings, name, least, most=None):
    """Raises InputError unless a setting is from ``least`` to ``most``."""
    value = getattr(settings, name)
    if value < least:
        raise InputError(f"must be at least {least}, not {value}", setting=name)
    if most is not None and value > most:
        raise InputError(f"must be at most {most}, not {value}", setting=name)


#: The settings class and the function of each command.
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
    """Reads the flags of the given command.

    Checks the columns of a table before TensorFlow loads.
    """
    commands = {name: settings for name, (settings, _) in COMMANDS.items()}
    settings = command.parse_command(commands, description=__doc__)
    if isinstance(settings, ServeSettings):
        # Without this setting, TensorFlow never returns the memory of the largest images.
        # TensorFlow reads the setting only when it loads.
        os.environ.setdefault("TF_ONEDNN_USE_SYSTEM_ALLOCATOR", "1")
    for field, needs in (("images", ""), ("data", "captions")):
        if hasattr(settings, field):
            with concerning(field):
                check_data(getattr(settings, field), settings.select, needs)
    return settings


if __name__ == "__main__":
    command.run("search.py", parse, main)
