"""How an image becomes a mask, all that changes a number: one record, and the settings that others have published under."""

from dataclasses import dataclass
from typing import Literal, get_args

from rsvl_data.errors import OptionError
from rsvl_pretrain.dense import DenseHead
from rsvl_segment.postprocess import Synonyms

WindowInput = Literal["as_is", "tower_size"]
Upsampling = Literal["bilinear", "jbu"]
Prompts = Literal["openai_imagenet", "rsvl"]
Protocol = Literal["rsvl", "farslip", "segearth_ov"]


@dataclass(frozen=True, kw_only=True)
class SegmentOptions:
    head: DenseHead = "segearth"
    """patch tokens: segearth, maskclip, last (rsvl_pretrain/dense.py)"""
    window_px: int = 0
    """side of a window, after resizing; 0 is the size the encoder was trained at"""
    stride_px: int = 0
    """from one window to the next; 0 is half a window"""
    fit_px: int = 0
    """longer side that images are resized to; 0 leaves them as they are, or multiplies by `scale`"""
    scale: float = 1.0
    """factor by which images are resized where fit_px is 0"""
    antialias: bool = True
    """while resizing images; without it as OpenCV's INTER_LINEAR, which skips pixels"""
    window_input: WindowInput = "as_is"
    """as_is: a window is padded to whole patches and positions are interpolated; tower_size: it is then resized to the tower's own size"""
    upsample: Upsampling = "bilinear"
    """from patches to pixels: bilinear; jbu follows the edges of the image (joint bilateral, no weights)"""
    class_token_weight: float = 0.0
    """how much of the window's class token is added to the cosines of its patches; SegEarth-OV subtracts 0.3"""
    logit_scale: float = 0.0
    """what cosines are multiplied with before the softmax; 0 is the model's own"""
    synonyms: Synonyms = "sum"
    """value of a class with several phrases: sum of their probabilities, or the max"""
    threshold: float = 0.0
    """a pixel whose best class is below becomes background"""

    def __post_init__(self) -> None:
        if self.window_px < 0 or self.stride_px < 0 or (self.window_px and self.stride_px > self.window_px):
            raise OptionError(
                f"windows of {self.window_px} px every {self.stride_px} px; allowed is a stride from 1 to the window"
            )
        if self.fit_px < 0 or not 0.01 <= self.scale <= 100:
            raise OptionError(f"fit_px {self.fit_px}, scale {self.scale}; allowed are 0 or more, and 0.01 to 100")
        if self.fit_px and self.scale != 1:
            raise OptionError(f"fit_px {self.fit_px} and scale {self.scale} both resize the image; give one of them")
        if not 0 <= self.threshold <= 1 or self.logit_scale < 0:
            raise OptionError(f"threshold {self.threshold}, logit_scale {self.logit_scale}; allowed are 0 to 1, and 0 or more")

    def working_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width at which windows are cut; rounded as by mmcv's `imrescale`."""
        factor = self.fit_px / max(height, width) if self.fit_px else self.scale
        return max(1, int(height * factor + 0.5)), max(1, int(width * factor + 0.5))


# farslip      what https://github.com/NJU-LHRS/RS-OVSS ran: its runner drops threshold and background of the configurations, so both
#              are 0; images are fitted without antialias, windows of another size are resized to the tower's.
# segearth_ov  https://github.com/likyoo/SegEarth-OV, segearth_segmentor.py and configs/base_config.py. Thresholds are those of each data
#              set. Its learned upsampler (SimFeatUp) is not here; without it this is the paper's row without SimFeatUp.
PROTOCOLS: dict[Protocol, SegmentOptions] = {
    "rsvl": SegmentOptions(),
    "farslip": SegmentOptions(
        window_px=224, stride_px=112, fit_px=448, antialias=False, window_input="tower_size", logit_scale=50, synonyms="max"
    ),
    "segearth_ov": SegmentOptions(
        window_px=224, stride_px=112, fit_px=448, antialias=False, class_token_weight=-0.3, logit_scale=50, synonyms="max"
    ),
}
# Sentences around the class names: of the released evaluators OpenAI's 80.
PROTOCOL_PROMPTS: dict[str, Prompts] = {"rsvl": "rsvl", "farslip": "openai_imagenet", "segearth_ov": "openai_imagenet"}


def protocol_options(name: str) -> SegmentOptions:
    """Raises OptionError for a name nobody knows."""
    for known, options in PROTOCOLS.items():
        if known == name:
            return options
    raise OptionError(f"no segmentation protocol is called {name!r}; allowed: {', '.join(get_args(Protocol))}")
