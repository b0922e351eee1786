"""`datasets.load_dataset(FOLDER)` on records that differ from one another."""

import datasets
import pytest
from colour_source import ColourSource

from rsvl_data.hub import record_features
from rsvl_data.pipeline import BuildOptions, build

POLYGON = [(0, 0), (9, 0), (9, 9)]


def mixed(number: int) -> dict:
    """Empty and filled lists, absent and present geo facts, scores of many names, fields nobody declared."""
    extra: dict = {}
    if number % 3 == 0:
        extra["geo"] = {"lon": 1.5, "lat": -2.5, "footprint": POLYGON, "bands": ["red"]}
        extra["regions"] = [{"bbox": (0, 0, 9, 9), "category": "ship", "polygon": POLYGON}]
    if number % 4 == 0:
        extra["captions"] = []
        extra["scores"] = {"clip": 0.5, f"score{number}": 1.0}
    if number % 5 == 0:
        extra["invented_later"] = {"a": [1, 2]}
    return extra


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_load_dataset_takes_mixed_records(tmp_path):
    out = tmp_path / "mixed"
    built = build(ColourSource(extra=mixed), [], BuildOptions(out=out, samples_per_shard=10), recipe="test")
    loaded = datasets.load_dataset(str(out), cache_dir=str(tmp_path / "cache"))
    assert {split: len(rows) for split, rows in loaded.items()} == built.splits
    for split, rows in loaded.items():
        for row, sample in zip(rows, built.samples(split), strict=True):
            assert row["__key__"] == row["json"]["key"] == sample.key
            assert row["jpg"].size == (sample.width, sample.height)
            assert row["txt"] == (sample.captions[0].text if sample.captions else "")
            assert [c["text"] for c in row["json"]["captions"]] == [c.text for c in sample.captions]
            assert (row["json"]["geo"] or {}).get("lat") == (sample.geo.lat if sample.geo else None)
            assert [r["category"] for r in row["json"]["regions"]] == [r.category for r in sample.regions]
            assert row["json"]["scores"] == sample.scores


@pytest.mark.parametrize("with_mask", [False, True])
def test_datasets_would_write_the_same_features(with_mask):
    """In the same order, so `datasets` reads every line of them."""
    features = record_features("jpg", with_mask)
    assert datasets.Features._from_yaml_list(features)._to_yaml_list() == features


def test_every_field_of_the_record_is_declared():
    features = datasets.Features._from_yaml_list(record_features("jpg", with_mask=True))
    assert {"jpg", "json", "txt", "mask.png", "__key__", "__url__"} == set(features)
    assert {"key", "captions", "regions", "geo", "provenance", "scores", "label"} <= set(features["json"])
    assert "image" not in features["json"]
    assert features["json"]["regions"].feature["area_px"] == datasets.Value("float64")
    assert features["json"]["geo"]["footprint"] == datasets.List(datasets.List(datasets.Value("float64")))
    assert features["json"]["scores"] == datasets.Json()
