"""Captions by a vision-language model as a stage of a pipeline.

    samples -> [decode, scale, encode: a thread pool] -> [ask, check, ask again: a thread a sample] -> samples, in the order they came

The preparation of coming images, the requests under way and the checks overlap; how far the stage looks ahead is bounded by what keeps
the engine busy. The order of samples and the seeds depend on nothing that runs at the same time, and an answer once stored is the answer.
"""

import hashlib
import io
import threading
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Literal

from PIL import Image

from rsvl_data.captioning.answers import AnswerRules, BadAnswer, captions_of_answer
from rsvl_data.captioning.engine import Engine, Failure, Reply, Request, Sampling, running
from rsvl_data.captioning.prompts import PromptTemplate
from rsvl_data.captioning.store import AnswerStore, Question
from rsvl_data.errors import EngineError, OptionError
from rsvl_data.images import encode
from rsvl_data.sample import Caption, Generation, Sample
from rsvl_data.stage import Dropped, LeftOut, Outcome, Stage

_UNREADABLE = "image_unreadable"


@dataclass(frozen=True, kw_only=True)
class CaptionOptions:
    store: Path
    """folder where every answer is kept as it comes; the same folder on the next run saves asking again"""
    tries: int = 3
    """questions for one image: the first, and again with another seed for each answer that the checks refused"""
    image_side_px: int = 1024
    """larger images are scaled down to this on their longer side before the model sees them"""
    preparing_threads: int = 4
    """threads that decode, scale and encode images"""
    without_caption: Literal["keep", "drop"] = "keep"
    """what becomes of a sample of which every answer was refused"""
    stop_after_failures: int = 50
    """so many samples in a row for which the engine gave no answer at all end the run with an error"""
    sampling: Sampling = field(default_factory=Sampling)
    rules: AnswerRules = field(default_factory=AnswerRules)

    def __post_init__(self) -> None:
        counts = ("tries", "image_side_px", "preparing_threads", "stop_after_failures")
        wrong = [f"--{name.replace('_', '-')} {getattr(self, name)}" for name in counts if getattr(self, name) < 1]
        if wrong:
            raise OptionError(f"{', '.join(wrong)}: must be 1 or more")


def caption_with(engine: Engine, prompt: PromptTemplate, options: CaptionOptions) -> Stage:
    """Adds `options.sampling.num_candidates` captions of kind "vlm" to each sample, without score or rank, after those it has.

    What the checks refuse and what the engine cannot answer is left out and counted by reason; so is `no_caption`, for a sample that
    got none. The engine starts in the process that runs the stage, at the first question that the store cannot answer.
    Raises EngineError when the engine is gone.
    """
    return Stage(f"caption {prompt.id}", partial(_run, engine, prompt, options))


def _run(engine: Engine, prompt: PromptTemplate, options: CaptionOptions, samples: Iterable[Sample]) -> Iterator[Outcome]:
    stream = iter(samples)
    first = next(stream, None)
    if first is None:
        return
    window = 2 * engine.num_parallel
    with (
        AnswerStore(_store_path(engine, prompt, options, first)) as store,
        ThreadPoolExecutor(options.preparing_threads, "captioning images") as preparing,
        ThreadPoolExecutor(window, "captioning samples") as asking,
    ):
        captioner = _Captioner(engine, prompt, options, store, preparing)
        waiting: deque[Future[_Captioned]] = deque()
        try:
            for sample in chain([first], stream):
                waiting.append(asking.submit(captioner.caption, sample))
                if len(waiting) >= window:
                    yield from captioner.watched(waiting.popleft().result())
            while waiting:
                yield from captioner.watched(waiting.popleft().result())
        finally:
            for future in waiting:
                future.cancel()


def _store_path(engine: Engine, prompt: PromptTemplate, options: CaptionOptions, first: Sample) -> Path:
    """A task is known by its first sample: a continued build cuts the same shards, so the task finds its answers again."""
    asked = "\0".join([prompt.hash, engine.source.model_dump_json(), repr(options.sampling), str(options.image_side_px)])
    return options.store / f"{prompt.id}-{prompt.version}-{_sha256(asked)[:8]}" / f"{first.key}.jsonl"


@dataclass(frozen=True)
class _Captioned:
    """What became of one sample, and why the engine left it without any caption, if it did."""

    outcomes: list[Outcome]
    unanswered: Failure | None


