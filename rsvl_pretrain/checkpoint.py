"""Checkpoints: written aside and renamed, so that whatever has its final name was whole when it got it.

RUN/checkpoints/step_00000200/   accelerate's state (weights, optimizer), ema.safetensors where weights are averaged, and trainer.json:
                                 the step, what a continued run must share, and size and sha256 of every other file

No random state is among them: that of a step follows from (seed, step, rank), so any number of processes can go on. Nothing is
unpickled but by torch's reader of tensors and plain values (`weights_only`), and a file that the run did not write is refused.
"""

import hashlib
import json
import logging
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import safetensors.torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from safetensors import SafetensorError
from torch import nn

from rsvl_data.errors import DataError, OptionError, RsvlError
from rsvl_data.shards import write_atomically
from rsvl_pretrain.ema import WeightEma

Found = TypeVar("Found")
log = logging.getLogger(__name__)
_EMA, _TRAINER = "ema.safetensors", "trainer.json"


def save_checkpoint(
    accelerator: Accelerator, run: Path, step: int, identity: dict[str, Any], keep: int, ema: WeightEma | None = None
) -> None:
    """`identity` is what a continued run must share with this one. Of the checkpoints up to this one the newest `keep` stay.

    Raises DataError on every process when one of them could not write; the checkpoints before are as they were.
    """
    final = _folder(run) / f"step_{step:08d}"
    aside = final.with_name(final.name + ".tmp")

    def write() -> None:
        _save_state(accelerator, aside)
        tensors = ema.whole_tensors() if ema else None
        if tensors and accelerator.is_main_process:
            safetensors.torch.save_file(tensors, aside / _EMA)

    def finish() -> None:
        if accelerator.is_main_process:
            for path in aside.glob("random_states_*.pkl"):
                path.unlink()
            saved = {"step": step, "identity": identity, "files": _synced_files(aside)}
            write_atomically(aside / _TRAINER, json.dumps(saved, indent=1).encode())
            shutil.rmtree(final, ignore_errors=True)
            aside.replace(final)
            for old in [path for path in finished_checkpoints(run) if path <= final][:-keep]:
                shutil.rmtree(old)

    if accelerator.is_main_process:
        shutil.rmtree(aside, ignore_errors=True)
    accelerator.wait_for_everyone()
    for act in (write, finish):
        if failed := _failure_anywhere(act):
            shutil.rmtree(aside, ignore_errors=True)
            older = next((path for path in finished_checkpoints(run)[::-1] if not _damage(path)), None)
            raise DataError(
                f"the checkpoint of step {step} could not be written: {failed}. "
                + (f"{older} is whole: make room and go on with --resume latest." if older else "Make room and start again.")
            )


def _failure_anywhere(act: Callable[[], None]) -> str | None:
    """Every process acts; why one of them failed is known to all, so that none waits for it."""
    failure: list[str] = []
    try:
        act()
    except (OSError, RuntimeError, SafetensorError) as error:  # torch and safetensors have their own words for a full disk
        failure = [str(error).splitlines()[0]]
    return next(iter(gather_object(failure)), None)


def _save_state(accelerator: Accelerator, folder: Path) -> None:
    def unwrap(models: list[nn.Module], weights: list[Any], _: str) -> None:
        if weights:  # DDP calls them module.NAME, which one process alone could not load; sharded engines leave this empty
            weights[:] = [accelerator.unwrap_model(model, keep_torch_compile=False).state_dict() for model in models]

    handle = accelerator.register_save_state_pre_hook(unwrap)
    try:
        accelerator.save_state(str(folder))
    finally:
        handle.remove()


def _load_state(accelerator: Accelerator, folder: Path) -> None:
    def unwrap(models: list[nn.Module], _: str) -> None:
        models[:] = [accelerator.unwrap_model(model, keep_torch_compile=False) for model in models]

    handle = accelerator.register_load_state_pre_hook(unwrap)
    try:
        accelerator.load_state(str(folder), load_kwargs={"weights_only": True})
    finally:
        handle.remove()


