import json

import pytest
from foreign_tars import picture, read_all, texts, write_tar

from rsvl_data.sources import open_source, web_dataset
from rsvl_data.sources.dataset_card import DatasetCard


def test_official_fixture(shared):
    root = shared / "fixtures" / "formats" / "14_hf"
    expected = json.loads((root / "expected.json").read_text())["webdataset_repo"]
    source = open_source(root / "webdataset_repo")
    entries = list(source.entries())
    assert {split: sum(e.split == split for e in entries) for split in ("train", "test")} == expected["samples"]
    shards = [entry.id.split("/")[1] + ".tar" for entry in entries]
    assert {shard: shards.count(shard) for shard in set(shards)} == expected["shards"]
    first = next(entry for entry in entries if entry.id == f"data/train-00000/{expected['first']['key']}")
    sample = source.read(first)
    assert texts(sample) == [expected["first"]["txt"]] and sample.captions[0].kind == "label"
    assert (sample.label, sample.sha256) == (expected["first"]["label"], expected["first"]["sha256"])
    assert sample.provenance.licence == "other"


def test_words_of_every_member(tmp_path):
    record = {
        "captions": ["two", "three"],
        "caption": "three",
        "latitude": "1.5",
        "lon": 2,
        "license": "CC0",
        "url": "https://example.org/x",
        "regions": [{"bbox": [0, 0, 4, 4], "category": "ship"}],
    }
    members = [("k.png", picture(form="PNG")), ("k.txt", "one"), ("k.json", json.dumps(record)), ("k.cls", "lake")]
    write_tar(tmp_path / "val.tar", members)
    [entry], [sample], _ = read_all(web_dataset, tmp_path)
    assert entry.split == "val" and texts(sample) == ["one", "two", "three"] and sample.label == "lake"
    assert (sample.geo.lat, sample.geo.lon) == (1.5, 2) and sample.regions[0].category == "ship"
    assert (sample.provenance.licence, sample.provenance.url) == ("CC0", "https://example.org/x")


def test_a_record_of_ours_keeps_its_facts(tmp_path):
    record = {
        "captions": [{"text": "un lac", "lang": "fr", "kind": "vlm", "score": 0.5}],
        "geo": {"gsd_m": 10, "country": "France"},
        "provenance": {"dataset": "old", "split": "test", "original_id": "7", "licence": "CC BY 4.0", "attribution": "A. Uthor"},
    }
    write_tar(tmp_path / "a.tar", [("k.jpg", picture()), ("k.json", json.dumps(record))])
    _, [sample], _ = read_all(web_dataset, tmp_path)
    assert sample.captions[0].model_dump(exclude_none=True) == record["captions"][0]
    assert sample.geo.model_dump(exclude_none=True) == record["geo"]
    said = sample.provenance
    assert (said.dataset, said.original_id, said.licence, said.attribution) == ("made", "a/k", "CC BY 4.0", "A. Uthor")


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ("[]", "bad_json"),
        ("{", "bad_json"),
        ('{"regions": "x"}', "bad_record"),
        ('{"regions": [{"bbox": [0, 0, 0, 0], "category": "x"}]}', "bad_record"),
        ('{"geo": {"lat": 500}}', "bad_record"),
        ("{}", "no_caption"),
    ],
)
def test_bad_records_are_answers(tmp_path, record, reason):
    members = [("k.jpg", picture()), ("k.json", record)] + ([("k.txt", "x")] if record != "{}" else [])
    write_tar(tmp_path / "a.tar", members)
    _, samples, [dropped] = read_all(web_dataset, tmp_path)
    assert not samples and dropped.reason == reason


