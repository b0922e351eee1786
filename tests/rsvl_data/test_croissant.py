import json
import warnings

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import mlcroissant


@pytest.mark.filterwarnings("ignore")
def test_the_official_validator_takes_it_and_reads_the_rows(colours):
    described = mlcroissant.Dataset(jsonld=str(colours.root / "croissant.json"))
    assert not described.metadata.ctx.issues.errors, described.metadata.ctx.issues.report()
    rows = list(described.records("test-00000"))
    expected = colours.table("test", ["key", "label"]).to_pylist()
    assert [(row["test-00000/key"].decode(), row["test-00000/label"].decode()) for row in rows] == [
        (row["key"], row["label"]) for row in expected
    ]


def test_checksums_are_those_of_the_manifest(colours):
    files = {file["@id"]: file["sha256"] for file in json.loads((colours.root / "croissant.json").read_text())["distribution"]}
    assert all(files[f"data/{shard['name']}.tar"] == shard["sha256"] for shard in colours.manifest["shards"])
