"""Captions in a second language, by a stand-in and by Apertium."""

import shutil

import pytest

from benchmarks.translated_captions import apertium, with_translations
from evaluation.benchmarks.retrieval import retrieval
from evaluation.data import ShardSet
from recipes.cli import main
from rsvl_data.errors import OptionError
from rsvl_data.sample import TextSource
from rsvl_data.shards import Dataset
from rsvl_pretrain.model import DualEncoder

ENGINE = TextSource(engine="upper case")


def test_each_sentence_is_translated_once_and_stands_beside_its_original(colours, tmp_path):
    asked = []

    def translate(texts):
        asked.extend(texts)
        return [text.upper() for text in texts]

    made = with_translations(colours.root, tmp_path / "new", "xx", translate, ENGINE)
    assert made.splits == colours.splits
    assert len(asked) == len(set(asked))
    for split in colours.splits:
        before, after = (
            {row["key"]: row for row in d.table(split, ["key", "captions", "caption_langs"]).to_pylist()} for d in (colours, made)
        )
        assert before.keys() == after.keys()
        for key, row in before.items():
            captions, langs = row["captions"], row["caption_langs"]
            assert after[key]["captions"] == captions + [text.upper() for text in captions]
            assert after[key]["caption_langs"] == langs + ["xx"] * len(captions)


needs_apertium = pytest.mark.skipif(shutil.which("apertium") is None, reason="apt-get install apertium apertium-eng-spa")


@needs_apertium
def test_apertium_answers_sentence_by_sentence():
    texts = ["a large green tree", "There is a river .", "two  houses\nnear a road"]
    spanish = apertium(texts)
    assert len(spanish) == 3 and "árbol" in spanish[0] and "río" in spanish[1] and "casas" in spanish[2]


@needs_apertium
def test_a_pair_that_is_not_installed():
    with pytest.raises(OptionError, match="apertium eng-xxx failed"):
        apertium(["a tree"], "eng-xxx")


def test_apertium_that_is_not_installed(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(OptionError, match="apertium is not installed"):
        apertium(["a tree"])


@needs_apertium
@pytest.mark.slow
def test_a_model_learns_spanish_from_translated_captions(shared, tmp_path):
    """UCM's captions by Apertium. One search among 105 test images finds an image's own Spanish sentence far more often than by chance."""
    data, run = str(tmp_path / "spanish"), str(tmp_path / "run")
    assert main(["run", "data/import", "--source", str(shared / "data" / "ucm"), "--out", str(tmp_path / "ucm")]) == 0
    with_translations(tmp_path / "ucm", tmp_path / "spanish", "es", apertium, TextSource(engine="apertium", model="eng-spa"))
    words = [
        "--preset",
        "light",
        "--data",
        data,
        "--out",
        run,
        "--train.steps",
        "120",
        "--train.eval-every",
        "0",
        "--train.trackers",
    ]
    assert main(["run", "pretrain/rs_m_clip", *words, "--contrastive.duplicates", "excluded"]) == 0
    encoder = DualEncoder.load(run).eval()
    found = retrieval(encoder, ShardSet(Dataset.open(tmp_path / "spanish"), "test"), lang="all", num_bootstrap=1).metrics
    for lang in ("en", "es"):
        recall = found[f"image_retrieval_recall@5[{lang}]"]
        assert recall.value > 3 * recall.chance, (lang, recall)
