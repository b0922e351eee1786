import json

import pytest
from foreign_tars import picture, read_all, texts

from rsvl_data.errors import DataError
from rsvl_data.sources import mgrs


def record(*segments, **more):
    return {
        "global_filepath": "a.jpg",
        "brief_caption": "short",
        "detailed_caption": "long one",
        "segment": list(segments),
        **more,
    }


def segment(bbox, **more):
    return {"bbox": bbox, "category": "ship", "category_id": 2, **more}


def read(tmp_path, *records, folder="global_imgs"):
    (tmp_path / folder).mkdir(exist_ok=True)
    (tmp_path / folder / "a.jpg").write_bytes(picture(size=(20, 10)))
    (tmp_path / "text_info.json").write_text(json.dumps(records))
    return read_all(mgrs, tmp_path)


def boxes(sample):
    return [region.bbox for region in sample.regions]


def test_official(shared):
    root = shared / "fixtures" / "formats" / "04_mgrs"
    expected = json.loads((root / "expected.json").read_text())
    _, samples, dropped = read_all(mgrs, root)
    regions = [region for sample in samples for region in sample.regions]
    assert len(samples) == expected["samples"] and not dropped and len(regions) == expected["regions"]
    assert sum(region.caption is not None for region in regions) == expected["regions_with_own_caption"]
    assert {str(region.category_id): region.category for region in regions} == expected["classes"]
    small = sum((r.bbox[2] - r.bbox[0]) * (r.bbox[3] - r.bbox[1]) < 64 * 64 for r in regions)
    assert small == expected["regions_below_64x64_area"]
    first, facts = samples[0], expected["first"]
    assert first.sha256 == facts["sha256"] and {c.kind: c.text for c in first.captions} == facts["captions"]
    for region, facts_of_region in zip(first.regions, facts["regions"], strict=True):
        assert {**facts_of_region, "bbox": tuple(facts_of_region["bbox"])} == region.model_dump(include=set(facts_of_region))
    by_name = {sample.provenance.original_id: sample for sample in samples}
    assert texts(by_name[expected["record_with_global_caption"]]) == ["a caption that wins over the two others"]
    assert by_name[expected["record_without_regions"]].regions == []
    others = read_all(mgrs, root / "text_info_other_keys.json")[1]
    assert [boxes(sample) for sample in others] == [boxes(sample) for sample in samples]


def test_official_bad_boxes(shared):
    root = shared / "fixtures" / "bad"
    [case] = [c for c in json.loads((root / "expected.json").read_text())["files"] if c["file"].endswith("mgrs_text_info.json")]
    _, [sample], dropped = read_all(mgrs, root / case["file"])
    assert boxes(sample) == [(10, 20, 50, 60)] * 4  # good, list, swapped_order by its names, string
    assert sample.scores == {"regions_dropped": 3, "regions_repaired": 3}
    assert [outcome.reason for outcome in dropped] == ["missing_file", "no_caption"]


NAMED = {"x1": 1, "y1": 2, "x2": 5, "y2": 6, "W": 20, "H": 10}


@pytest.mark.parametrize(
    ("bbox", "box", "repaired"),
    [
        (NAMED, (1, 2, 5, 6), 0),
        (dict(zip("abcdef", NAMED.values())), (1, 2, 5, 6), 0),
        (list(NAMED.values()), (1, 2, 5, 6), 1),
        ({name: str(value) for name, value in NAMED.items()}, (1, 2, 5, 6), 1),
        ({"W": 20, "H": 10, "x1": 1, "y1": 2, "x2": 5, "y2": 6}, (1, 2, 5, 6), 1),
        ({**NAMED, "x1": -3, "x2": 40}, (0, 2, 20, 6), 1),
        ({**NAMED, "W": 40}, None, 0),
        ({**NAMED, "W": 10, "H": 20}, None, 0),
        ({**NAMED, "x2": 1}, None, 0),
        ({**NAMED, "x1": 30, "x2": 40}, None, 0),
        ({**NAMED, "x1": None}, None, 0),
        ({**NAMED, "x1": float("nan")}, None, 0),
        ({**NAMED, "more": 1}, None, 0),
        ([1, 2, 5, 6], None, 0),
        (None, None, 0),
    ],
)
def test_boxes(tmp_path, bbox, box, repaired):
    _, [sample], _ = read(tmp_path, record(segment(bbox)))
    assert boxes(sample) == ([box] if box else [])
    counts = {"regions_dropped": float(box is None), "regions_repaired": float(repaired)}
    assert sample.scores == {name: count for name, count in counts.items() if count}


def test_what_a_region_says(tmp_path):
    _, [sample], _ = read(
        tmp_path, record(segment(NAMED, cap="a ship at the pier"), segment(NAMED, category=None), segment(NAMED), 7)
    )
    assert [(r.category, r.category_id, r.caption) for r in sample.regions] == [
        ("ship", 2, "a ship at the pier"),
        ("ship", 2, None),
    ]
    assert sample.scores == {"regions_dropped": 2}


def test_captions(tmp_path):
    _, samples, dropped = read(
        tmp_path,
        record(),
        record(global_caption="whole"),
        record(global_caption=" "),
        record(brief_caption=None, detailed_caption=""),
        folder=".",
    )
    assert [texts(sample) for sample in samples] == [["short", "long one"], ["whole"], ["short", "long one"]]
    assert [caption.kind for caption in samples[0].captions] == ["short", "long"] and dropped[0].reason == "no_caption"


def test_bad_records_are_counted(tmp_path):
    bad = [7, {}, record(segment=None), {**record(), "segment": "x"}, {**record(), "global_filepath": "../../a.jpg"}]
    _, samples, dropped = read(tmp_path, *bad)
    assert len(samples) == 1
    assert [outcome.reason for outcome in dropped] == ["bad_record", "bad_record", "bad_record", "path_outside"]


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "no list of records"), ("", "no list of records"), ("[1", "is not JSON"), ("[" * 100_000, "is not JSON")],
)
def test_files_of_another_form(tmp_path, text, message):
    (tmp_path / "text_info.json").write_text(text)
    with pytest.raises(DataError, match=message):
        list(mgrs.list_entries(tmp_path / "text_info.json"))
