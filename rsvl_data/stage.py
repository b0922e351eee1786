"""A stage takes samples and yields samples, or says why one is left out. Counting and timing happen once, around it.

A pipeline is a list of stages read downwards:

    stages = [keep_if("min_side", lambda s: min(s.width, s.height) >= 64 or "too_small"), map_to("lower", lower_captions)]
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from rsvl_data.sample import Sample


@dataclass(frozen=True)
class Dropped:
    """What was left out and why. `reason` is a short word for counting, `detail` a sentence for the person who looks."""

    key: str
    reason: str
    detail: str = ""
    score: float | None = None


@dataclass(frozen=True)
class LeftOut(Dropped):
    """A part of a sample that was left out, such as a caption; the sample itself goes on and is yielded beside."""


Outcome = Sample | Dropped


@dataclass(frozen=True)
class Stage:
    """`run` yields one outcome a sample, or more for a stage that splits (tiles of a scene), and any number of parts left out."""

    name: str
    run: Callable[[Iterable[Sample]], Iterable[Outcome]]


def keep_if(name: str, test: Callable[[Sample], bool | str]) -> Stage:
    """A filter: `test` answers True to keep, or the reason as a word; False stands for the reason `name`."""

    def run(samples: Iterable[Sample]) -> Iterator[Outcome]:
        for sample in samples:
            answer = test(sample)
            yield sample if answer is True else Dropped(sample.key, answer or name)

    return Stage(name, run)


def map_to(name: str, change: Callable[[Sample], Sample]) -> Stage:
    return Stage(name, lambda samples: map(change, samples))


@dataclass
class Tally:
    """What went into one stage and what became of it."""

    name: str
    seen: int = 0
    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    seconds_with_upstream: float = 0.0

    def to_manifest(self) -> dict[str, Any]:
        """Without the seconds, so that equal runs give equal manifests."""
        counts = {"name": self.name, "in": self.seen, "kept": self.kept, "dropped": dict(sorted(self.dropped.items()))}
        return counts | ({"left_out": dict(sorted(self.left_out.items()))} if self.left_out else {})


def run_stages(
    source: Iterable[Outcome], stages: Sequence[Stage], on_drop: Callable[[str, Dropped], None]
) -> tuple[Iterator[Sample], list[Tally]]:
    """Join a source and its stages into one stream. The tallies are complete once the stream has been read to its end.

    `on_drop` receives the stage's name and what it dropped. The source counts as the first stage, named "read".
    """
    tallies = [Tally("read")]
    stream = _kept(source, tallies[0], None, on_drop)
    for stage in stages:
        tally = Tally(stage.name)
        stream = _kept(stage.run(stream), tally, tallies[-1], on_drop)
        tallies.append(tally)
    return stream, tallies


def _kept(
    outcomes: Iterable[Outcome], tally: Tally, before: Tally | None, on_drop: Callable[[str, Dropped], None]
) -> Iterator[Sample]:
    """Pass on the samples; count, time and report the rest."""
    iterator = iter(outcomes)
    while True:
        started = time.perf_counter()
        outcome = next(iterator, None)
        tally.seconds_with_upstream += time.perf_counter() - started
        if outcome is None:
            break
        if isinstance(outcome, Dropped):
            (tally.left_out if isinstance(outcome, LeftOut) else tally.dropped)[outcome.reason] += 1
            on_drop(tally.name, outcome)
        else:
            tally.kept += 1
            yield outcome
    tally.seen = before.kept if before else tally.kept + tally.dropped.total()
    tally.seconds = tally.seconds_with_upstream - (before.seconds_with_upstream if before else 0.0)
