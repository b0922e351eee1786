"""`rsvl card ...`: the pages that go to the Hub."""

from pathlib import Path
from typing import Annotated

import tyro

from cards.model_card import write_model_card
from evaluation.result import Result


def model(run: Annotated[Path, tyro.conf.Positional], /, results: tuple[Path, ...] = ()) -> int:
    """Write the model card of a run, export/README.md, with the numbers of these results.

    Args:
        run: run folder
        results: result files of `rsvl eval`
    """
    print(write_model_card(run, [Result.load(path) for path in results]))
    return 0


VERBS = {"model": model}
