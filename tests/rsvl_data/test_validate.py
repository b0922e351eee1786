import json
import shutil

import pytest

from recipes.cli import main
from rsvl_data.shards import Dataset
from rsvl_data.validate import problems


def test_a_sound_dataset_has_no_problems(colours, capsys):
    assert list(problems(colours)) == []
    assert main(["data", "validate", str(colours.root)]) == 0
    assert "40 samples" in capsys.readouterr().out


@pytest.mark.parametrize("suffix", ["jpg", "json", "txt"])
def test_one_turned_byte_names_shard_and_member(colours, capsys, suffix):
    shard = colours.shards("train")[1]
    member = next(m for m in shard.members[2] if m.suffix == suffix)
    turn_byte(shard.tar, member.offset + member.size // 2)
    assert main(["data", "validate", str(colours.root)]) == 1
    out = capsys.readouterr().out
    assert f"{shard.tar.stem}: member {member.name} differs" in out and "1 problem" in out


def test_every_byte_counts(colours):
    """Headers, padding and the end mark too."""
    shard = colours.shards("val")[0]
    content = shard.tar.read_bytes()
    for position in (0, 100, shard.members[0][0].offset + shard.members[0][0].size + 1, len(content) - 1):
        turn_byte(shard.tar, position)
        assert len(list(problems(colours))) == 1, position
        shard.tar.write_bytes(content)
    assert list(problems(colours)) == []


def turn_byte(path, position):
    content = bytearray(path.read_bytes())
    content[position] ^= 0x10
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: (root / "data" / "val-00000.tar").unlink(), "val-00000: val-00000.tar is missing"),
        (lambda root: turn_byte(root / "data" / "val-00000.parquet", 40), "val-00000.parquet is not the file that was written"),
        (lambda root: turn_byte(root / "data" / "val-00000.idx", 9), "val-00000.idx is not the file that was written"),
        (lambda root: cut(root / "data" / "val-00000.tar"), "val-00000: "),
        (lambda root: swap(root), "val-00000: "),
    ],
)
def test_damaged_files(colours, damage, message):
    damage(colours.root)
    found = list(problems(Dataset.open(colours.root)))
    assert found and all(message in problem for problem in found)


def cut(path):
    path.write_bytes(path.read_bytes()[:-2000])


def swap(root):
    shutil.copy(root / "data" / "test-00000.tar", root / "data" / "val-00000.tar")


def test_counts_that_do_not_add_up(colours):
    manifest = {**colours.manifest, "splits": {**colours.splits, "train": 1}}
    (colours.root / "manifest.json").write_text(json.dumps(manifest))
    assert any("its shards hold" in problem for problem in problems(Dataset.open(colours.root)))
