import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from foreign_tars import picture, read_all, texts, write_tar

from rsvl_data.errors import DataError
from rsvl_data.image_form import ImageForm
from rsvl_data.sources import gaia

RECORDS = [
    {
        "id": "G1",
        "image_src": "http://x.example/web/a%20b.jpg?size=2",
        "image_alt": "Malta seen by Terra",
        "captions": ["The image showcases: one river.", "The image showcases: two", "three"],
        "credits": "NASA",
        "location": "Valletta, Malta",
        "lat": 35.5,
        "lon": 14.5,
        "tag": ["flood"],
        "resolution": "Low",
        "satellite": ["Terra", "Aqua"],
        "sensor": None,
        "modalities": ["optical"],
    },
    {"id": "G2", "image_src": "http://x.example/c.jpg", "image_alt": "", "captions": ["y"], "lat": None, "lon": None},
]


def columns(records, mapping):
    names = dict.fromkeys(name for record in records for name in record)
    lists = {name: [record.get(name) for record in records] for name in names}
    return {name: {str(i): v for i, v in enumerate(values)} for name, values in lists.items()} if mapping else lists


def images(tmp_path):
    (tmp_path / "images").mkdir()
    for name in ("a b.jpg", "c.jpg"):
        (tmp_path / "images" / name).write_bytes(picture())


def test_official_records(shared):
    root = shared / "fixtures" / "formats" / "03_gaia"
    expected = json.loads((root / "expected.json").read_text())
    _, samples, dropped = read_all(gaia, root)
    assert len(samples) == 12 and not dropped
    by_id = {sample.provenance.gaia_id: sample for sample in samples}
    for name, facts in expected["files"].items():
        listed = read_all(gaia, root / name)[0]
        assert len(listed) == facts["samples"] and {entry.split for entry in listed} == {name.split("_")[0]}
        if "first" not in facts:
            continue
        first = facts["first"]
        sample = by_id[first["id"]]
        assert [c.text for c in sample.captions if c.kind == "vlm"] == first["captions"]
        assert [c.text for c in sample.captions if c.kind == "alt"] == [first["image_alt"]]
        assert sample.sha256 == first["image"]["sha256"] and sample.provenance.url == first["image_src"]
        assert (sample.geo.lat, sample.geo.lon, sample.geo.place) == (first["lat"], first["lon"], first["location"])
        assert sample.provenance.attribution == first["credits"] and sample.provenance.tag == first["tag"]
        stripped = next(s for s in read_all(gaia, root, strip_lead_in=True)[1] if s.provenance.gaia_id == first["id"])
        assert [c.text for c in stripped.captions if c.kind == "vlm"] == first["captions_without_lead_in"]
    assert [id for id, s in sorted(by_id.items()) if s.geo is None or s.geo.lat is None] == expected["null_coordinates"]
    no_alt = [id for id, s in by_id.items() if all(caption.kind != "alt" for caption in s.captions)]
    assert no_alt == expected["empty_alt"]


def test_official_shards_are_joined_with_their_records(shared):
    root = shared / "fixtures" / "formats" / "03_gaia"
    expected = json.loads((root / "expected.json").read_text())["shards"]
    entries, samples, dropped = read_all(gaia, root / "shards", ImageForm("png"))
    assert len(samples) == expected["samples"] and not dropped
    first, facts = samples[0], expected["first"]
    assert entries[0].id == f"00000/{facts['key']}" and first.sha256 == facts["sha256"]
    assert texts(first) == [*facts["captions"], facts["txt"]] and first.captions[-1].kind == "alt"
    assert first.provenance.attribution == "USGS" and first.provenance.original_width == 176
    assert [entry.split for entry in entries] == ["train"] * 5 + ["val"] * 4 + ["test"] * 3


@pytest.mark.parametrize("form", ["rows", "lists", "mappings", "lines"])
def test_every_form_gives_the_same(tmp_path, form):
    images(tmp_path)
    data = {"rows": RECORDS, "lists": columns(RECORDS, False), "mappings": columns(RECORDS, True)}.get(form)
    if form == "lines":
        (tmp_path / "train_data.jsonl").write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
    else:
        (tmp_path / "train_data.json").write_text(json.dumps(data))
    entries, [one, two], _ = read_all(gaia, tmp_path)
    assert [(entry.id, entry.split) for entry in entries] == [("G1", "train"), ("G2", "train")]
    assert texts(one) == ["The image showcases: one river.", "The image showcases: two", "three", "Malta seen by Terra"]
    assert (one.geo.place, one.geo.platform, one.geo.sensor) == ("Valletta, Malta", "Terra, Aqua", None)
    assert texts(two) == ["y"] and two.geo is None and two.provenance.attribution is None
    stripped = read_all(gaia, tmp_path, strip_lead_in=True)[1][0]
    assert texts(stripped)[:3] == ["One river.", "Two", "three"]


def test_bad_records_are_counted(tmp_path):
    images(tmp_path)
    bad = [None, {"id": "x"}, {"image_src": "http://x.example/"}, {"image_src": "http://[", "captions": ["x"]}]
    worse = [
        RECORDS[1] | {"captions": "text"},
        RECORDS[1] | {"captions": [1]},
        RECORDS[1] | {"image_src": "http://x.example/none.jpg"},
    ]
    lines = [json.dumps(record) for record in [RECORDS[0], *bad, *worse]] + ['{"image_src": ', '"\u2028"']
    (tmp_path / "val_data.jsonl").write_text("\n".join(lines), encoding="utf-8")
    _, samples, dropped = read_all(gaia, tmp_path / "val_data.jsonl")
    assert len(samples) == 1
    assert [outcome.reason for outcome in dropped] == ["bad_record"] * 6 + ["missing_file"] + ["bad_record"] * 2


def test_shards_without_records(tmp_path):
    row = {"key": "0", "status": "success", "error_message": None, "url": "http://x.example/a.jpg", "caption": "alt", "id": "G7"}
    failed = {**row, "key": "1", "status": "failed_to_download", "error_message": "404"}
    pq.write_table(pa.Table.from_pylist([{**r, "captions": ["c"]} for r in (row, failed)]), tmp_path / "00000.parquet")
    record = json.dumps({**row, "captions": ["The image showcases: a."]})
    write_tar(tmp_path / "00000.tar", [("0.png", picture(form="PNG")), ("0.txt", "alt"), ("0.json", record)])
    _, [sample], [dropped] = read_all(gaia, tmp_path, strip_lead_in=True)
    assert texts(sample) == ["A.", "alt"] and sample.provenance.gaia_id == "G7" and dropped.reason == "failed_to_download"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"image_src": [1, 2], "id": [1]}', "column id has not the 2 rows"),
        ('{"image_src": [1], "id": {"0": 1}}', "column id has not the 1 rows"),
        ('{"x": "image_src"}', "neither rows nor columns"),
        ('"image_src', "is not JSON"),
    ],
)
def test_files_of_another_form(tmp_path, text, message):
    (tmp_path / "train_data.json").write_text(text)
    with pytest.raises(DataError, match=message):
        list(gaia.list_entries(tmp_path / "train_data.json"))


def test_other_things_are_not_found(tmp_path):
    (tmp_path / "train_data.json").write_text('{"images": []}')
    assert gaia.find(tmp_path) is None and gaia.find(tmp_path / "train_data.json") is None
