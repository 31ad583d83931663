"""Builds indexes of folders, for several test files."""

import os

from align_keras.data import examples
from align_keras.search import indexing
from align_keras.search.image_index import ImageIndex


def build(model, photos, output, **options):
    source = examples.open_images(photos)
    header, _ = indexing.build_index(model, source, output, batch_size=8, **options)
    return header, ImageIndex(output)


def write_photos(folder, images):
    """Writes a folder of images with a subfolder, a damaged file, an empty file and other files."""
    for number, data in enumerate(images):
        path = folder / ("more/deep" if number % 3 else "") / f"{number:02}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (folder / "bad.jpg").write_bytes(images[0][:200])
    (folder / "empty.PNG").touch()
    (folder / "notes.txt").write_text("no image")
    (folder / "other.TIFF").write_bytes(images[0])
    (folder / "gone.jpg").symlink_to("nowhere.jpg")
    (folder / "more" / "loop").symlink_to(folder)
    os.mkfifo(folder / "pipe.jpg")
    return folder
