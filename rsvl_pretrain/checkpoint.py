"""Checkpoints: written aside and renamed, so that whatever has its final name can be loaded.

RUN/checkpoints/step_00000200/   accelerate's state (weights, optimizer, random states) and trainer.json
"""

import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from safetensors import SafetensorError

from rsvl_data.errors import DataError, OptionError
from rsvl_data.shards import write_atomically

log = logging.getLogger(__name__)


def save_checkpoint(accelerator: Accelerator, run: Path, step: int, identity: dict[str, Any], keep: int) -> None:
    """`identity` is what a continued run must share with this one. The newest `keep` checkpoints stay."""
    final = _folder(run) / f"step_{step:08d}"
    aside = final.with_name(final.name + ".tmp")
    if accelerator.is_main_process:
        shutil.rmtree(aside, ignore_errors=True)
    accelerator.wait_for_everyone()
    try:
        accelerator.save_state(str(aside))
    except (OSError, RuntimeError, SafetensorError) as error:  # torch and safetensors have their own words for a full disk
        shutil.rmtree(aside, ignore_errors=True)
        older = next(iter(finished_checkpoints(run)[::-1]), None)
        raise DataError(
            f"the checkpoint of step {step} could not be written: {error}. "
            + (f"{older} is whole: make room and go on with --resume latest." if older else "Make room and start again.")
        ) from error
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        write_atomically(aside / "trainer.json", json.dumps({"step": step, "identity": identity}, indent=1).encode())
        for path in filter(Path.is_file, aside.rglob("*")):
            with path.open("rb") as file:
                os.fsync(file.fileno())  # the bytes are on the disk before the name is
        shutil.rmtree(final, ignore_errors=True)
        aside.replace(final)
        for old in finished_checkpoints(run)[:-keep]:
            shutil.rmtree(old)
    accelerator.wait_for_everyone()


def finished_checkpoints(run: Path) -> list[Path]:
    """Oldest first. What a killed run left half-written is not among them, and is said."""
    folders = [path for path in sorted(_folder(run).glob("step_*")) if path.is_dir()]
    unfinished = [path for path in folders if path.suffix == ".tmp"]
    for path in unfinished:
        log.warning("%s was not finished; it is ignored", path)
    return [path for path in folders if path not in unfinished]


def find_checkpoint(run: Path, resume: str | None) -> Path | None:
    """The checkpoint to go on from: None to start afresh.

    `resume` is "latest" (open_clip's word: the newest, or a fresh start when there is none) or the path of a checkpoint.
    Raises OptionError when a fresh start would overwrite a run.
    """
    if resume is None:
        if finished_checkpoints(run):
            raise OptionError(f"{run} holds a run already. Go on with --resume latest, or give another --out.")
        return None
    if resume == "latest":
        return next(iter(finished_checkpoints(run)[::-1]), None)
    if not (Path(resume) / "trainer.json").is_file():
        raise OptionError(f"--resume {resume} is not a checkpoint; give `latest` or a folder step_N of {_folder(run)}")
    return Path(resume)


def load_checkpoint(accelerator: Accelerator, checkpoint: Path, identity: dict[str, Any]) -> int:
    """Restore weights, optimizer and random states; return the number of steps done.

    Raises DataError, naming what differs, for a run whose `identity` is not the one saved.
    """
    saved = json.loads((checkpoint / "trainer.json").read_text())
    differs = [name for name in {**saved["identity"], **identity} if saved["identity"].get(name) != identity.get(name)]
    if differs:
        changes = "; ".join(f"{name} was {saved['identity'].get(name)!r}, is {identity.get(name)!r}" for name in differs)
        raise DataError(
            f"{checkpoint} cannot be continued as the run asked for: {changes}. Use the same options or another --out."
        )
    accelerator.load_state(str(checkpoint))
    return saved["step"]


def _folder(run: Path) -> Path:
    return run / "checkpoints"
