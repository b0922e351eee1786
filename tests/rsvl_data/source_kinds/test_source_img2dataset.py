import json
import math

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from foreign_tars import picture, read_all, texts, write_tar

from rsvl_data.sources import img2dataset


def row(key, status="success", **more):
    return {"key": key, "status": status, "error_message": None, "url": f"http://x.example/{key}.jpg", "caption": "alt", **more}


def shard(folder, name, rows, keys=None, drop=()):
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / f"{name}.parquet")
    members = []
    for record in rows:
        if record["status"] == "success" and (keys is None or record["key"] in keys):
            contents = {"jpg": picture(), "txt": f"words of {record['key']}", "json": json.dumps(record)}
            members += [(f"{record['key']}.{suffix}", content) for suffix, content in contents.items() if suffix not in drop]
    return write_tar(folder / f"{name}.tar", members)


def test_official_webdataset_output(shared):
    root = shared / "fixtures" / "formats" / "01_img2dataset" / "out"
    expected = json.loads((root.parent / "expected.json").read_text())
    entries, samples, dropped = read_all(img2dataset, root)
    assert (len(entries), len(samples), len(dropped)) == (expected["rows"], expected["samples"], expected["failed"])
    failed = {f"{url}": text.split(" ")[0] for url, text in expected["failed_urls"].items()}
    assert {outcome.detail.split(": ")[0]: outcome.reason for outcome in dropped} == failed
    successes = sum(json.loads(path.read_text())["successes"] for path in root.glob("*_stats.json"))
    assert len(samples) == successes
    for sample in samples:
        facts = expected["samples_by_source_id"][sample.provenance.source_id]
        assert texts(sample) == [facts["caption"]] and sample.provenance.url == facts["url"]
        assert sample.provenance.licence == facts["licence"]
        assert (sample.geo and (sample.geo.lat, sample.geo.lon)) == (facts["lat"] and (facts["lat"], facts["lon"]))
    first, facts = samples[0], expected["first"]
    assert entries[0].id == f"00000/{facts['key']}" and first.sha256 == facts["sha256"]
    assert first.provenance.downloaded_sha256 == facts["downloaded_sha256"]
    assert first.provenance.original_width == facts["original_width"]


def test_official_files_output(shared):
    root = shared / "fixtures" / "formats" / "01_img2dataset" / "out_files"
    expected = json.loads((root.parent / "expected.json").read_text())["out_files"]
    entries, samples, dropped = read_all(img2dataset, root)
    assert len(entries) == expected["rows"] and len(samples) == expected["samples"]
    assert samples[0].sha256 == expected["first"]["sha256"] and dropped[0].reason == "failed_to_resize"


def test_rows_and_members_that_do_not_agree(tmp_path):
    rows = [
        row("000002", lat=1.5, lon=math.nan, license="CC0"),
        row("000001", lat=-12.5, lon=30.25, credits="Someone", label="port"),
        row("000003", status="failed_to_download", error_message="HTTP Error 404: Not Found"),
        row("000004"),
    ]
    shard(tmp_path, "00000", rows, keys={"000001", "000002"})
    entries, samples, dropped = read_all(img2dataset, tmp_path)
    assert [entry.id for entry in entries] == [f"00000/00000{number}" for number in (1, 2, 3, 4)]
    assert [outcome.reason for outcome in dropped] == ["failed_to_download", "missing_member"]
    assert "404" in dropped[0].detail and "http://x.example/000003.jpg" in dropped[0].detail
    one, two = samples
    assert texts(one) == ["words of 000001"] and one.captions[0].kind == "alt" and one.label == "port"
    assert (one.geo.lat, one.geo.lon) == (-12.5, 30.25) and one.provenance.attribution == "Someone"
    assert two.geo is None and two.provenance.licence == "CC0"


def test_a_cut_archive_loses_nothing_uncounted(tmp_path):
    tar = shard(tmp_path, "00000", [row(f"00000{number}") for number in range(4)])
    tar.write_bytes(tar.read_bytes()[:5000])
    _, samples, dropped = read_all(img2dataset, tmp_path)
    assert len(samples) == 1
    assert [(outcome.key, outcome.reason) for outcome in dropped] == [
        ("00000/000001", "truncated"),
        ("00000/archive", "truncated"),
        ("00000/000002", "missing_member"),
        ("00000/000003", "missing_member"),
    ]


def test_tables_and_images_alone(tmp_path):
    shard(tmp_path, "00000", [row("0")])
    shard(tmp_path, "00001", [row("1")])
    shard(tmp_path, "00002", [row("2")])
    (tmp_path / "00000.tar").unlink()
    (tmp_path / "00001.parquet").unlink()
    (tmp_path / "00002.parquet").write_bytes(b"PAR1 no")
    _, samples, dropped = read_all(img2dataset, tmp_path)
    assert [texts(sample) for sample in samples] == [["words of 1"], ["words of 2"]]
    assert [outcome.reason for outcome in dropped] == ["missing_file", "missing_member", "unreadable_table", "unreadable_table"]


@pytest.mark.parametrize(("drop", "reason"), [("json", "missing_member"), ("jpg", "missing_member")])
def test_members_that_every_sample_needs(tmp_path, drop, reason):
    shard(tmp_path, "00000", [row("0")], drop=(drop,))
    assert [outcome.reason for outcome in read_all(img2dataset, tmp_path)[2]] == [reason]


def test_the_caption_of_the_record_stands_in_for_the_text(tmp_path):
    shard(tmp_path, "00000", [row("0")], drop=("txt",))
    assert texts(read_all(img2dataset, tmp_path)[1][0]) == ["alt"]


@pytest.mark.parametrize(
    ("lat", "lon", "found"),
    [(0, 0.0, True), (None, 1, False), (91, 0, False), (1, 181, False), ("1", 1, False), (True, 1, False)],
)
def test_coordinates(lat, lon, found):
    assert img2dataset.coordinates(lat, lon) == ({"lat": lat, "lon": lon} if found else {})


def test_another_parquet_is_not_found(tmp_path):
    pq.write_table(pa.Table.from_pylist([{"image": "a.jpg", "caption": "x"}]), tmp_path / "t.parquet")
    assert img2dataset.find(tmp_path) is None
    (tmp_path / "t.parquet").write_bytes(b"x")
    assert img2dataset.find(tmp_path) is None
