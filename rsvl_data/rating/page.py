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
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from PIL import Image

from rsvl_data.errors import CorruptShard, DataError, OptionError
from rsvl_data.images import READABLE_FORMATS
from rsvl_data.sample import CaptionKind, Sample
from rsvl_data.shards import Dataset, Shard, write_atomically

# Wording of the three questions after RS5M (arXiv:2306.11300, III-B). A high mark is always the good one.
AXES_IN_WORDS = (
    ("Relevance and detail", "not about this image;", "about what matters in it, and precise"),
    ("Hallucination", "most of it is not to be seen;", "nothing is invented"),
    ("Fluency and conciseness", "hard to read, or rambling;", "fluent, and not a word too many"),
)
_MIN_IMAGE_PX = 96  # below this little can be judged
_WEBP_QUALITY = 80


@dataclass(frozen=True)
class PageOptions:
    """What a page shows. Equal options and an equal dataset make an equal page, however the samples lie in shards."""

    num: int = 100
    """images on the page"""
    kinds: tuple[CaptionKind, ...] | None = None
    """kinds of caption to rate: top, rotation, vlm, ...; all when left out. The page does not tell them apart"""
    captions_per_image: int = 1
    """different captions of an image, at the most"""
    split: str | None = None
    """only samples of this split"""
    seed: int = 0
    """of the samples, of the captions and of their order"""
    image_px: int = 512
    """longer side of the images, at the most"""
    max_mb: float = 10.0
    """size of the file in million bytes, at the most: images are shrunk until it fits"""

    def __post_init__(self) -> None:
        if self.num < 1 or self.captions_per_image < 1 or self.image_px < _MIN_IMAGE_PX or not self.max_mb > 0:
            raise OptionError(
                f"num {self.num} and captions_per_image {self.captions_per_image} must be 1 or more, image_px {self.image_px} at "
                f"least {_MIN_IMAGE_PX}, max_mb {self.max_mb} above 0"
            )


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


def write_rating_page(dataset: Dataset, out: Path, options: PageOptions = PageOptions()) -> RatingPage:
    """Raises DataError where no sample has such a caption, OptionError where images would become too small to judge."""
    picked, num_unreadable = _pick(dataset, options)
    places = [(place, text) for place, one in enumerate(picked) for text in one.texts]
    random.Random(f"{options.seed} order of captions").shuffle(places)
    suffix = dataset.manifest["image"]
    items = [
        {"image": place, "image_path": f"{picked[place].sample.key}.{suffix}", "description": text} for place, text in places
    ]
    room = options.max_mb * 1e6 - len(_render(items, [], dataset.note))
    images, image_px = _fitting([one.sample.image for one in picked], options.image_px, room)
    page = _render(items, images, dataset.note)
    write_atomically(out, page)
    return RatingPage(len(items), len(picked), num_unreadable, image_px, len(page))


def _pick(dataset: Dataset, options: PageOptions) -> tuple[list[_Picked], int]:
    """Samples with the texts drawn from each, and how many were passed over because record or image cannot be read."""
    picked: list[_Picked] = []
    num_unreadable = 0
    for sample in _in_seeded_order(dataset, options):
        if sample is None or not _opens(sample.image):
            num_unreadable += 1
            continue
        texts = list(dict.fromkeys(c.text for c in sample.captions if options.kinds is None or c.kind in options.kinds))
        drawn = random.Random(f"{options.seed} {sample.key}").sample(texts, min(options.captions_per_image, len(texts)))
        picked.append(_Picked(sample, drawn))
        if len(picked) == options.num:
            break
    if not picked:
        raise DataError(
            f"{dataset.root} holds no caption to rate: kinds {', '.join(options.kinds or ['any'])}, split {options.split or 'any'}, "
            f"{num_unreadable} unreadable samples"
        )
    return picked, num_unreadable


def _in_seeded_order(dataset: Dataset, options: PageOptions) -> Iterator[Sample | None]:
    """Samples that have a caption of these kinds; None for a record that cannot be read."""
    places: list[tuple[bytes, str, int]] = []
    for name in [options.split] if options.split else list(dataset.splits):
        for shard in dataset.shards(name):
            rows = shard.table(["key", "caption_kinds"]).to_pydict()
            for index, (key, has) in enumerate(zip(rows["key"], rows["caption_kinds"], strict=True)):
                if has and (options.kinds is None or set(options.kinds) & set(has)):
                    places.append(
                        (hashlib.blake2b(f"{options.seed}/{key}".encode(), digest_size=8).digest(), str(shard.tar), index)
                    )
    for _, tar, index in sorted(places):
        try:
            yield Shard(Path(tar), dataset.remote).sample(index)
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


def _render(items: list[dict[str, Any]], images: list[str], note: str | None) -> bytes:
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
    name = hashlib.sha256(json.dumps(items).encode()).hexdigest()[:8]  # what progress is kept under: another page, other marks
    data = {"page": name, "items": items, "images": images}
    template = environment.get_template("page.html")
    return template.render(
        axes=AXES_IN_WORDS, num_items=len(items), note=note, data=data, script=script, script_hash=script_hash
    ).encode()
