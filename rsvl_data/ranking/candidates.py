"""The captions of a record as a list to choose from: candidates, the choices made among them, and `parent`, which follows every move."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal, TypeVar

from rsvl_data.errors import OptionError
from rsvl_data.sample import Caption, CaptionKind, Sample
from rsvl_data.stage import Dropped, Outcome, Stage, map_to

CHOICES = ("top", "rotation")
DefaultCaption = Literal["top", "rotation", "unchanged"]

Job = TypeVar("Job")


@dataclass(frozen=True)
class Ranking:
    """How many candidates each CLIP keeps. The defaults are those of RS5M (arXiv:2306.11300, III-B): 20 -> 10 -> 5."""

    candidates: int = 20
    """captions of a sample that are ranked, the first ones of their kind; a sample with fewer ranks those it has"""
    first_keep: int = 10
    """candidates that the first model leaves to the second"""
    second_keep: int = 5
    """candidates that the second model leaves to the choice by rotation"""
    candidate_kind: CaptionKind = "vlm"
    """kind of the captions to rank"""
    keep_unranked: bool = False
    """True: samples without a candidate pass as they are; False: they are dropped as no_candidate"""

    def __post_init__(self) -> None:
        if not 1 <= self.second_keep <= self.first_keep <= self.candidates:
            raise OptionError(
                f"ranking {self.candidates} -> {self.first_keep} -> {self.second_keep}: candidates, first_keep and second_keep "
                "must be 1 or more and must not grow"
            )
        if self.candidate_kind in CHOICES:
            raise OptionError(f"candidate_kind is {self.candidate_kind!r}, which is a choice among candidates; give their kind")

    def without_candidates(self, sample: Sample) -> Outcome:
        return sample if self.keep_unranked else Dropped(sample.key, "no_candidate", f"no caption of kind {self.candidate_kind}")


RS5M = Ranking()
RS5M_FIRST, RS5M_SECOND = "ViT-H-14,laion2b_s32b_b79k", "RN50x64-quickgelu,openai"


def rearranged(sample: Sample, order: Sequence[int]) -> Sample:
    """The captions at these places, in this order. `parent` follows the caption it means, and is absent where that one is left out."""
    new_place = {old: new for new, old in enumerate(order)}
    captions = [sample.captions[old] for old in order]
    moved = [
        caption if caption.parent is None else caption.model_copy(update={"parent": new_place.get(caption.parent)})
        for caption in captions
    ]
    return sample.model_copy(update={"captions": moved})


def without(sample: Sample, kind: CaptionKind) -> Sample:
    return rearranged(sample, [place for place, caption in enumerate(sample.captions) if caption.kind != kind])


def choose(sample: Sample, place: int, kind: CaptionKind) -> Sample:
    """Add a copy of the candidate at `place` as the choice of this kind. Its scores stay with the candidate, where `parent` leads."""
    chosen = sample.captions[place]
    copy = Caption(
        text=chosen.text, lang=chosen.lang, kind=kind, source=chosen.source, prompt=chosen.prompt, parent=place
    )  # what else a foreign writer noted of the candidate stays with it too
    return sample.model_copy(update={"captions": [*sample.captions, copy]})


def prune_below(ranking: Ranking) -> Stage:
    """Takes the candidates that the second model did not keep out of the record, and with them their scores."""

    def prune(sample: Sample) -> Sample:
        kept = [
            place
            for place, caption in enumerate(sample.captions)
            if caption.kind != ranking.candidate_kind or (caption.rank is not None and caption.rank <= ranking.second_keep)
        ]
        ranked = any(caption.kind == "top" for caption in sample.captions)
        return rearranged(sample, kept) if ranked else sample

    return map_to("prune", prune)


def default_caption(kind: DefaultCaption) -> Stage:
    """Puts the choice of this kind first, the other choice after it: the first caption is KEY.txt. `unchanged` leaves them at the end."""

    def place_first(sample: Sample) -> Sample:
        if kind == "unchanged":
            return sample
        kinds = [caption.kind for caption in sample.captions]
        return rearranged(
            sample, sorted(range(len(kinds)), key=lambda place: (kinds[place] != kind, kinds[place] not in CHOICES))
        )

    return map_to("default_caption", place_first)


def stage_of_batches(
    name: str, batch_size: int, prepare: Callable[[Sample], Job | Outcome], work: Callable[[list[Job]], list[Outcome]]
) -> Stage:
    """`prepare` turns a sample into a job or answers at once; `work` answers a batch of jobs. The order of samples is kept."""
    if batch_size < 1:
        raise OptionError(f"batch_size is {batch_size}; it must be 1 or more")

    def run(samples: Iterable[Sample]) -> Iterator[Outcome]:
        iterator = iter(samples)
        while batch := list(islice(iterator, batch_size)):
            prepared = [prepare(sample) for sample in batch]
            jobs = [job for job in prepared if not isinstance(job, Sample | Dropped)]
            done = iter(work(jobs) if jobs else [])
            for job in prepared:
                yield job if isinstance(job, Sample | Dropped) else next(done)

    return Stage(name, run)