def test_card_says_which_tars_and_names_classes(tmp_path):
    for number, name in enumerate(("data/first-0.tar", "data/second-0.tar", "data/extra-0.tar")):
        write_tar(tmp_path / name, [("k.jpg", picture((number, 0, 0))), ("k.cls", str(number))])
    unlisted = {entry.id: entry.split for entry in open_source(tmp_path).entries()}
    assert unlisted == {"data/first-0/k": None, "data/second-0/k": None, "data/extra-0/k": None}
    (tmp_path / "README.md").write_text(
        "---\nlicense: other\nlicense_name: my-terms\nconfigs:\n- config_name: big\n  data_files: data/*.tar\n- config_name: small\n"
        "  default: true\n  data_files:\n  - split: train\n    path: data/first-*.tar\n  - split: test\n    path:\n"
        "    - ./data/second-*.tar\n"
        "dataset_info:\n  features:\n  - name: cls\n    dtype:\n      class_label:\n        names: {'0': lake, '1': forest}\n---\n# Words\n"
    )
    entries, samples, _ = read_all(web_dataset, tmp_path)
    assert {entry.id: entry.split for entry in entries} == {"data/first-0/k": "train", "data/second-0/k": "test"}
    assert [sample.label for sample in samples] == ["lake", "forest"]
    assert {sample.provenance.licence for sample in samples} == {"my-terms"}


def test_patterns_and_single_tars(tmp_path):
    for number in range(3):
        write_tar(tmp_path / f"s-{number}.tar", [("k.webp", picture(form="WEBP")), ("k.caption", f"number {number}")])
    assert len(list(open_source(tmp_path / "s-{0..1}.tar").entries())) == 2
    [entry] = open_source(tmp_path / "s-2.tar").entries()
    assert texts(open_source(tmp_path / "s-2.tar").read(entry)) == ["number 2"]


@pytest.mark.parametrize("members", [[("k.jpg", picture())], [("k.txt", "x"), ("k.json", "{}")], []])
def test_tars_without_pictures_or_words_are_not_taken(tmp_path, members):
    write_tar(tmp_path / "a.tar", members)
    assert web_dataset.find(tmp_path) is None


# --- front matter


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# no front matter\n---\nlicense: mit\n---\n",
        "---\nlicense: mit\n",
        "---\n- a\n---\n",
        "---\nlicense: [\n---\n",
        "---\nlicense: !!python/object/apply:os.system [true]\n---\n",
        "---\nconfigs: 5\nlicense: 7\ndataset_info: x\n---\n",
        "---\na: &a {b: c}\nlicense: mit\nd:\n  <<: *a\n---\n",
        "---\n" + "[" * 5000 + "\n---\n",
    ],
)
def test_a_readme_that_says_nothing(tmp_path, text):
    (tmp_path / "README.md").write_text(text)
    assert DatasetCard.read(tmp_path / "README.md") == DatasetCard()


@pytest.mark.parametrize(
    ("front", "licence"),
    [
        ("license: mit", "mit"),
        ("license: [mit, cc0-1.0]", "mit, cc0-1.0"),
        ("license: other", "other"),
        ("license: other\nlicense_name: terms", "terms"),
        ("license: mit\nlicense_name: terms", "mit"),
    ],
)
def test_licence_of_a_card(tmp_path, front, licence):
    (tmp_path / "README.md").write_bytes(f"\ufeff---\r\n{front}\r\n---\r\n# Words\r\n".encode())
    assert DatasetCard.read(tmp_path / "README.md").licence == licence


@pytest.mark.parametrize(
    ("pattern", "relative", "split"),
    [
        ("data/*.tar", "data/a.tar", "test"),
        ("data/*.tar", "data/sub/a.tar", None),
        ("data/**", "data/sub/a.tar", "test"),
        ("**/a.tar", "a.tar", "test"),
        ("./a.tar", "a.tar", "test"),
        ("b.tar", "a.tar", None),
    ],
)
def test_patterns_of_a_card(pattern, relative, split):
    card = DatasetCard(data_files=(("test", pattern),))
    assert card.split_of(relative) == split and card.lists(relative) == (split is not None)


@pytest.mark.parametrize("configs", ["5", "[1]", "[{data_files: 7}]", "[{data_files: [{split: test}]}]"])
def test_configs_of_another_form(tmp_path, configs):
    (tmp_path / "README.md").write_text(f"---\nlicense: mit\nconfigs: {configs}\n---\n")
    assert DatasetCard.read(tmp_path / "README.md") == DatasetCard(licence="mit")
