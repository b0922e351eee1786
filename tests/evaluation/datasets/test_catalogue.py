"""The catalogue, the names that open a dataset, `rsvl eval ls` and the page of docs."""

import os
from pathlib import Path

import pytest
from small_trees import grow_images

from evaluation import data as data_module
from evaluation.data import EvalSet
from evaluation.datasets import catalogue, open_dataset
from evaluation.datasets.entry import spelling
from evaluation.datasets.listing import catalogue_page, list_datasets
from recipes.cli import main
from rsvl_data.errors import DataError, OptionError

ROOT = Path(__file__).parents[3]
ENTRIES = {entry.name: entry for entry in catalogue()}


@pytest.mark.parametrize("entry", catalogue(), ids=lambda entry: entry.name)
def test_an_entry_says_all_there_is_to_say(entry):
    assert entry.home.startswith("http") and " " not in entry.home
    assert entry.licence and entry.citation and entry.notes and entry.splits and entry.folders and entry.layouts
    assert set(entry.tasks) <= {"zero-shot", "retrieval", "segmentation", "referring"}
    assert len({spelling(label) for label in entry.classes}) == len(entry.classes), "classes that differ in spelling alone"
    assert set(entry.aliases.values()) <= set(entry.classes)
    for split in entry.splits:
        assert split.files_sha256 is None or len(split.files_sha256) == 64
        assert split.list_md5 is None or len(split.list_md5) == 32


def test_the_datasets_that_the_issue_asks_for():
    zero_shot = {"aid", "resisc45", "eurosat", "ucm", "whu-rs19", "patternnet", "rsicb256", "fmow", "millionaid", "skyscript-cls"}
    captions = {"rsicd", "rsitmd", "ucm-captions", "sydney-captions", "nwpu-captions", "gaia", "skyscript"}
    assert {name for name, entry in ENTRIES.items() if "zero-shot" in entry.tasks} == zero_shot | {"rsscn7", "optimal-31"}
    assert {name for name, entry in ENTRIES.items() if "retrieval" in entry.tasks} == captions
    sizes = {"aid": 30, "resisc45": 45, "eurosat": 10, "ucm": 21, "whu-rs19": 19, "patternnet": 38, "rsicb256": 35, "fmow": 62}
    sizes |= {"millionaid": 51, "rsscn7": 7, "optimal-31": 31}
    assert {name: len(ENTRIES[name].classes) for name in sizes} == sizes


@pytest.mark.parametrize("name", ["RSSCN7", "rsscn-7", "rsscn7"])
def test_names_in_any_spelling(tmp_path, name):
    folders = ENTRIES["rsscn7"].aliases
    grow_images(tmp_path, [f"RSSCN7/{folder}/1.jpg" for folder in folders])
    assert len(open_dataset(name, tmp_path).items) == 7


def test_a_dataset_folder_of_ours_by_its_path(colours, tmp_path, monkeypatch):
    data = open_dataset(str(colours.root), tmp_path / "elsewhere")
    assert (data.split, data.sha256()) == ("test", open_dataset(colours.root.name, colours.root.parent, "test").sha256())
    assert len(open_dataset(colours.root.name, colours.root.parent, "train").items) == colours.splits["train"]
    typed: EvalSet = data
    assert typed.items[0].label in typed.classes


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("eurosatt", r"no dataset is called 'eurosatt'; did you mean eurosat\? Known: aid, resisc45"),
        ("nothing like it", "no dataset is called 'nothing like it'. Known: "),
        ("wds:", "no dataset is called 'wds:'"),
    ],
)
def test_unknown_names(tmp_path, name, message):
    with pytest.raises(OptionError, match=message):
        open_dataset(name, tmp_path)


