"""Shapes at tensor borders are checked while the tests run."""

import os
from pathlib import Path

import jaxtyping
import pytest

jaxtyping.install_import_hook(
    ["rsvl_data.transforms", "rsvl_data.scenes", "rsvl_pretrain", "evaluation.metrics", "evaluation.bootstrap"],
    "typechecking.check",
)

from colour_source import build_colours  # noqa: E402

from rsvl_data.shards import Dataset  # noqa: E402


@pytest.fixture
def colours(tmp_path: Path) -> Dataset:
    """40 samples in 4 classes: train, val and test in shards of 10."""
    return build_colours(tmp_path / "colours")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of golden numbers and sample data; tests that need it are skipped where it is absent."""
    path = Path(os.environ.get("RSVL_SHARED", Path(__file__).parents[2] / "shared"))
    if not path.is_dir():
        pytest.skip(f"no shared fixtures at {path}; set RSVL_SHARED")
    return path
