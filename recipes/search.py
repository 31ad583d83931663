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
from align_keras.search.queries import Query, checked_texts, read_image
from align_keras.search.search_settings import (
    EvaluateSettings,
    IndexSettings,
    QuerySettings,
    ServeSettings,
)
from align_keras.wording import counted, rate


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