def test_a_root_that_is_not_there_and_one_without_the_dataset(tmp_path):
    with pytest.raises(DataError, match=r"nowhere does not exist\. Give the folder that holds AID\."):
        open_dataset("aid", tmp_path / "nowhere")
    with pytest.raises(
        DataError, match=r"AID is not under .*\n  .*\n  a folder of images a class\nGet it at https://captain-whu"
    ):
        open_dataset("aid", tmp_path)
    assert ENTRIES["aid"].find(tmp_path / "nowhere") is None
    with pytest.raises(DataError, match="is not a finished dataset"):
        open_dataset(str(tmp_path), tmp_path)


# --- listing --------------------------------------------------------------------------------------------------------------


def test_what_is_found_and_where_to_get_the_rest(tmp_path):
    grow_images(tmp_path, [f"aid/{label}/1.jpg" for label in ENTRIES["aid"].classes])
    lines = {line.name: line for line in list_datasets(catalogue(), tmp_path)}
    assert lines["aid"] == ("aid", "zero-shot", "all", True, str(tmp_path / "aid"))
    assert lines["rsicd"][2:] == ("test 1,093", False, "https://github.com/201528014227051/RSICD_optimal")
    assert not any(line.is_found for line in list_datasets(catalogue(), None))


def test_every_split_that_is_listed_opens(shared):
    """Samples have fewer splits than the published sets, and other ones."""
    found = [line for line in list_datasets(catalogue(), shared / "data") if line.is_found]
    assert {"loveda", "ucm", "ucm-captions", "eurosat"} <= {line.name for line in found}
    for line in found:
        assert line.splits, line.name
        for split in line.splits.split(", "):
            assert open_dataset(line.name, shared / "data", split).split == split, line.name


def test_a_copy_that_cannot_be_read(tmp_path):
    (tmp_path / "RSICD").mkdir()
    (tmp_path / "RSICD" / "dataset_rsicd.json").write_text("{")
    [line] = [line for line in list_datasets(catalogue(), tmp_path) if line.name == "rsicd"]
    assert (line.is_found, line.splits) == (True, "not readable")


def test_the_verb(tmp_path, capsys):
    grow_images(tmp_path, [f"aid/{label}/1.jpg" for label in ENTRIES["aid"].classes])
    assert main(["eval", "ls", "--root", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert f"1 of {len(ENTRIES)} found under" in out and "sydney-captions" in out
    assert main(["eval", "ls"]) == 0
    assert "where to get it" in capsys.readouterr().out
    assert main(["eval", "ls", "--root", str(tmp_path / "nowhere")]) == 2
    assert "is no folder" in capsys.readouterr().err


def test_the_page_is_written_from_the_catalogue(tmp_path):
    assert main(["eval", "ls", "--page", str(tmp_path / "page.md")]) == 0
    page = (tmp_path / "page.md").read_text()
    assert page == catalogue_page(catalogue())
    assert (ROOT / "docs/datasets.md").read_text() == page, "run `rsvl eval ls --page docs/datasets.md`"


def test_no_image_is_asked_for_before_it_is_read(tmp_path, monkeypatch):
    """A set of 700,000 lists its folders once."""
    folders = ENTRIES["rsscn7"].aliases
    grow_images(tmp_path, [f"RSSCN7/{folder}/{n}.jpg" for folder in folders for n in range(20)])
    listed, asked, read = [], [], []
    scandir, stat, sha256 = os.scandir, os.stat, data_module.file_sha256
    monkeypatch.setattr(os, "scandir", lambda path: listed.append(str(path)) or scandir(path))
    monkeypatch.setattr(os, "stat", lambda path, **more: asked.append(str(path)) or stat(path, **more))
    monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail(f"{path} is read"))
    monkeypatch.setattr(data_module, "file_sha256", lambda path: read.append(path) or sha256(path))
    data = open_dataset("rsscn7", tmp_path)
    assert not [path for path in asked if path.endswith(".jpg")] and not read
    assert sorted(path for path in listed if "Grass" in path) == [str(tmp_path / "RSSCN7/aGrass")]
    assert data.sha256() and len(read) == 140
