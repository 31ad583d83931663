"""Sound files that cases damage; all processes of a session share them."""

import functools
import io
import os
import shutil
from pathlib import Path

import numpy as np
from commands import make_material
from PIL import Image

from align_keras import AlignDualEncoder
from align_keras.data.examples import opening
from align_keras.errors import InputError
from align_keras.search import indexing


def made_once(function):
    """Lets a function make a folder of its own name in ``shared``, unless it already exists."""

    @functools.wraps(function)
    def make(shared):
        folder = Path(shared) / function.__name__
        if not folder.exists():
            work = Path(shared) / f"{function.__name__}.{os.getpid()}"
            function(shared, work)
            work.rename(folder)
        return folder

    return make


@made_once
def material(shared, folder):
    """Makes scenes as shards and photographs, and a preset, with ``commands.make_material``."""
    folder.mkdir(parents=True)
    make_material(folder)


def model(shared):
    """Loads the dual encoder of the preset."""
    return AlignDualEncoder.from_preset(str(material(shared) / "start" / "preset"))


@made_once
def saved_model(shared, folder):
    """Writes the model as a SavedModel into a folder ``1``, as TensorFlow Serving expects it."""
    model(shared).save(folder / "1")


@made_once
def image_index(shared, folder):
    """Builds an index of thirty photographs."""
    source = opening.open_images(material(shared) / "photos" / "test")
    indexing.build_index(model(shared), source, folder, thumbnail_size=32)


@made_once
def photos(shared, folder):
    """Writes eight small JPEG files that are named by numbers."""
    folder.mkdir(parents=True)
    for number in range(8):
        (folder / f"{number}.jpg").write_bytes(picture("JPEG", number))


def picture(kind, seed, mode="RGB", **options):
    """Returns an encoded image with noise and a plain area, 20 to 60 pixels per side."""
    rng = np.random.default_rng(seed)
    height, width = rng.integers(20, 60, 2)
    pixels = rng.integers(0, 256, (height, width, 4), "uint8")
    pixels[: height // 2] = rng.integers(0, 256, 4, "uint8")
    buffer = io.BytesIO()
    Image.fromarray(pixels, "RGBA").convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def with_file(folder, work, name, data):
    """Copies a folder into ``work`` and gives one file other bytes; with None, removes the file."""
    copy = Path(work) / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder, copy)
    path = copy / name
    path.unlink() if data is None else path.write_bytes(data)
    return copy


def files_of(folder):
    """Returns the names and bytes of all files in a folder, sorted."""
    paths = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    return [(str(path.relative_to(folder)), path.read_bytes()) for path in paths]


def check_reported(folder, name):
    """Asserts that the checksums of a folder report the damaged file by name."""
    from align_keras import checksums

    try:
        checksums.check(folder)
    except InputError as error:
        assert name in str(error), f"{name} is damaged, reported is: {error}"
    else:
        raise AssertionError(f"{name} is damaged, it is used, and nothing is reported")
