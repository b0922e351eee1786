"""The README tells the truth: its commands run, its links lead somewhere, its numbers are those of the result files."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from recipes.cli import main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
COMMANDS = re.findall(r"^rsvl .+$", "\n".join(re.findall(r"```bash\n(.*?)```", README, re.S)), re.M)


def test_the_chain_runs_as_written(tmp_path, monkeypatch):
    """On forty images of one's own. Nothing is changed but the number of training steps and the batch, which small sets need smaller."""
    monkeypatch.chdir(tmp_path)
    for number in range(60):
        path = tmp_path / "my_images" / ("forest", "lake", "bare_land")[number % 3] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (48, 48), (80 * (number % 3), 2 * number, 90)).save(path)
    assert len(COMMANDS) == 8
    for command in COMMANDS:
        words = shlex.split(command.replace("--train.steps 300", "--train.steps 2").replace("--batch-size 64", "--batch-size 8"))
        assert main(words[1:]) == 0, command
    assert (tmp_path / "runs/mine/report.html").stat().st_size > 10_000
    assert (tmp_path / "runs/mine/run/export/README.md").exists()
    for line in re.findall(r"^runs/mine/(\w+)/\s+(.+)$", README, re.M):
        folder = tmp_path / "runs" / "mine" / line[0]
        for name in re.findall(r"([\w/-]+\.\w+|\w+/)(?=[\s,]|$)", line[1]):
            assert name == "dropped/" or list(folder.glob(name.rstrip("/"))), f"README promises {line[0]}/{name}"


@pytest.mark.parametrize("target", ["quickstart", "test", "venv"])
def test_make_targets_exist(target):
    assert f"make {target}" in README
    assert subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True).returncode == 0


def test_quickstart_takes_data_and_out():
    command = ["make", "--dry-run", "quickstart", "DATA=some/images", "OUT=runs/mine"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert "rsvl run quickstart --out runs/mine --data some/images" in done.stdout


@pytest.mark.parametrize(
    "document", [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda p: p.name
)
def test_links_lead_somewhere(document):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text()):
        assert (document.parent / target).exists(), target


def test_every_folder_is_on_the_map():
    folders = {path.name for path in ROOT.iterdir() if path.is_dir() and (path / "__init__.py").exists()}
    assert folders <= set(re.findall(r"^\| `(\w+)` \|", README, re.M))


def test_numbers_are_those_of_the_result_files():
    done = subprocess.run([sys.executable, "-m", "benchmarks.tables", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
