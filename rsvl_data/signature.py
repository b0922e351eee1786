"""Which images a dataset holds, small enough to keep for ever: what a training set must leave behind so that its test sets can be checked.

`DATASET/signature.parquet` has a row an image, in the order of the shards: `split`, `sha256` (hex, of the stored image file) and `phash`
(16 hex digits, null where none was made). Its schema metadata say `rsvl_signature: 1` and name the dataset.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from rsvl_data.errors import DataError
from rsvl_data.shards import Dataset, write_atomically

FILE = "signature.parquet"
_SCHEMA = pa.schema({"split": pa.string(), "sha256": pa.string(), "phash": pa.string()})
_SIDE_PX, _LOW = 32, 8  # imagehash's hash_size 8 and highfreq_factor 4


@dataclass(frozen=True)
class Signature:
    """Of one dataset, or of those splits of it that a model was trained on."""

    name: str
    num_images: int
    sha256s: frozenset[str]
    phashes: frozenset[str]


def image_phash(image: bytes) -> str:
    """The 64-bit perceptual hash of imagehash's `phash`: which of the 8 x 8 lowest DCT coefficients of the 32 x 32 grey image lie above
    their median, row by row, the first the highest bit.

    Coefficients are rounded to a millionth before, so that noise of the arithmetic decides nothing in flat images.
    Raises DataError for bytes that are no image. https://github.com/JohannesBuchner/imagehash/blob/v4.3.1/imagehash/__init__.py
    """
    try:
        with Image.open(io.BytesIO(image)) as picture:
            grey = picture.convert("L").resize((_SIDE_PX, _SIDE_PX), Image.Resampling.LANCZOS)
    except Exception as error:  # Pillow's readers raise a dozen types for broken bytes
        raise DataError(f"the image ({len(image)} bytes) has no perceptual hash: {error}") from error
    waves = _cosines()
    low = np.round((waves @ np.asarray(grey, np.float64) @ waves.T), 6)
    bits = (low > np.median(low)).ravel()
    return np.packbits(bits).tobytes().hex()


def _cosines() -> np.ndarray:
    """The first rows of the type 2 DCT, not normalised: scipy's."""
    return 2 * np.cos(np.pi * np.arange(_LOW)[:, None] * (2 * np.arange(_SIDE_PX) + 1) / (2 * _SIDE_PX))


def write_signature(dataset: Dataset) -> Path:
    """Written beside the manifest. An image is opened only where its record has no `phash`."""
    rows = [row for split in dataset.splits for row in _rows(dataset, split)]
    schema = _SCHEMA.with_metadata({"rsvl_signature": "1", "name": dataset.name})
    content = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), content)
    path = dataset.root / FILE
    write_atomically(path, content.getvalue())
    return path


def _rows(dataset: Dataset, split: str) -> Iterator[dict[str, str | None]]:
    for shard in dataset.shards(split):
        table = shard.table(["sha256", "phash"])
        for index, row in enumerate(table.to_pylist()):
            yield {"split": split, "sha256": row["sha256"], "phash": row["phash"] or image_phash(shard.image(index))}


def read_signature(folder: Path, *splits: str) -> Signature:
    """Of the dataset in `folder`, of these splits, all when none is named. Raises DataError for a file that is none."""
    path = folder / FILE
    try:
        with pq.ParquetFile(path) as parquet:
            table = parquet.read()
        facts = table.schema.metadata or {}
        if facts.get(b"rsvl_signature") != b"1" or table.schema.names != _SCHEMA.names:
            raise ValueError(f"its columns are {table.schema.names} and its metadata do not say rsvl_signature: 1")
        rows = [row for row in table.to_pylist() if not splits or row["split"] in splits]
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is no signature: {error}. Write it with `rsvl data signature {folder}`.") from error
    sha256s, phashes = (frozenset(row[column] for row in rows if row[column]) for column in ("sha256", "phash"))
    return Signature(facts[b"name"].decode(), len(rows), sha256s, phashes)
