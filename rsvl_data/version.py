"""Which code made a file: written into manifests, checkpoints and results."""

import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path


@cache
def code_version() -> str:
    """The package version, and the commit when this package is run from its own git checkout: `0.1.0+g1a2b3c4`.

    `.dirty` is added when tracked files differ from that commit. A package that was installed into an environment which
    happens to lie inside somebody's repository has no commit of its own, and gets the plain version.
    """
    commit = _commit(Path(__file__).resolve().parent)
    return version("rsvl") + (f"+g{commit}" if commit else "")


def _commit(package: Path) -> str | None:
    """None without git, outside a checkout, or in a checkout that has no commit yet."""
    top = _git(package, "rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != package.parent:
        return None
    # --exclude=* ignores tags, so the answer is always a bare hash
    described = _git(package, "describe", "--always", "--dirty", "--exclude=*", "--abbrev=7")
    return described and described.replace("-dirty", ".dirty")


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
