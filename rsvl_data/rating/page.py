"""One HTML file on which a person rates captions, and which needs nothing else: no server, no network, no script from elsewhere.

Raters are blind: the page holds image, text and key, and nothing that says which kind a caption is or who wrote it. Texts reach the
page as JSON and are shown as text, and the page's policy runs no script but its own, known by its hash: a caption from the web may
hold what it likes.
"""

import base64
import hashlib
import io
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import pyarrow.parquet as pq
from PIL import Image

from rsvl_data.errors import CorruptShard, DataError, OptionError
from rsvl_data.images import READABLE_FORMATS
from rsvl_data.sample import CaptionKind, Sample
from rsvl_data.shards import Dataset, Shard, write_atomically

# Wording of the three questions after RS5M (arXiv:2306.11300, III-B). A high mark is always the good one.
AXES_IN_WORDS = (
    ("Relevance and detail", "not about this image.", "about what matters in the image, and precise."),
    ("Hallucination", "most of it is not to be seen.", "nothing is invented."),
    ("Fluency and conciseness", "hard to read, or rambling.", "fluent, and not a word too many."),
)
_MIN_IMAGE_PX = 96  # below this little can be judged
_WEBP_QUALITY = 80


@dataclass(frozen=True)
class RatingPage:
    """What was written: `image_px` is the longest side the images have there, `num_unreadable` counts samples passed over."""

    num_captions: int
    num_images: int
    num_unreadable: int
    image_px: int
    num_bytes: int


@dataclass(frozen=True)
class _Picked:
    sample: Sample
    texts: list[str]


def write_rating_page(
    dataset: Dataset,
    out: Path,
    *,
    num: int = 100,
    kinds: Sequence[CaptionKind] | None = None,
    captions_per_image: int = 1,
    split: str | None = None,
    seed: int = 0,
    image_px: int = 512,
    max_mb: float = 10.0,
) -> RatingPage:
    """`num` images with up to `captions_per_image` different texts each, both drawn by the seed, in an order drawn by the seed.

    Images are shrunk to `image_px` on the longer side, and further until the file has at most `max_mb` million bytes. The choice does
    not depend on how the samples lie in shards. Raises DataError where no sample has such a caption, OptionError where the page
    would need images too small to judge.
    """
    if num < 1 or captions_per_image < 1 or image_px < _MIN_IMAGE_PX or not max_mb > 0:
        raise OptionError(
            f"num {num} and captions_per_image {captions_per_image} must be 1 or more, image_px {image_px} at least "
            f"{_MIN_IMAGE_PX}, max_mb {max_mb} above 0"
        )
    picked, num_unreadable = _pick(dataset, num, kinds, captions_per_image, split, seed)
    items = [(place, text) for place, one in enumerate(picked) for text in one.texts]
    random.Random(f"{seed} order of captions").shuffle(items)
    suffix = dataset.manifest["image"]
    lines = [{"image": place, "image_path": f"{picked[place].sample.key}.{suffix}", "description": text} for place, text in items]
    frame = len(_render(lines, [], dataset.note))
    images, image_px = _fitting([one.sample.image for one in picked], image_px, max_mb * 1e6 - frame)
    page = _render(lines, images, dataset.note)
    write_atomically(out, page)
    return RatingPage(len(lines), len(picked), num_unreadable, image_px, len(page))


def _pick(
    dataset: Dataset, num: int, kinds: Sequence[CaptionKind] | None, captions_per_image: int, split: str | None, seed: int
) -> tuple[list[_Picked], int]:
    picked: list[_Picked] = []
    num_unreadable = 0
    for sample in _in_seeded_order(dataset, kinds, split, seed):
        texts = list(dict.fromkeys(c.text for c in sample.captions if kinds is None or c.kind in kinds)) if sample else []
        if sample is None or not _opens(sample.image):
            num_unreadable += 1
        elif texts:
            rng = random.Random(f"{seed} {sample.key}")
            picked.append(_Picked(sample, rng.sample(texts, min(captions_per_image, len(texts)))))
        if len(picked) == num:
            break
    if not picked:
        raise DataError(
            f"{dataset.root} holds no caption to rate: kinds {', '.join(kinds or ['any'])}, split {split or 'any'}, "
            f"{num_unreadable} unreadable samples"
        )
    return picked, num_unreadable


def _in_seeded_order(
    dataset: Dataset, kinds: Sequence[CaptionKind] | None, split: str | None, seed: int
) -> Iterator[Sample | None]:
    """Samples that have a caption of these kinds; None for a record that cannot be read."""
    places: list[tuple[bytes, str, int]] = []
    for name in [split] if split else list(dataset.splits):
        for shard in dataset.shards(name):
            rows = pq.read_table(shard.tar.with_suffix(".parquet"), columns=["key", "caption_kinds"]).to_pydict()
            for index, (key, has) in enumerate(zip(rows["key"], rows["caption_kinds"], strict=True)):
                if has and (kinds is None or set(kinds) & set(has)):
                    places.append((hashlib.blake2b(f"{seed}/{key}".encode(), digest_size=8).digest(), str(shard.tar), index))
    for _, tar, index in sorted(places):
        try:
            yield Shard(Path(tar)).sample(index)
        except CorruptShard:
            yield None


def _opens(content: bytes) -> bool:
    try:
        with Image.open(io.BytesIO(content), formats=READABLE_FORMATS) as image:
            image.load()
    except Exception:  # Pillow's readers raise a dozen types for broken bytes
        return False
    return True


def _fitting(contents: list[bytes], image_px: int, room: float) -> tuple[list[str], int]:
    """Images as data URIs of at most `room` bytes in all, and the longest side they were given."""
    while True:
        uris = [_data_uri(content, image_px) for content in contents]
        total = sum(len(uri) + 4 for uri in uris)  # quotes and comma
        if total <= room:
            return uris, image_px
        smaller = int(0.95 * image_px * (max(room, 0) / total) ** 0.5)
        if smaller < _MIN_IMAGE_PX:
            raise OptionError(
                f"{len(contents)} images do not fit the page even at {_MIN_IMAGE_PX} px; give a smaller --num or a larger --max-mb"
            )
        image_px = smaller


def _data_uri(content: bytes, image_px: int) -> str:
    with Image.open(io.BytesIO(content), formats=READABLE_FORMATS) as image:
        small = image.convert("RGB")
        small.thumbnail((image_px, image_px), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    small.save(out, "WEBP", quality=_WEBP_QUALITY)
    return "data:image/webp;base64," + base64.b64encode(out.getvalue()).decode()


def _render(lines: list[dict[str, Any]], images: list[str], note: str | None) -> bytes:
    folder = Path(__file__).parent
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = (folder / "page.js").read_text()
    script_hash = "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    name = hashlib.sha256(json.dumps(lines).encode()).hexdigest()[:8]  # what progress is kept under: another page, other marks
    data = {"page": name, "items": lines, "images": images}
    template = environment.get_template("page.html")
    return template.render(
        axes=AXES_IN_WORDS, num_items=len(lines), note=note, data=data, script=script, script_hash=script_hash
    ).encode()
