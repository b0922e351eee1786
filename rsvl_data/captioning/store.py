"""Every answer that a model gave, kept the moment it came, so that no run pays for it twice.

    STORE/rs-generic-short-1-0b51f5ce/1c0c9f2a77b0f5d3.jsonl     one file a task; a JSON object a line, appended

A line holds the raw answers to one request, good or bad, with all that decides them: sha256 of the image, prompt, model, revision,
sampling with its seed. The checks run again on what is stored, so they may change without asking a model again.

A line reaches the operating system at once: a killed process loses none that `put` has returned for. It reaches the disk within
`SYNC_S` seconds of the next answer, and at the end: a machine that loses power loses those seconds, and asks for them again. A last line
that was cut is taken off; a line that cannot be read is skipped and asked for again.
"""

import fcntl
import hashlib
import json
import logging
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from rsvl_data.captioning.engine import Answer, Sampling
from rsvl_data.errors import DataError
from rsvl_data.sample import Prompt, TextSource

SYNC_S = 5.0
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Question:
    """All that decides an answer, but for the machine that computes it.

    image_sha256   of the stored image; empty for a question about the text alone
    image_side_px  the longer side to which the image is scaled down before the model sees it
    text_sha256    of the rendered prompt: the template's words and the sample's facts
    """

    image_sha256: str
    image_side_px: int
    text_sha256: str
    prompt: Prompt
    source: TextSource
    sampling: Sampling

    def to_json(self) -> dict[str, Any]:
        return {
            "image_sha256": self.image_sha256,
            "image_side_px": self.image_side_px,
            "text_sha256": self.text_sha256,
            "prompt": self.prompt.model_dump(),
            "source": self.source.model_dump(exclude_none=True),
            "sampling": asdict(self.sampling),
        }

    @property
    def key(self) -> str:
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()


class AnswerStore:
    """The file of one task. One process at a time has it open; its threads share it. Raises DataError when another one has it."""

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._file = open(path, "a+b")  # noqa: SIM115 - closed by __exit__
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.close()
            raise DataError(f"{path} is in use by another process; let it end, or give another store") from error
        except OSError:  # a file system without locks: datatrove gives a task to one process
            log.debug("no lock on %s", path)
        _take_off_cut_line(self._file.fileno())
        self._file.seek(0)
        self._answers = {line["key"]: _answers(line) for line in _lines(self._file, path)}
        self._synced_s = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.fsync(self._file.fileno())
        self._file.close()

    def get(self, question: Question) -> list[Answer] | None:
        return self._answers.get(question.key)

    def put(self, question: Question, answers: list[Answer], sample_key: str) -> None:
        line = {
            "key": question.key,
            "sample": sample_key,
            **question.to_json(),
            "answers": [asdict(answer) for answer in answers],
        }
        content = json.dumps(line).encode() + b"\n"
        with self._lock:
            self._file.write(content)
            self._file.flush()
            self._answers[line["key"]] = answers
            if time.monotonic() - self._synced_s >= SYNC_S:
                os.fsync(self._file.fileno())
                self._synced_s = time.monotonic()


def read_answers(store: Path) -> Iterator[dict[str, Any]]:
    """Every line under a store folder, for those who want to rank or judge again: the fields of `Question.to_json`, `sample`, `answers`."""
    for path in sorted(store.rglob("*.jsonl")):
        with open(path, "rb") as file:
            yield from _lines(file, path)


def _take_off_cut_line(descriptor: int) -> None:
    """What stands after the last end of a line was being written when the process died."""
    size = os.fstat(descriptor).st_size
    end = size
    while end:
        start = max(0, end - 65_536)
        newline = os.pread(descriptor, end - start, start).rfind(b"\n")
        if newline >= 0:
            end = start + newline + 1
            break
        end = start
    if end < size:
        os.ftruncate(descriptor, end)


def _lines(file: Any, path: Path) -> Iterator[dict[str, Any]]:
    num_bad = 0
    for content in file:
        try:
            line = json.loads(content)
            _answers(line), line["key"], line["sample"]
        except (ValueError, TypeError, KeyError):
            num_bad += 1
        else:
            yield line
    if num_bad:
        log.warning("%s: %d lines cannot be read; their questions will be asked again", path, num_bad)


def _answers(line: dict[str, Any]) -> list[Answer]:
    return [Answer(**answer) for answer in line["answers"]]
