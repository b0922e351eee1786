"""Images of any size and any number to class maps, from patch tokens and phrases: windows of all images share batches.

An image is read, segmented and handed out by bands of rows, from top to bottom, so that a scene needs the memory of a band:

    rows of the picture -> windows -> cosines of patches and phrases -> mean over windows -> size of the picture -> classes
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, Literal, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from rsvl_data.errors import OptionError
from rsvl_data.transforms import Preprocess
from rsvl_pretrain.dense import encode_dense, encode_dense_and_class_token, patch_size_px
from rsvl_segment.classes import OPENAI_TEMPLATES, Classes, text_queries
from rsvl_segment.postprocess import class_map, class_values
from rsvl_segment.protocols import SegmentOptions
from rsvl_segment.resample import RowResizer, resized_rows
from rsvl_segment.upsample import bilinear, joint_bilateral
from rsvl_segment.windows import RowMerger, Window, padding, row_chunks, spans

Precision = Literal["fp32", "bf16"]
DEFAULT_OPTIONS = SegmentOptions()


class Picture(Protocol):
    """Something that rows can be read from."""

    @property
    def height(self) -> int: ...
    @property
    def width(self) -> int: ...
    def rows(self, start: int, stop: int) -> UInt8[Tensor, "3 n w"]: ...


class Encoder(Protocol):
    """What is needed of `rsvl_pretrain.model.DualEncoder`."""

    model: Any
    preprocess: Preprocess

    @property
    def device(self) -> torch.device: ...
    @property
    def logit_scale(self) -> Float[Tensor, ""]: ...
    def encode_text(self, texts: Sequence[str], *, normalize: bool = True) -> Float[Tensor, "b d"]: ...


class Band(NamedTuple):
    """Rows of one picture from `row` on. `values` is the best class value of each pixel: what a threshold is compared with."""

    picture: int
    row: int
    classes: UInt8[Tensor, "n w"]
    values: Float[Tensor, "n w"]


class _Job(NamedTuple):
    picture: int
    window: Window
    pixels: UInt8[Tensor, "3 y x"]


class Segmenter:
    """An encoder, classes and options. The text is encoded once.

    background     class that pixels below the threshold get; None: they get `NO_CLASS` (255)
    batch_size     windows that go through the image tower at once
    precision      of the image tower: fp32, or bf16 by autocast
    """

    def __init__(
        self,
        encoder: Encoder,
        classes: Classes,
        options: SegmentOptions = DEFAULT_OPTIONS,
        *,
        templates: Sequence[str] = OPENAI_TEMPLATES,
        background: int | None = None,
        batch_size: int = 16,
        precision: Precision = "fp32",
        queries: Float[Tensor, "q d"] | None = None,
    ):
        if batch_size < 1:
            raise OptionError(f"batch_size {batch_size}; it must be at least 1")
        if len(classes) < 2:  # a softmax of one is 1, whatever is in the picture
            raise OptionError(f'{classes.names[0]!r} is the only class; name what else there is too, such as "water,land"')
        self.encoder, self.classes, self.batch_size, self.background = encoder, classes, batch_size, background
        self.precision, self.patch = precision, patch_size_px(encoder.model)
        self.options = _resolved(options, encoder)
        encoder.model.eval()
        self.queries = text_queries(encoder, classes, templates) if queries is None else queries.to(encoder.device)

    def segment(self, picture: Picture) -> UInt8[Tensor, "h w"]:
        """The class of every pixel of one picture, on the CPU."""
        return torch.cat([band.classes for band in self.bands([picture])])

    def bands(self, pictures: Iterable[Picture]) -> Iterator[Band]:
        """Class maps of all pictures, band after band, on the CPU. Pictures are opened one after the other, as they are needed."""
        for number, row, logits in self.logits(pictures):
            values = class_values(logits, self.classes.query_to_class, self.options.logit_scale, self.options.synonyms)
            classes = class_map(values, self.options.threshold, self.background)
            yield Band(number, row, classes.cpu(), values.amax(0).cpu())

    @torch.inference_mode()
    def logits(self, pictures: Iterable[Picture]) -> Iterator[tuple[int, int, Float[Tensor, "q n w"]]]:
        """Number of the picture, first row, and cosines [phrases, rows, columns] at the picture's own size, not scaled."""
        merging: _Merging | None = None
        opened: list[Picture] = []
        for job, values in self._window_logits(self._jobs(pictures, opened)):
            if merging is None or merging.number != job.picture:
                if merging is not None:
                    yield from merging.rest()
                merging = _Merging(job.picture, opened.pop(0), self)
            yield from merging.add(job.window, values)
        if merging is not None:
            yield from merging.rest()

    def _jobs(self, pictures: Iterable[Picture], opened: list[Picture]) -> Iterator[_Job]:
        """Windows in order. A picture joins `opened` before its first window."""
        window_px, stride_px = self.options.window_px, self.options.stride_px
        for number, picture in enumerate(pictures):
            opened.append(picture)
            height, width = self.options.working_size(picture.height, picture.width)
            columns = spans(width, window_px, stride_px)
            for y0, y1 in spans(height, window_px, stride_px):
                rows = self._working_rows(picture, (height, width), y0, y1)
                for x0, x1 in columns:
                    yield _Job(number, Window(y0, y1, x0, x1), rows[..., x0:x1])

    def _working_rows(self, picture: Picture, size: tuple[int, int], start: int, stop: int) -> UInt8[Tensor, "3 n w"]:
        own = picture.height, picture.width
        if size == own:
            return picture.rows(start, stop)
        parts = resized_rows(picture.rows, own, size, (start, stop), antialias=self.options.antialias)
        return torch.cat([part.round().clamp(0, 255).to(torch.uint8) for part in parts], 1)

    def _window_logits(self, jobs: Iterator[_Job]) -> Iterator[tuple[_Job, Float[Tensor, "q y x"]]]:
        """In the order of the jobs. Windows of one shape go through the tower together, whatever picture they are of."""
        while batch := list(islice(jobs, self.batch_size)):
            found: dict[int, Tensor] = {}
            for shape in dict.fromkeys(job.pixels.shape for job in batch):
                same = [place for place, job in enumerate(batch) if job.pixels.shape == shape]
                of_patches, pictures = self._patch_logits(torch.stack([batch[place].pixels for place in same]))
                found |= {
                    place: self._of_pixels(of_patches[i : i + 1], pictures[i : i + 1], shape) for i, place in enumerate(same)
                }
            yield from ((job, found[place]) for place, job in enumerate(batch))

    def _patch_logits(self, windows: UInt8[Tensor, "b 3 y x"]) -> tuple[Float[Tensor, "b q h w"], Float[Tensor, "b 3 v u"]]:
        """Cosines of patches and phrases, and the padded windows as the tower's colours."""
        options, (height, width) = self.options, windows.shape[-2:]
        pictures = self.encoder.preprocess.normalize(windows.to(self.encoder.device))
        padded = F.pad(pictures, padding(height, width, self.patch))
        seen = padded
        if options.window_input == "tower_size" and tuple(padded.shape[-2:]) != _tower_size(self.encoder):
            seen = bilinear(padded, _tower_size(self.encoder))
        with torch.autocast(self.encoder.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            if options.class_token_weight:
                token, dense = encode_dense_and_class_token(self.encoder.model, seen, options.head)
            else:
                token, dense = None, encode_dense(self.encoder.model, seen, options.head)
        logits = self._cosines(dense)
        if token is not None:
            logits = logits + options.class_token_weight * self._cosines(token[..., None, None])
        return logits, padded

    def _cosines(self, dense: Float[Tensor, "b d h w"]) -> Float[Tensor, "b q h w"]:
        return torch.einsum("bdhw,qd->bqhw", F.normalize(dense.float(), dim=1), self.queries)

    def _of_pixels(
        self, logits: Float[Tensor, "1 q h w"], padded: Float[Tensor, "1 3 v u"], shape: Sequence[int]
    ) -> Float[Tensor, "q y x"]:
        """One window at a time: all phrases of all windows of a batch at full size would need more memory than the tower."""
        height, width = shape[-2:]
        left, _, top, _ = padding(height, width, self.patch)
        jbu = self.options.upsample == "jbu"
        full = joint_bilateral(logits, padded) if jbu else bilinear(logits, (padded.shape[-2], padded.shape[-1]))
        return full[0, :, top : top + height, left : left + width]


class _Merging:
    """One picture on its way from windows to rows of its own size."""

    def __init__(self, number: int, picture: Picture, segmenter: Segmenter):
        own = picture.height, picture.width
        self.number, self._row = number, 0
        size = segmenter.options.working_size(*own)
        self._height = size[0]
        num_phrases = len(segmenter.queries)
        self._merger = RowMerger(num_phrases, *size, segmenter.options.window_px, segmenter.encoder.device)
        self._resizer = RowResizer(size, own)

    def add(self, window: Window, values: Float[Tensor, "q y x"]) -> Iterator[tuple[int, int, Float[Tensor, "q n w"]]]:
        if window.y0 > self._merger.top:
            yield from self._finish(window.y0)
        self._merger.add(window, values)

    def rest(self) -> Iterator[tuple[int, int, Float[Tensor, "q n w"]]]:
        yield from self._finish(self._height)

    def _finish(self, before_row: int) -> Iterator[tuple[int, int, Float[Tensor, "q n w"]]]:
        for rows in self._resizer.push(self._merger.finished(before_row)):
            for chunk in row_chunks(rows.shape[1], rows.shape[0] * rows.shape[2]):
                yield self.number, self._row, rows[:, chunk]
                self._row += chunk.stop - chunk.start


def _tower_size(encoder: Encoder) -> tuple[int, int]:
    height, width = encoder.model.visual.image_size
    return height, width


def _resolved(options: SegmentOptions, encoder: Encoder) -> SegmentOptions:
    """With what is left to the model filled in."""
    window_px = options.window_px or max(_tower_size(encoder))
    return replace(
        options,
        window_px=window_px,
        stride_px=options.stride_px or max(1, window_px // 2),
        logit_scale=options.logit_scale or float(encoder.logit_scale.detach()),
    )