class _Captioner:
    """What the threads of one task share."""

    def __init__(
        self, engine: Engine, prompt: PromptTemplate, options: CaptionOptions, store: AnswerStore, preparing: ThreadPoolExecutor
    ):
        self._engine, self._prompt, self._options = engine, prompt, options
        self._store, self._preparing = store, preparing
        self._locks: dict[str, threading.Lock] = {}
        self._failed_in_a_row = 0

    def caption(self, sample: Sample) -> _Captioned:
        """The sample with its new captions, and before it everything that was left out."""
        wanted, text = self._options.sampling.num_candidates, self._prompt.render(sample)
        captions: list[Caption] = []
        left_out: list[LeftOut] = []
        failure: Failure | None = None
        num_good = 0
        for attempt in range(self._options.tries):
            question = self._question(sample, text, wanted - num_good, attempt)
            reply = self._reply(sample, text, question)
            if isinstance(reply, Failure):
                failure = reply
                left_out.append(LeftOut(sample.key, reply.reason, reply.detail))
                break  # the engine has tried again by itself, where that may help
            if len(reply) < question.sampling.num_candidates:
                detail = f"{len(reply)} answers of {question.sampling.num_candidates}"
                left_out.append(LeftOut(sample.key, "answer_missing", detail))
            for index, answer in enumerate(reply):
                texts = captions_of_answer(answer, self._prompt, sample, self._options.rules)
                if isinstance(texts, BadAnswer):
                    left_out.append(LeftOut(sample.key, texts.reason, texts.detail))
                else:
                    num_good += 1
                    captions += [self._record(words, question, index) for words in texts]
            if num_good >= wanted or question.sampling.temperature == 0:  # at 0 every seed gives the same
                break
        return _Captioned(self._outcomes(sample, captions, left_out), None if captions else failure)

    def watched(self, captioned: _Captioned) -> list[Outcome]:
        """Called in the order of the samples, so that what ends a run does not depend on which of them was answered first."""
        failure = captioned.unanswered
        self._failed_in_a_row = self._failed_in_a_row + 1 if failure and failure.reason != _UNREADABLE else 0
        if failure and self._failed_in_a_row >= self._options.stop_after_failures:
            raise EngineError(
                f"no answer for {self._failed_in_a_row} samples in a row, the last time {failure.reason}: {failure.detail}. "
                "Mend the engine and give the same command again: finished answers are kept"
            )
        return captioned.outcomes

    def _question(self, sample: Sample, text: str, num: int, attempt: int) -> Question:
        image_sha256 = sample.sha256 if self._prompt.sees_image else ""
        text_sha256 = _sha256(text)
        seed = int(_sha256(f"{self._options.sampling.seed}/{image_sha256}/{text_sha256}/{attempt}")[:8], 16) >> 2
        return Question(
            image_sha256=image_sha256,
            image_side_px=self._options.image_side_px,
            text_sha256=text_sha256,
            prompt=self._prompt.record,
            source=self._engine.source,
            sampling=replace(self._options.sampling, num_candidates=num, seed=seed),
        )

    def _reply(self, sample: Sample, text: str, question: Question) -> Reply:
        """From the store, else from the engine. Two samples with one picture and one text ask once."""
        with self._locks.setdefault(question.key, threading.Lock()):
            stored = self._store.get(question)
            if stored is not None:
                return stored
            image = self._prepared(sample) if self._prompt.sees_image else None
            if isinstance(image, Failure):
                return image
            request = Request(image, text, question.sampling, self._prompt.json_schema)
            reply = running(self._engine).submit(request).result()
            if not isinstance(reply, Failure):
                self._store.put(question, reply, sample.key)
            return reply

    def _prepared(self, sample: Sample) -> bytes | Failure:
        try:
            return self._preparing.submit(prepare_image, sample.image, self._options.image_side_px).result()
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:  # what Pillow raises for damaged bytes
            return Failure(_UNREADABLE, repr(error))

    def _record(self, text: str, question: Question, index: int) -> Caption:
        sampling = question.sampling
        return Caption(
            text=text,
            lang=self._prompt.lang,
            kind="vlm",
            source=question.source,
            prompt=question.prompt,
            generation=Generation(
                seed=sampling.seed + index,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                top_k=sampling.top_k,
                max_tokens=sampling.max_tokens,
            ),
        )

    def _outcomes(self, sample: Sample, captions: list[Caption], left_out: list[LeftOut]) -> list[Outcome]:
        if captions:
            return [*left_out, sample.model_copy(update={"captions": [*sample.captions, *captions]})]
        reasons = Counter(part.reason for part in left_out)
        detail = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
        if self._options.without_caption == "drop":
            return [*left_out, Dropped(sample.key, "no_caption", detail)]
        return [*left_out, LeftOut(sample.key, "no_caption", detail), sample]


def prepare_image(content: bytes, side_px: int) -> bytes:
    """A JPEG or PNG no larger than `side_px` on its longer side: the bytes themselves where they are that already, and decode."""
    with Image.open(io.BytesIO(content), formats=("JPEG", "PNG", "WEBP")) as image:
        fits = image.format != "WEBP" and max(image.size) <= side_px
        if not fits:
            image.draft("RGB", (side_px, side_px))  # JPEGs are decoded at a half, a quarter or an eighth where that is enough
        image.load()
        if fits:
            return content
        scaled = image.convert("RGB")
        scaled.thumbnail((side_px, side_px), Image.Resampling.BICUBIC)
        return encode(scaled, "jpg")


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
