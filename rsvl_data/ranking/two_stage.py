"""Two CLIP models rank the candidates of an image, as RS5M does (arXiv:2306.11300, III-B): the first keeps 10 of 20, the second 5 of these.

The rank of a candidate follows from the numbers in its record alone:

    those the second model saw come first, by its score; the others follow, by the score of the first model
    equal scores of the second model stand by the first model's, equal scores of both in the order of the record

Scores are cosines rounded to 6 decimals before they are compared, so that the record explains its ranks and the noise of a batch's
shape does not.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import UInt8
from torch import Tensor

from rsvl_data.errors import DataError
from rsvl_data.ranking.candidates import Ranking, choose, stage_of_batches, without
from rsvl_data.ranking.encoder import ClipEncoder, own_cosines
from rsvl_data.sample import Sample
from rsvl_data.stage import Dropped, Outcome, Stage


def best_first(scores: Sequence[float]) -> list[int]:
    """Places by falling score; equal scores keep their order."""
    return sorted(range(len(scores)), key=lambda place: -scores[place])


@dataclass
class _Job:
    """`places` are those of the candidates that the next model scores, among all captions."""

    sample: Sample
    places: list[int]
    first_view: UInt8[Tensor, "3 s s"]
    second_view: UInt8[Tensor, "3 r r"]

    def texts(self) -> list[str]:
        return [self.sample.captions[place].text for place in self.places]


def two_stage(first: ClipEncoder, second: ClipEncoder, ranking: Ranking, *, batch_size: int = 16) -> Stage:
    """Writes `first_score`, `second_score` and `rank` into every candidate and adds the best as a caption of kind `top`.

    What an earlier ranking wrote is taken out first, so ranking again is the same as ranking once.
    """

    def prepare(sample: Sample) -> _Job | Outcome:
        fresh = _unranked(without(sample, "top"))
        of_kind = [place for place, caption in enumerate(fresh.captions) if caption.kind == ranking.candidate_kind]
        if not of_kind:
            return ranking.without_candidates(sample)
        try:
            views = [encoder.preprocess.decode(sample.image) for encoder in (first, second)]
        except DataError as error:
            return Dropped(sample.key, "unreadable_image", str(error))
        return _Job(fresh, of_kind[: ranking.candidates], *views)

    def work(jobs: list[_Job]) -> list[Outcome]:
        first_scores = _scores(first, [job.first_view for job in jobs], jobs)
        first_orders = [[job.places[i] for i in best_first(scores)] for job, scores in zip(jobs, first_scores)]
        by_place = [dict(zip(job.places, scores)) for job, scores in zip(jobs, first_scores)]
        for job, order in zip(jobs, first_orders):
            job.places = order[: ranking.first_keep]
        second_scores = _scores(second, [job.second_view for job in jobs], jobs)
        return [_ranked(*parts) for parts in zip(jobs, first_orders, by_place, second_scores)]

    return stage_of_batches("two_stage_ranking", batch_size, prepare, work)


def _unranked(sample: Sample) -> Sample:
    nothing = {"rank": None, "first_score": None, "second_score": None}
    return sample.model_copy(update={"captions": [caption.model_copy(update=nothing) for caption in sample.captions]})


def _scores(encoder: ClipEncoder, views: list[UInt8[Tensor, "3 s s"]], jobs: list[_Job]) -> list[list[float]]:
    cosines = own_cosines(encoder, torch.stack(views).unsqueeze(1), [job.texts() for job in jobs])
    return [[round(score, 6) for score in own.squeeze(1).tolist()] for own in cosines]


def _ranked(job: _Job, first_order: list[int], first_scores: dict[int, float], second_scores: list[float]) -> Outcome:
    if not all(map(math.isfinite, [*first_scores.values(), *second_scores])):
        return Dropped(job.sample.key, "score_not_finite", "a model gave NaN or infinity for the image or a candidate")
    second_order = [job.places[i] for i in best_first(second_scores)]
    second_score = dict(zip(job.places, second_scores))
    captions = list(job.sample.captions)
    for rank, place in enumerate([*second_order, *first_order[len(second_order) :]], 1):
        found = {"rank": rank, "first_score": first_scores[place], "second_score": second_score.get(place)}
        captions[place] = captions[place].model_copy(update=found)
    return choose(job.sample.model_copy(update={"captions": captions}), second_order[0], "top")
