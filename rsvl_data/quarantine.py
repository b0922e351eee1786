"""What could not be used in training: written down once each, and no more of it than allowed.

RUN/quarantine.jsonl    one line a sample: step at which it was first met, key (null where the shard hides it), shard, row, reason, detail
"""

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal

from rsvl_data.errors import DataError
from rsvl_data.shards import write_atomically

BadReason = Literal["corrupt_shard", "unreadable_image", "no_usable_caption"]
_NUM_NAMED = 3


@dataclass(frozen=True)
class BadSample:
    step: int
    key: str | None
    shard: str
    row: int
    reason: BadReason
    detail: str


def most_bad_samples(allowed: float, num_samples: int) -> int:
    """`allowed` below 1 is a fraction of the samples, rounded up; from 1 on it is a count. 0 allows none."""
    return math.ceil(allowed * num_samples) if allowed < 1 else int(allowed)


class Quarantine:
    """The bad samples of one run. Every rank holds the same; the one that writes gives a `path`.

    A continued run drops the lines behind its checkpoint first, so that it ends with the file of a run that was not stopped.
    """

    def __init__(self, known: Iterable[BadSample], path: Path | None, limit: int):
        self.path, self.limit = path, limit
        self._found = {(bad.shard, bad.row): bad for bad in known}
        if path:
            write_atomically(path, "".join(map(_line, self._found.values())).encode())

    @staticmethod
    def read(path: Path, done: int) -> list[BadSample]:
        """Those met in the first `done` steps; none where there is no file. A line that a kill cut short is left out."""
        known: list[BadSample] = []
        for line in path.read_text().splitlines() if done and path.exists() else []:
            try:
                record = json.loads(line)
                known.append(BadSample(**{field.name: record[field.name] for field in fields(BadSample)}))
            except (ValueError, KeyError, TypeError):
                continue
        return [bad for bad in known if bad.step < done]

    def __len__(self) -> int:
        return len(self._found)

    def add(self, bad: Iterable[BadSample]) -> None:
        """Raises DataError once there are more than allowed; what was found is written first."""
        new = {(each.shard, each.row): each for each in bad if (each.shard, each.row) not in self._found}
        self._found |= new
        if self.path and new:
            with self.path.open("a") as file:
                file.write("".join(map(_line, new.values())))
        if len(self) > self.limit:
            named = "; ".join(each.detail for each in list(self._found.values())[:_NUM_NAMED])
            more = f"; and {len(self) - _NUM_NAMED} more" if len(self) > _NUM_NAMED else ""
            raise DataError(
                f"{len(self)} samples cannot be used, --train.max-bad-samples allows {self.limit}: {named}{more}. "
                "Mend the dataset (`rsvl data validate` names what is wrong), or allow more."
            )


def _line(bad: BadSample) -> str:
    return json.dumps(asdict(bad)) + "\n"
