"""The caption that minds turning the image least (RS5M's `ssl-cap`, arXiv:2306.11300, III-B).

An overhead image has no up, so a true caption fits every rotation of it alike. With x_n the image turned by n * 30 degrees, the
caption j with the smallest v_j = Var_n(cos(f_text(t_j), f_img(x_n))) is chosen. The variance is the biased one (divided by the number
of views); the unbiased one chooses the same caption. Equal variances: the better rank wins.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from rsvl_data.errors import DataError, OptionError
from rsvl_data.ranking.candidates import Ranking, choose, stage_of_batches, without
from rsvl_data.ranking.encoder import ClipEncoder, own_cosines
from rsvl_data.sample import Sample
from rsvl_data.stage import Dropped, Outcome, Stage

Fill = Literal["inscribed", "fill_mean", "reflect", "none"]


@dataclass(frozen=True)
class Rotation:
    """The views of an image that the choice compares. The paper says 12 at 30 degrees and nothing of their corners."""

    num_views: int = 12
    """views, at equal angles over the whole turn; the first is not turned"""
    fill: Fill = "inscribed"
    """what stands in the corners of a turned square: inscribed takes the largest centred square that needs no fill at any angle (50 %
    of the area, the same for all views); fill_mean the mean colour of the image, reflect its mirror image, none black"""

    def __post_init__(self) -> None:
        if self.num_views < 2:
            raise OptionError(f"num_views is {self.num_views}; a variance over views needs 2 or more")

    def source_px(self, size_px: int) -> int:
        """Side of the square that views of `size_px` are cut from, at the scale of the views.

        For `inscribed` its inner circle holds the view at every angle; it is even or odd as the view is, so that their centres agree
        and a view that is not turned is a plain cut.
        """
        if self.fill != "inscribed":
            return size_px
        side = math.ceil(size_px * math.sqrt(2))
        return side + (side - size_px) % 2


def rotated_views(squares: UInt8[Tensor, "b 3 w w"], size_px: int, rotation: Rotation) -> UInt8[Tensor, "b n 3 s s"]:
    """Each square turned about its centre, counter-clockwise and at its own scale, and cut to `size_px`.

    Between pixels the value is bilinear. Nothing shrinks here, so nothing aliases: `Preprocess.decode` resized the square before.
    """
    num_views, side = rotation.num_views, squares.shape[-1]
    offsets = torch.arange(size_px, dtype=torch.float64) - (size_px - 1) / 2  # of pixel centres from the middle
    down, right = torch.meshgrid(offsets, offsets, indexing="ij")
    angles = (torch.arange(num_views, dtype=torch.float64) * 2 * math.pi / num_views).view(-1, 1, 1)
    source_x = angles.cos() * right - angles.sin() * down
    source_y = angles.sin() * right + angles.cos() * down
    grid = (torch.stack([source_x, source_y], dim=-1) * 2 / side).to(
        squares.device, torch.float32
    )  # [n, s, s, 2], edges at -1, 1
    pixels = squares.float()
    mean = pixels.mean((2, 3), keepdim=True).round() if rotation.fill == "fill_mean" else torch.zeros(1, device=squares.device)
    channels = (pixels - mean).flatten(0, 1).expand(num_views, -1, -1, -1)  # [n, 3b, w, w]
    padding = "reflection" if rotation.fill == "reflect" else "zeros"
    turned = F.grid_sample(channels, grid, mode="bilinear", padding_mode=padding, align_corners=False)
    views = turned.unflatten(1, (-1, 3)).transpose(0, 1) + (mean.unsqueeze(1) if rotation.fill == "fill_mean" else 0)
    return views.round().clamp(0, 255).to(torch.uint8)


def similarity_variance(cosines: Float[Tensor, "t n"]) -> Float[Tensor, "t"]:
    """Biased variance of each text's cosine over the views; 0 for a constant one, up to the last bit."""
    return cosines.var(dim=1, correction=0)


@dataclass
class _Job:
    """`places` are those of the candidates to choose from, best rank first."""

    sample: Sample
    places: list[int]
    square: UInt8[Tensor, "3 w w"]


def rotation_choice(encoder: ClipEncoder, ranking: Ranking, rotation: Rotation, *, batch_size: int = 16) -> Stage:
    """Writes `rotation_variance` into the `second_keep` best candidates and adds the least of them as a caption of kind `rotation`.

    Follows `two_stage`. All views of a batch of images are one call of the image tower.
    """

    def prepare(sample: Sample) -> _Job | Outcome:
        fresh = _without_variance(without(sample, "rotation"))
        ranked = [
            (caption.rank, place)
            for place, caption in enumerate(fresh.captions)
            if caption.kind == ranking.candidate_kind and caption.rank is not None and caption.rank <= ranking.second_keep
        ]
        if not ranked:
            return ranking.without_candidates(sample)
        square = replace(encoder.preprocess, size=rotation.source_px(encoder.preprocess.size), resize_mode="shortest")
        try:
            return _Job(fresh, [place for _, place in sorted(ranked)], square.decode(sample.image))
        except DataError as error:
            return Dropped(sample.key, "unreadable_image", str(error))

    def work(jobs: list[_Job]) -> list[Outcome]:
        views = rotated_views(torch.stack([job.square for job in jobs]), encoder.preprocess.size, rotation)
        texts = [[job.sample.captions[place].text for place in job.places] for job in jobs]
        return [_chosen(job, similarity_variance(cosines)) for job, cosines in zip(jobs, own_cosines(encoder, views, texts))]

    return stage_of_batches("rotation_choice", batch_size, prepare, work)


def _without_variance(sample: Sample) -> Sample:
    captions = [caption.model_copy(update={"rotation_variance": None}) for caption in sample.captions]
    return sample.model_copy(update={"captions": captions})


def _chosen(job: _Job, variances: Float[Tensor, "t"]) -> Outcome:
    if not bool(variances.isfinite().all()):
        return Dropped(job.sample.key, "score_not_finite", "the model gave NaN or infinity for a view or a candidate")
    rounded = [float(f"{variance:.6g}") for variance in variances.tolist()]  # the choice follows from the numbers in the record
    captions = list(job.sample.captions)
    for place, variance in zip(job.places, rounded):
        captions[place] = captions[place].model_copy(update={"rotation_variance": variance})
    best = job.places[rounded.index(min(rounded))]
    return choose(job.sample.model_copy(update={"captions": captions}), best, "rotation")
