"""Shapes at tensor borders are checked while the tests run."""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import hypothesis
import jaxtyping
import pytest

jaxtyping.install_import_hook(
    [
        "rsvl_data.transforms",
        "rsvl_data.crops",
        "rsvl_data.colour_jitter",
        "rsvl_data.scenes",
        "rsvl_data.ranking.agreement",
        "rsvl_pretrain",
        "evaluation.metrics",
        "evaluation.bootstrap",
    ],
    "typechecking.check",
)

from colour_source import build_colours  # noqa: E402
from shared_folder import SHARED  # noqa: E402

from rsvl_data.shards import Dataset  # noqa: E402

# The same few examples in every run; `HYPOTHESIS_PROFILE=search` looks for new ones, many of them.
hypothesis.settings.register_profile("default", derandomize=True, max_examples=40, deadline=None, database=None)
hypothesis.settings.register_profile("search", max_examples=2000, deadline=None)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture
def colours(tmp_path: Path) -> Dataset:
    """40 samples in 4 classes: train, val and test in shards of 10."""
    return build_colours(tmp_path / "colours")


@pytest.fixture
def small_disk() -> Callable[[Path, str], AbstractContextManager[Callable[[str], None]]]:
    """`with small_disk(folder, "3m") as resize:` makes a folder a file system of that size; `resize("9m")` gives it more."""

    @contextmanager
    def mounted(folder: Path, size: str) -> Iterator[Callable[[str], None]]:
        def mount(*options: str) -> bool:
            return subprocess.run(["mount", *options, str(folder)], capture_output=True).returncode == 0

        def resize(larger: str) -> None:
            assert mount("-o", f"remount,size={larger}")

        if not mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs"):
            pytest.skip("mounting a small file system needs root")
        try:
            yield resize
        finally:
            subprocess.run(["umount", str(folder)], check=True)

    return mounted


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of golden numbers and sample data; tests that need it are skipped where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"no shared fixtures at {SHARED}; set RSVL_SHARED")
    return SHARED
