import hashlib
import io
import json
import tarfile

import pytest
from colour_source import ColourSource
from foreign_tars import read_all, write_tar
from PIL import Image

from recipes.cli import main
from rsvl_data.errors import DataError
from rsvl_data.pipeline import BuildOptions, build
from rsvl_data.sample import Caption, Geo, Provenance, Region
from rsvl_data.shards import Dataset
from rsvl_data.sources import open_source, rsvl_dataset
from rsvl_data.validate import problems

LEGEND = {"classes": ["ground", "lake"], "palette": [[0, 0, 0], [0, 0, 255]], "ignore_index": 255}


def mask_png(value):
    out = io.BytesIO()
    Image.new("L", (40, 36), value).save(out, "PNG")
    return out.getvalue()


def full_record(number):
    return {
        "captions": [
            Caption(text="a lake from above", kind="vlm", score=0.5, source={"engine": "x", "model": "y"}, prompt={"id": "p", "hash": "h"}),
            Caption(text="ein See", lang="de", kind="translation", parent=0),
        ],
        "regions": [Region(bbox=(1, 2, 8, 9), category="ship", polygon=[(1, 2), (8, 2), (8, 9)], caption="the ship")],
        "geo": Geo(lon=7.5, lat=47.5, acquired="2020-05", country="Elsewhere", stretch="none", season="winter", utm_zone="31N"),
        "provenance": Provenance(dataset="old", original_id=f"id {number}", licence="CC BY 4.0", url="https://example.org/x"),
        "scores": {"clip": 0.25},
        "phash": "ff00",
        "foreign": {"kept": [1, 2]},
        "mask": mask_png(number % 2),
    }  # fmt: skip


def build_full(out, num=12):
    source = ColourSource(num, name="mine", note="made by a test", mask=LEGEND, extra=full_record)
    return build(source, [], BuildOptions(out=out, workers=1, samples_per_shard=4, val=0.2, test=0.2), recipe="test")


def records(dataset):
    return {(s.key, split): (s.to_json(), s.image, s.mask) for split in dataset.splits for s in dataset.samples(split)}


def test_round_trip_keeps_every_byte_of_every_sample(tmp_path):
    first = build_full(tmp_path / "first")
    assert main(["run", "data/import", "--source", str(first.root), "--out", str(tmp_path / "second")]) == 0
    second = Dataset.open(tmp_path / "second")
    assert records(second) == records(first) and len(records(first)) == 12
    assert (second.name, second.note, second.manifest["mask"]) == ("mine", "made by a test", LEGEND)
    assert second.manifest["licences"] == ["CC BY 4.0"] and list(problems(second)) == []


def test_another_image_format_keeps_the_rest(tmp_path):
    first = build_full(tmp_path / "first", num=4)
    assert main(["run", "data/import", "--source", str(first.root), "--out", str(tmp_path / "b"), "--image.suffix", "png"]) == 0
    second = Dataset.open(tmp_path / "b")
    assert list(problems(second)) == [] and records(second).keys() == records(first).keys()
    before = {s.key: s for split in first.splits for s in first.samples(split)}
    for split in second.splits:
        for sample in second.samples(split):
            old = before[sample.key]
            assert sample.image.startswith(b"\x89PNG") and sample.sha256 != old.sha256 and sample.mask == old.mask
            assert sample.model_dump(exclude={"sha256"}) == old.model_dump(exclude={"sha256"})


def test_order_does_not_depend_on_the_shards(tmp_path):
    first = build_full(tmp_path / "first")
    options = BuildOptions(out=tmp_path / "one", workers=1, samples_per_shard=100)
    one = build(open_source(first.root), [], options, recipe="test")
    again = build(open_source(one.root), [], BuildOptions(out=tmp_path / "two", workers=1, samples_per_shard=100), recipe="test")
    assert [shard["sha256"] for shard in one.manifest["shards"]] == [shard["sha256"] for shard in again.manifest["shards"]]


