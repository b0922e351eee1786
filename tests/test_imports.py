"""Who may import whom: rsvl_data <- rsvl_pretrain <- rsvl_segment <- evaluation <- cards, recipes; nobody imports recipes or tests."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "rsvl_data": set(),
    "rsvl_pretrain": {"rsvl_data"},
    "rsvl_segment": {"rsvl_data", "rsvl_pretrain"},
    "evaluation": {"rsvl_data", "rsvl_pretrain", "rsvl_segment"},
    "cards": {"rsvl_data", "rsvl_pretrain", "rsvl_segment", "evaluation"},
    "recipes": {"rsvl_data", "rsvl_pretrain", "rsvl_segment", "evaluation", "cards"},
}
HOUSE = {*MAY_IMPORT, "tests", "benchmarks"}
FILES = [path for package in MAY_IMPORT for path in sorted((ROOT / package).rglob("*.py"))]


def imported_by(path: Path) -> set[str]:
    packages = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            packages |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            packages.add((node.module or "").split(".")[0])
    return packages


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_arrows_point_one_way(path):
    package = path.relative_to(ROOT).parts[0]
    wrong = (imported_by(path) & HOUSE) - MAY_IMPORT[package] - {package}
    assert not wrong, f"{package} must not import {', '.join(sorted(wrong))}"


def test_metrics_import_no_model():
    for path in (ROOT / "evaluation" / "metrics").rglob("*.py"):
        assert not imported_by(path) & {"rsvl_pretrain", "rsvl_segment", "open_clip"}, path


def test_the_command_line_starts_without_torch():
    """`rsvl --help` and `rsvl run` answer at once."""
    code = "import sys; from recipes.cli import main; main(['run']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


@pytest.mark.parametrize("late", ["datasets", "datatrove", "ftfy", "httpx", "yaml"])
def test_a_build_starts_without_what_it_may_not_need(late):
    """datasets takes a second to import; datatrove is for the workers alone, and the others for odd texts, URLs and sources."""
    code = f"import sys, importlib; importlib.import_module('recipes.data.import'); sys.exit({late!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
