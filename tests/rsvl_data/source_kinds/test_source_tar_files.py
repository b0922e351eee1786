import bz2
import errno
import gzip
import lzma
import multiprocessing
import os
import resource
import tarfile
from contextlib import nullcontext

import pyarrow as pa
import pytest
from foreign_tars import picture, write_tar

from rsvl_data.errors import DataError
from rsvl_data.image_form import DEFAULT_FORM
from rsvl_data.sources import clip_benchmark, img2dataset, rs5m, tar_files
from rsvl_data.sources.tar_files import BadArchive, tar_bytes
from rsvl_data.sources.tar_index import first_suffixes, index_tar
from rsvl_data.sources.tar_members import list_tars, tar_entries
from rsvl_data.stage import Dropped

PACKED = {
    ".tar": lambda content: content,
    ".tar.gz": gzip.compress,
    ".tgz": lambda content: gzip.compress(content[:700]) + gzip.compress(content[700:]),  # as pigz and bgzip write
    ".tar.bz2": bz2.compress,
    ".tbz2": lambda content: bz2.compress(content[:700]) + bz2.compress(content[700:]),
    ".tar.xz": lzma.compress,
    ".txz": lambda content: lzma.compress(content[:700]) + bytes(8) + lzma.compress(content[700:]),
    ".tar.zst": lambda content: pa.compress(content, codec="zstd", asbytes=True),
}


def rs5m_tar(folder, suffix, key="a", name="rs3-train-0000"):
    members = [(f"{key}.img_content", picture()), (f"{key}.img_name", "a.jpg"), (f"{key}.caption", "a river")]
    plain = write_tar(folder / "plain", members)
    path = folder / f"{name}{suffix}"
    path.write_bytes(PACKED[suffix](plain.read_bytes()))
    plain.unlink()
    return path


def test_every_suffix_is_tried():
    assert {*PACKED} == {*tar_files.TAR_SUFFIXES}


@pytest.mark.parametrize("suffix", PACKED)
def test_compressed_is_read_like_plain(tmp_path, suffix):
    path = rs5m_tar(tmp_path, suffix)
    assert first_suffixes(path) == {"img_content", "img_name", "caption"}
    for place in (path, tmp_path):
        assert rs5m.find(place) == place
        [entry] = rs5m.open(place, "made", DEFAULT_FORM).entries()
        sample = rs5m.open(place, "made", DEFAULT_FORM).read(entry)
        assert entry.id == "rs3-train-0000/a" and sample.image == picture() and sample.captions[0].text == "a river"
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_the_bytes_decide_not_the_name(tmp_path):
    path = rs5m_tar(tmp_path, ".tar.gz").rename(tmp_path / "x.tar")
    assert index_tar(path).samples.keys() == {"a"}
    write_tar(tmp_path / "y.tar.gz", [("b.jpg", b"1")])
    assert index_tar(tmp_path / "y.tar.gz").samples.keys() == {"b"}


def test_other_layouts_have_compressed_shards_too(tmp_path):
    tar = write_tar(tmp_path / "wds" / "test" / "0.tar", [("a.jpg", picture()), ("a.txt", "a river")])
    (tmp_path / "wds" / "test" / "nshards.txt").write_text("1")
    (tmp_path / "i2d").mkdir()
    (tmp_path / "i2d" / "00000.tgz").write_bytes(gzip.compress(tar.read_bytes()))
    tar.with_suffix(".tar.gz").write_bytes(gzip.compress(tar.read_bytes()))
    tar.unlink()
    [entry] = clip_benchmark.list_entries(tmp_path / "wds")
    assert entry.facts["tar"] == "test/0.tar.gz"
    entry, table = img2dataset.list_entries(tmp_path / "i2d")
    assert entry.facts["tar"] == "00000.tgz" and table.facts["problem"][0] == "unreadable_table"