def test_found_by_its_manifest(tmp_path):
    dataset = build_full(tmp_path / "first", num=4)
    assert rsvl_dataset.find(dataset.root / "manifest.json") == dataset.root
    assert open_source(dataset.root / "manifest.json").name == "mine"
    for content in ("{", "[]", '{"shards": []}', "[" * 100_000):
        (dataset.root / "manifest.json").write_text(content)
        assert rsvl_dataset.find(dataset.root) is None


@pytest.mark.parametrize("shards", [[], 5, ["x"], [{"name": "../../x-0"}], [{"name": 5}], [{"name": "a/b-0"}]])
def test_a_manifest_that_lists_no_shards(tmp_path, shards):
    (tmp_path / "manifest.json").write_text(json.dumps({"format_version": 1, "splits": {}, "shards": shards}))
    with pytest.raises(DataError, match="expected names such as train-00000"):
        open_source(tmp_path)


def test_damage_is_counted(tmp_path):
    root = build_full(tmp_path / "first", num=30).root
    manifest = json.loads((root / "manifest.json").read_text())
    names = [shard["name"] for shard in manifest["shards"]]
    whole = sum(shard["samples"] for shard in manifest["shards"])
    (root / "data" / f"{names[0]}.tar").unlink()
    tar = root / "data" / f"{names[1]}.tar"
    damaged = bytearray(tar.read_bytes())
    place = damaged.index(b"\xff\xd8\xff") + 400
    damaged[place] ^= 1
    damaged = damaged.replace(b'"width":40', b'"width":41', 2).replace(b'"width":41', b'"width":40', 1)  # of the second sample
    tar.write_bytes(damaged)
    _, samples, dropped = read_all(rsvl_dataset, root)
    assert len(samples) == whole - manifest["shards"][0]["samples"] - 2
    assert [drop.reason for drop in dropped] == ["missing_file", "checksum", "bad_record"]
    assert dropped[2].detail.count("41 x 36")


def test_members_that_do_not_belong_together(tmp_path):
    root = build_full(tmp_path / "first", num=4).root
    [line] = [shard for shard in json.loads((root / "manifest.json").read_text())["shards"] if shard["split"] == "train"]
    tar = root / "data" / f"{line['name']}.tar"
    with tarfile.open(tar) as old:
        members = [(info.name, old.extractfile(info).read()) for info in old]
    key = members[0][0].split(".")[0]
    record = {"key": "a", "width": 40, "height": 36, "sha256": hashlib.sha256(b"no picture").hexdigest()}
    members += [("a.jpg", b"no picture"), ("a.json", json.dumps(record)), ("a.mask.png", b"")]
    members += [("b.jpg", members[0][1]), ("b.json", b"{}"), ("b.mask.png", b"")]
    members += [(name.replace(key, "c"), content) for name, content in members if name.startswith(key)]
    write_tar(tar, members)
    _, samples, dropped = read_all(rsvl_dataset, root)
    assert len(samples) == 4 and {drop.key: drop.reason for drop in dropped} == {
        "a": "not_an_image",
        "b": "bad_record",
        "c": "bad_record",
    }


def test_a_mask_that_is_gone_and_one_without_a_legend(tmp_path):
    root = build_full(tmp_path / "first", num=4).root
    manifest = json.loads((root / "manifest.json").read_text())
    manifest["mask"] = None
    (root / "manifest.json").write_text(json.dumps(manifest))
    _, samples, _ = read_all(rsvl_dataset, root)
    assert {sample.mask for sample in samples} == {None}
    plain = build(ColourSource(4), [], BuildOptions(out=tmp_path / "plain", workers=1), recipe="test").root
    manifest = json.loads((plain / "manifest.json").read_text())
    manifest["mask"] = LEGEND
    (plain / "manifest.json").write_text(json.dumps(manifest))
    _, samples, dropped = read_all(rsvl_dataset, plain)
    assert not samples and {drop.reason for drop in dropped} == {"missing_member"}