def _synced_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Size and sha256 by name. The bytes are on the disk when this returns."""
    files = {}
    for path in sorted(filter(Path.is_file, folder.rglob("*"))):
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            os.fsync(file.fileno())
        files[path.relative_to(folder).as_posix()] = {"bytes": path.stat().st_size, "sha256": sha256}
    return files


def finished_checkpoints(run: Path) -> list[Path]:
    """Oldest first; whether they are still whole is not looked at. What a killed run left half-written is not among them."""
    return [path for path in sorted(_folder(run).glob("step_*")) if path.is_dir() and path.suffix != ".tmp"]


def find_checkpoint(accelerator: Accelerator, run: Path, resume: str | None) -> Path | None:
    """The checkpoint to go on from, the same on all processes: None to start afresh.

    `resume` is "latest" (open_clip's word: the newest that is whole, or a fresh start when there is none at all) or the path of a
    checkpoint. Raises OptionError when a fresh start would overwrite a run, DataError when none can be trusted.
    """
    return _from_main(accelerator, lambda: _find(run, resume))


def _find(run: Path, resume: str | None) -> Path | None:
    found = finished_checkpoints(run)
    if resume is None:
        if found:
            raise OptionError(f"{run} holds a run already. Go on with --resume latest, or give another --out.")
        return None
    if resume != "latest":
        if not (Path(resume) / _TRAINER).is_file():
            raise OptionError(f"--resume {resume} is not a checkpoint; give `latest` or a folder step_N of {_folder(run)}")
        if damage := _damage(Path(resume)):
            raise DataError(f"{resume} is damaged: {damage}. Give --resume latest, or another checkpoint of {_folder(run)}.")
        return Path(resume)
    for unfinished in sorted(_folder(run).glob("step_*.tmp")):
        log.warning("%s was not finished; it is ignored", unfinished)
    for path in found[::-1]:
        damage = _damage(path)
        if not damage:
            return path
        log.warning("%s is damaged: %s. The checkpoint before it is used", path, damage)
    if found:
        raise DataError(f"no checkpoint in {_folder(run)} is whole, see above. To start again, remove that folder.")
    return None


def _damage(checkpoint: Path) -> str | None:
    """How the files differ from those that were saved; None if they do not. Raises DataError for one that was never saved."""
    try:
        files = json.loads((checkpoint / _TRAINER).read_text())["files"]
        told = {name: (about["bytes"], about["sha256"]) for name, about in files.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return f"its {_TRAINER} is missing or does not say which files belong to it"
    present = {path.relative_to(checkpoint).as_posix() for path in checkpoint.rglob("*") if not path.is_dir()} - {_TRAINER}
    if foreign := sorted(present - told.keys()):
        raise DataError(
            f"{checkpoint} holds {foreign[0]}, which was not saved with it. Nothing was loaded; remove that file first."
        )
    for name, (size, sha256) in told.items():
        if name not in present:
            return f"{name} is missing"
        with (checkpoint / name).open("rb") as file:
            if (found := os.fstat(file.fileno()).st_size) != size:
                return f"{name} has {found} bytes of {size}"
            if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                return f"{name} has another sha256 than when it was saved"
    return None


def _from_main(accelerator: Accelerator, find: Callable[[], Found]) -> Found:
    """The main process looks and the others hear what it found, or raise the same error."""
    outcome: list[Any] = [None]
    if accelerator.is_main_process:
        try:
            outcome = [find()]
        except RsvlError as error:
            outcome = [error]
    found = broadcast_object_list(outcome)[0]
    if isinstance(found, RsvlError):
        raise found
    return found


def load_checkpoint(accelerator: Accelerator, checkpoint: Path, identity: dict[str, Any], ema: WeightEma | None = None) -> int:
    """Restore weights, optimizer and averages; return the number of steps done.

    Raises DataError, naming what differs, for a run whose `identity` is not the one saved.
    """
    saved = json.loads((checkpoint / _TRAINER).read_text())
    differs = [name for name in {**saved["identity"], **identity} if saved["identity"].get(name) != identity.get(name)]
    if differs:
        changes = "; ".join(f"{name} was {saved['identity'].get(name)!r}, is {identity.get(name)!r}" for name in differs)
        raise DataError(
            f"{checkpoint} cannot be continued as the run asked for: {changes}. Use the same options or another --out."
        )
    try:
        _load_state(accelerator, checkpoint)
        if ema:
            ema.load(checkpoint / _EMA)
    except (OSError, RuntimeError, ValueError, KeyError, EOFError, pickle.UnpicklingError, SafetensorError) as error:
        raise DataError(
            f"{checkpoint} cannot be loaded: {str(error).splitlines()[0]} "
            "Nothing in it was executed. Is it what a run of ours wrote?"
        ) from error
    return saved["step"]


def _folder(run: Path) -> Path:
    return run / "checkpoints"
