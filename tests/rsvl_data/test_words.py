import json
import os
from pathlib import Path

import pytest

from rsvl_data.words import words_of_label

SHARED = Path(os.environ.get("RSVL_SHARED", Path(__file__).parents[2].parent / "shared"))


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ("AnnualCrop", "annual crop"),
        ("rail-way-station", "rail way station"),
        ("ground_track_field", "ground track field"),
        ("Bare Land", "bare land"),
        ("Industrial/Commercial", "industrial commercial"),
        ("footballField", "football field"),
        ("RSCrop", "rs crop"),
        ("river", "river"),
        ("__beach_", "beach"),
        ("golfcourse", "golf course"),
        ("GolfCourse", "golf course"),
        ("denseresidential", "dense residential"),
        ("mediumresidential", "medium residential"),
        ("sparseresidential", "sparse residential"),
        ("mobilehomepark", "mobile home park"),
        ("parkinglot", "parking lot"),
        ("storagetanks", "storage tanks"),
        ("tenniscourt", "tennis court"),
        ("baseballdiamond", "baseball diamond"),
    ],
)
def test_words(label, words):
    assert words_of_label(label) == words
    assert words_of_label(words) == words


@pytest.mark.parametrize("label", ["", " ", "_-/"])
def test_a_label_without_a_word(label):
    with pytest.raises(ValueError, match="holds no word"):
        words_of_label(label)


def test_class_folders_of_the_fixtures():
    path = SHARED / "fixtures" / "formats" / "08_class_folders" / "expected.json"
    if not path.is_file():
        pytest.skip(f"no fixtures at {SHARED}; set RSVL_SHARED to the folder that holds fixtures/formats")
    for name, expected in json.loads(path.read_text())["sets"].items():
        assert [words_of_label(label) for label in expected["classes_raw"]] == expected["classes_words"], name
