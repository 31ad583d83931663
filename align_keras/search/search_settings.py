"""The settings of ``recipes/search.py``: one class for each of its commands."""

import dataclasses
from typing import Annotated, Literal

import tyro

from align_keras import paths
from align_keras.search.inverted_lists import PROBES


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
