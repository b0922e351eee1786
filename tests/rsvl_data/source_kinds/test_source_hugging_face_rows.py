"""What `datasets.load_dataset` gives, from local folders; `hub:org/name` takes the same way."""

import json
import shutil

import pytest
from foreign_tars import picture, texts, write_tar

from rsvl_data.sources import hugging_face, open_source

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def read_all(folder):
    source = open_source(folder, "hugging-face")
    return {entry.id: (entry.split, source.read(entry)) for entry in source.entries()}


def test_official_fixtures_agree_with_the_readers_of_folders(shared, tmp_path):
    for name in ("imagefolder", "webdataset_repo"):
        folder = shutil.copytree(shared / "fixtures" / "formats" / "14_hf" / name, tmp_path / name)
        direct = open_source(folder)
        plain = {
            (e.split, (s := direct.read(e)).sha256): (texts(s), s.label, s.geo, s.provenance.licence) for e in direct.entries()
        }
        loaded = {(split, s.sha256): (texts(s), s.label, s.geo, s.provenance.licence) for split, s in read_all(folder).values()}
        assert loaded == plain


def test_columns_and_licence(tmp_path):
    folder = tmp_path / "set"
    record = {"captions": [{"text": "ein See", "lang": "de", "kind": "vlm"}], "label": "lake", "lat": 1.5, "lon": 2.5}
    write_tar(folder / "train.tar", [("k.jpg", picture()), ("k.json", json.dumps(record)), ("k.txt", "a lake")])
    (folder / "README.md").write_text("---\nlicense: cc0-1.0\n---\n")
    [(split, sample)] = read_all(folder).values()
    assert split == "train" and sample.label == "lake" and (sample.geo.lat, sample.geo.lon) == (1.5, 2.5)
    assert [(c.text, c.lang, c.kind) for c in sample.captions] == [("ein See", "de", "vlm"), ("a lake", "en", "human")]
    assert sample.provenance.licence == "cc0-1.0"


def test_a_readme_that_cannot_be_had(monkeypatch, caplog):
    def refuse(*args, **options):
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", refuse)
    assert hugging_face._card("org/name").licence is None and "no network" in caplog.text