@pytest.mark.parametrize("suffix", [".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst"])
@pytest.mark.parametrize(
    ("damage", "reason"), [(lambda b: b[: len(b) // 2], "truncated"), (lambda b: b[:10] + b"\xff" * 8 + b[18:], "corrupt")]
)
def test_damage_gives_nothing_and_is_counted(tmp_path, suffix, damage, reason):
    path = rs5m_tar(tmp_path, suffix)
    path.write_bytes(damage(path.read_bytes()))
    [entry] = tar_entries(tmp_path, path.name, "train")
    assert entry.facts["problem"][0] == reason and path.name in entry.facts["problem"][1]


def test_a_bomb_stops(tmp_path, monkeypatch):
    """200 MB of zeros in 200 kB, with the bytes for nothing set to little."""
    path = tmp_path / "bomb.tar.gz"
    path.write_bytes(gzip.compress(bytes(200 << 20)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(BadArchive, match="expands to more than 67108864 bytes") as caught, tar_bytes(path):
        pass
    assert caught.value.reason == "too_large"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB
    monkeypatch.setattr(tar_files, "MAX_EXPANDED_BYTES", 1000)
    assert [problem.reason for problem in index_tar(rs5m_tar(tmp_path, ".tgz")).problems] == ["too_large"]


def test_an_xz_that_wants_too_much_memory(tmp_path):
    path = tmp_path / "x.tar.xz"
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 20}]
    path.write_bytes(lzma.compress(bytes(2 << 20), filters=filters))
    assert [problem.reason for problem in index_tar(path).problems] == ["empty_shard"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tar_files, "_MAX_XZ_BYTES", 1 << 19)
        [problem] = index_tar(path).problems
    assert problem.reason == "corrupt" and "Memory usage limit" in problem.detail


def read_in_child(source, entry, pipe):
    pipe.send(source.read(entry).captions[0].text)


def test_expanded_once_a_process_and_by_a_fork_anew(tmp_path, monkeypatch):
    for number in range(3):
        rs5m_tar(tmp_path, ".tgz", key=f"k{number}", name=f"rs3-train-{number}")
    source = rs5m.open(tmp_path, "made", DEFAULT_FORM)
    entries = list(source.entries())
    calls = []
    expand = tar_files._expand
    monkeypatch.setattr(tar_files, "_expand", lambda *args: calls.append(args[2].name) or expand(*args))
    for entry in [*entries, *reversed(entries)]:
        assert source.read(entry).image == picture()
    assert sorted(calls) == [f"rs3-train-{number}.tgz" for number in range(3)]
    ours, theirs = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=read_in_child, args=(source, entries[1], theirs))
    child.start()
    assert ours.recv() == "a river"
    child.join()
    assert source.read(entries[0]).image == picture()
    rs5m_tar(tmp_path, ".tgz", key="other", name="rs3-train-0")  # replaced meanwhile: its size and time differ
    assert not isinstance(source.read(entries[1]), Dropped) and len(calls) == 3
    source.read(entries[0])
    assert len(calls) == 4


def test_no_room_is_no_fault_of_the_archive(tmp_path, monkeypatch):
    class Full:
        """A disk that takes half, then nothing."""

        def __init__(self):
            self.room = 600

        def fileno(self):
            return 0

        def write(self, content):
            if not self.room:
                raise OSError(errno.ENOSPC, "No space left on device")
            taken, self.room = min(self.room, len(content)), 0
            return taken

    monkeypatch.setattr("tempfile.TemporaryFile", lambda **_: nullcontext(Full()))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    path = rs5m_tar(tmp_path, ".tgz")
    with pytest.raises(DataError, match=f"cannot be expanded under {tmp_path}.*No space left.*Set TMPDIR"):
        index_tar(path)


def test_a_really_full_disk(tmp_path, monkeypatch, small_disk):
    (tmp_path / "small").mkdir()
    path = tmp_path / "x.tar.gz"
    path.write_bytes(gzip.compress(write_tar(tmp_path / "x.tar", [("a.jpg", os.urandom(300_000))]).read_bytes()))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "small"))
    monkeypatch.setattr(tar_files, "_scratch", {"pid": None})
    with small_disk(tmp_path / "small", "64k") as resize:
        with pytest.raises(DataError, match="No space left"):
            index_tar(path)
        with pytest.raises(DataError, match="No space left"), tar_bytes(path, keep=True):
            pass
        resize("1m")
        assert index_tar(path).samples.keys() == {"a"}
        with tar_bytes(path, keep=True) as archive:  # what was half expanded is gone
            assert archive.read(0, 5) == b"a.jpg" and os.fstat(archive._fd).st_size == archive.size
        tar_files._scratch["file"].close()


def test_where_the_room_is_taken(monkeypatch, tmp_path):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert tar_files._roomy_folder() == str(tmp_path)
    monkeypatch.delenv("TMPDIR")
    assert tar_files._roomy_folder() == ("/var/tmp" if os.path.isdir("/var/tmp") else None)  # noqa: PTH112


def test_tars_of_a_folder(tmp_path):
    for suffix in PACKED:
        rs5m_tar(tmp_path / "train", suffix, name=f"x{suffix.replace('.', '')}")
    (tmp_path / "notes.gz").write_bytes(b"")
    root, tars = list_tars(tmp_path)
    assert root == tmp_path and len(tars) == len(PACKED) and tars == sorted(tars)
    assert tarfile.is_tarfile(tmp_path / "train" / "xtargz.tar.gz")
