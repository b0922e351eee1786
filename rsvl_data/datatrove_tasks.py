"""One task of a build as datatrove runs it: its steps piped into each other, and a mark in `logging_dir` when it is done."""

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path

import loguru
from datatrove.executor import LocalPipelineExecutor

from rsvl_data.executor import Step


def run_task(steps: Sequence[Step], rank: int, tasks: int, logging_dir: Path) -> None:
    """Nothing, when the mark is there. Raises what a step raises."""
    # Its log would go to the terminal and to a file, and on a full disk say so in pages; errors reach the caller of `build`.
    loguru.logger.disable("datatrove")
    try:
        executor = LocalPipelineExecutor(deepcopy(list(steps)), tasks=tasks, logging_dir=str(logging_dir))
        executor._run_for_rank(rank, local_rank=1)
    finally:
        loguru.logger.enable("datatrove")
