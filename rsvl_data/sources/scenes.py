"""The built-in procedural scenes as a source: no download, exact ground truth, any amount."""

import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from PIL import Image

from rsvl_data.images import encode
from rsvl_data.sample import Caption, Provenance, Sample, TextSource, content_key
from rsvl_data.scenes import LAND_COVER, LAND_COVER_PALETTE, render_scene
from rsvl_data.sources.base import Entry

NOTE = "Procedural scenes rendered by rsvl, not real imagery: numbers measured on them say that the chain works, not how good a model is."


@dataclass(frozen=True)
class Scenes:
    """`num` scenes of `size_px` from `seed`."""

    num: int
    size_px: int = 256
    seed: int = 0
    jpeg_quality: int = 90
    name: str = "scenes"
    note: str | None = NOTE

    @property
    def mask(self) -> dict[str, Any]:
        """No pixel is ignored: 255 does not occur."""
        return {"classes": list(LAND_COVER), "palette": [list(colour) for colour in LAND_COVER_PALETTE], "ignore_index": 255}

    def entries(self) -> Iterator[Entry]:
        return (Entry(f"scene-{self.seed}-{index}", facts={"index": index}) for index in range(self.num))

    def read(self, entry: Entry) -> Sample:
        scene = render_scene(self.seed, entry.facts["index"], self.size_px)
        image = encode(Image.fromarray(scene.image), "jpg", self.jpeg_quality)
        mask = io.BytesIO()
        Image.fromarray(scene.mask).save(mask, "PNG")
        sha256 = hashlib.sha256(image).hexdigest()
        source = TextSource(engine="rsvl scenes", revision="1")
        return Sample(
            key=content_key(sha256, entry.id),
            width=self.size_px,
            height=self.size_px,
            sha256=sha256,
            captions=[Caption(text=text, kind="meta", source=source) for text in scene.captions],
            regions=scene.regions,
            label=scene.label,
            geo=scene.geo,
            provenance=Provenance(dataset=self.name, original_id=entry.id, licence="CC0-1.0"),
            image=image,
            mask=mask.getvalue(),
        )
