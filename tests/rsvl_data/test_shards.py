import errno
import gc
import json
import tarfile

import numpy as np
import pyarrow.parquet as pq
import pytest

from rsvl_data.errors import CorruptShard, DataError
from rsvl_data.sample import Caption, Sample
from rsvl_data.shards import Dataset, Shard, write_all_atomically, write_atomically, write_shard
from rsvl_data.tar_header import tar_header


def sample(key: str, **fields) -> Sample:
    return Sample(key=key, width=4, height=3, sha256="0" * 64, image=b"image of " + key.encode(), **fields)


def test_python_tarfile_reads_what_we_write(tmp_path):
    write_shard(tmp_path, "train-00000", iter([sample("a", captions=[Caption(text="one")]), sample("b", mask=None)]))
    with tarfile.open(tmp_path / "train-00000.tar") as tar:
        assert [m.name for m in tar] == ["a.jpg", "a.json", "a.txt", "b.jpg", "b.json", "b.txt"]
        assert tar.extractfile("a.txt").read() == b"one"
        assert all(m.mtime == 0 and m.uid == 0 and m.uname == "" for m in tar.getmembers())


def test_files_written_together_are_whole_and_an_error_is_that_of_the_file(tmp_path):
    contents = {tmp_path / "folder" / f"{number}": bytes([number]) * number for number in range(30)}
    write_all_atomically(contents)
    assert {path: path.read_bytes() for path in (tmp_path / "folder").iterdir()} == contents
    (tmp_path / "taken").write_bytes(b"")
    with pytest.raises(OSError, match="taken"):
        write_all_atomically({tmp_path / "a": b"1", tmp_path / "taken" / "b": b"2"})
    write_all_atomically({})


@pytest.mark.parametrize("name", ["a.jpg", "0f" * 8 + ".mask.png", "n" * 100, "é.jpg", "n" * 40 + "/" + "n" * 80])
@pytest.mark.parametrize("size", [0, 1, 511, 123_456_789, 8**11 - 1])
def test_headers_are_those_of_tarfile(name, size):
    info = tarfile.TarInfo(name)
    info.size = size
    assert tar_header(name, size) == info.tobuf(tarfile.USTAR_FORMAT)


def test_a_file_that_no_header_can_hold_is_refused():
    with pytest.raises(ValueError, match="overflow"):
        tar_header("a.jpg", 8**11)


def test_index_agrees_with_tarfile_and_gives_random_access(tmp_path):
    written = [sample(f"s{i}", mask=b"m" * i, captions=[Caption(text=f"t{i}")]) for i in range(5)]
    write_shard(tmp_path, "x-00000", iter(written))
    shard = Shard(tmp_path / "x-00000.tar")
    with tarfile.open(shard.tar) as tar:
        offsets = {m.name: (m.offset_data, m.size) for m in tar}
    assert {m.name: (m.offset, m.size) for members in shard.members for m in members} == offsets
    assert [shard.sample(i) for i in (3, 0, 4)] == [written[i] for i in (3, 0, 4)]
    assert shard.sample(2).mask == b"mm"
    assert shard.read(1, "txt") == {"txt": b"t1"}
    assert (tmp_path / "x-00000.idx").read_text().splitlines()[0] == "v1.2 5"


def test_parquet_has_a_row_a_sample(tmp_path):
    write_shard(
        tmp_path,
        "x-0",
        iter([sample("a", captions=[Caption(text="t", lang="fr"), Caption(text="u")], label="lake"), sample("b")]),
    )
    rows = pq.read_table(tmp_path / "x-0.parquet").to_pylist()
    assert (rows[0]["key"], rows[0]["caption"], rows[0]["captions"], rows[0]["caption_langs"]) == (
        "a",
        "t",
        ["t", "u"],
        ["fr", "en"],
    )
    assert rows[0]["label"] == "lake" and rows[1]["captions"] == [] and rows[1]["caption"] is None


def test_no_samples_no_files(tmp_path):
    assert write_shard(tmp_path, "x-0", iter([])) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("samples", "message"),
    [([sample("a"), sample("a")], "key a occurs twice"), ([sample("a", mask=b"m"), sample("b")], "sample b has members")],
)
def test_samples_that_do_not_belong_in_one_shard(tmp_path, samples, message):
    with pytest.raises(DataError, match=message):
        write_shard(tmp_path, "x-0", iter(samples))
    assert list(tmp_path.iterdir()) == []


def test_full_disk_leaves_no_file_under_a_real_name(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_shard(tmp_path, "x-0", iter([sample("a")]))
    with pytest.raises(OSError, match="No space left"):
        write_atomically(tmp_path / "manifest.json", b"{}")
    assert list(tmp_path.iterdir()) == []


def test_a_really_full_disk(tmp_path, small_disk):
    """The kernel's own refusal."""
    with small_disk(tmp_path, "64k"):
        with pytest.raises(OSError, match="No space left"):
            write_shard(tmp_path / "data", "x-0", (sample(f"k{i}", captions=[Caption(text="t" * 500)]) for i in range(500)))
        assert list((tmp_path / "data").iterdir()) == []
        assert write_shard(tmp_path / "data", "x-0", iter([sample("a")]))["samples"] == 1


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda tar: tar.write_bytes(tar.read_bytes()[:600]), "member a.jpg is cut|member a.json is cut"),
        (lambda tar: tar.with_suffix(".idx").unlink(), "cannot be read as an index"),
        (lambda tar: tar.with_suffix(".idx").write_text("v1.2 9\n"), "lists 0 samples"),
        (lambda tar: tar.with_suffix(".idx").write_bytes(b"\xff\xfe junk"), "cannot be read as an index"),
    ],
)
def test_damage_is_named(tmp_path, damage, message):
    write_shard(tmp_path, "x-0", iter([sample("a", captions=[Caption(text="one")])]))
    damage(tmp_path / "x-0.tar")
    with pytest.raises(CorruptShard, match=message):
        Shard(tmp_path / "x-0.tar").sample(0)


def test_a_folder_that_is_no_dataset(tmp_path):
    with pytest.raises(DataError, match="not a finished dataset"):
        Dataset.open(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read"):
        Dataset.open(tmp_path)


def test_unknown_split_and_member(colours):
    with pytest.raises(DataError, match="no split 'dev'; it has train, val, test"):
        colours.shards("dev")
    with pytest.raises(CorruptShard, match="no member .png; it has jpg, json, txt"):
        colours.shards("train")[0].read(0, "png")


def test_dataset_reads_itself_back(colours):
    keys = [s.key for split in colours.splits for s in colours.samples(split)]
    assert keys == [key for split in colours.splits for key in colours.table(split, ["key"])["key"].to_pylist()]
    assert len(set(keys)) == 40
    assert json.loads((colours.root / "data" / "sizes.json").read_text()) == {
        f"{s['name']}.tar": s["samples"] for s in colours.manifest["shards"]
    }


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
def test_plain_webdataset_reads_it(colours):
    import webdataset

    tars = [str(shard.tar) for shard in colours.shards("train")]
    read = list(webdataset.WebDataset(tars, shardshuffle=False).decode("rgb8"))
    assert len(read) == colours.splits["train"]
    first = next(colours.samples("train"))
    assert (
        read[0]["__key__"] == first.key and read[0]["txt"] == first.captions[0].text and read[0]["json"]["label"] == first.label
    )
    assert isinstance(read[0]["jpg"], np.ndarray) and read[0]["jpg"].shape == (36, 40, 3)
    gc.collect()  # webdataset leaves its files to the collector, which warns
