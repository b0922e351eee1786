"""`rsvl segment ...`: masks of pictures, from words."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import tyro
from rich.progress import Progress

from evaluation.prompts import RSVL
from rsvl_data.errors import OptionError
from rsvl_pretrain.dense import DenseHead
from rsvl_pretrain.model import DualEncoder
from rsvl_segment import predict as prediction
from rsvl_segment.classes import OPENAI_TEMPLATES, Classes
from rsvl_segment.mask_writer import check_mask_path
from rsvl_segment.protocols import PROTOCOL_PROMPTS, Prompts, Protocol, SegmentOptions, Upsampling, protocol_options
from rsvl_segment.scenes import GeoTiff, Pixels, open_picture
from rsvl_segment.segmenter import Precision, Segmenter

PROMPTS: dict[Prompts, tuple[str, ...]] = {"openai_imagenet": OPENAI_TEMPLATES, "rsvl": RSVL.templates}


@dataclass(frozen=True, kw_only=True)
class Predict:
    model: str
    """run folder, export folder, hf-hub:org/name, ARCHITECTURE,TAG"""
    image: Path
    """picture to segment: a GeoTIFF of any size, or a PNG, JPEG or WebP file"""
    classes: str
    """what to look for: commas between classes, bars between synonyms, as in "water,building|house,road" """
    out: Path
    """mask to write: .tif keeps the place on the map of a GeoTIFF, .png has a palette; ids in the order of the classes, 255 no class"""
    overlay: Path | None = None
    """PNG to write: the mask over the picture, with a legend"""
    protocol: Protocol = "rsvl"
    """settings to start from: our own, or those of farslip or segearth_ov, which first fit the picture to 448 px"""
    prompts: Prompts | None = None
    """sentences that classes are put into: ours for pictures from above, or OpenAI's 80 for ImageNet; left out, those of the protocol"""
    head: DenseHead | None = None
    """patch tokens; left out, those of the protocol"""
    scale: float = 1.0
    """factor by which the picture is resized first: objects look larger above 1"""
    window: int | None = None
    """side of a window in pixels; left out, that of the protocol: the size the encoder was trained at"""
    stride: int | None = None
    """pixels from one window to the next; left out, half a window"""
    upsample: Upsampling | None = None
    """from patches to pixels: bilinear, or jbu, which follows the edges of the picture"""
    threshold: float = 0.0
    """pixels whose best class has a lower probability become background"""
    background: str | None = None
    """class that pixels below the threshold get; left out, they get none (255)"""
    seed: int = 0
    """of the weights, where --model names an architecture without any"""
    batch_size: int = 16
    """windows encoded at once"""
    precision: Precision = "fp32"
    """of the image tower"""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    """where the model runs"""

    def settings(self) -> SegmentOptions:
        asked: dict[str, Any] = {
            "head": self.head, "window_px": self.window, "stride_px": self.stride, "upsample": self.upsample,
        }  # fmt: skip
        given = {name: value for name, value in asked.items() if value is not None}
        return replace(protocol_options(self.protocol), scale=self.scale, threshold=self.threshold, **given)


def predict(options: tyro.conf.OmitArgPrefixes[Predict]) -> int:
    """A mask of a picture or a scene of any size: GeoTIFF or PNG, with an overlay to look at."""
    classes, settings = Classes.parse(options.classes), options.settings()
    background = None if options.background is None else classes.index(options.background)
    if background is not None and not options.threshold:
        raise OptionError(f"--background {options.background} takes the pixels below --threshold; give one above 0")
    prompts = options.prompts or PROTOCOL_PROMPTS[options.protocol]
    check_mask_path(options.out)
    with open_picture(options.image) as picture, Progress(transient=True) as bar:
        torch.manual_seed(options.seed)
        encoder = DualEncoder.load(options.model, options.device)
        segmenter = Segmenter(
            encoder,
            classes,
            settings,
            templates=PROMPTS[prompts],
            background=background,
            batch_size=options.batch_size,
            precision=options.precision,
        )
        tags = {"MODEL": options.model, "OPTIONS": json.dumps({**asdict(segmenter.options), "prompts": prompts})}
        task = bar.add_task("segmenting rows", total=picture.height)
        found = prediction.predict(
            segmenter,
            picture,
            options.out,
            overlay=options.overlay,
            tags=tags,
            progress=lambda done, total: bar.update(task, completed=done),
        )
        place = _place_text(picture)
    print(f"{found.width} x {found.height} px, {place}")
    for name, share in found.shares.items():
        print(f"  {name:<24} {share:6.1%}")
    if found.without_class:
        print(f"  {'(no class)':<24} {found.without_class:6.1%}")
    print(f"mask: {options.out}" + (f"\noverlay: {options.overlay}" if options.overlay else ""))
    return 0


def _place_text(picture: Pixels | GeoTiff) -> str:
    if "crs" in picture.place:
        return f"in {picture.place['crs'].to_string()}"
    return "a scene without a CRS: its mask has none either" if isinstance(picture, GeoTiff) else "a plain image"


VERBS = {"predict": predict}
