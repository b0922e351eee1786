import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsvl_data.captions.english import listed, noun_of_label, number, plural, sentence, singular, with_article


@pytest.mark.parametrize(
    ("label", "phrase", "one", "three"),
    [
        ("airport", "an airport", "one airport", "three airports"),
        ("storage_tank", "a storage tank", "one storage tank", "three storage tanks"),
        ("storagetanks", "storage tanks", "one storage tank", "three storage tanks"),
        ("aircraft", "an aircraft", "one aircraft", "three aircraft"),
        ("church", "a church", "one church", "three churches"),
        ("factory", "a factory", "one factory", "three factories"),
        ("overpass", "an overpass", "one overpass", "three overpasses"),
        ("bus", "a bus", "one bus", "three buses"),
        ("wharf", "a wharf", "one wharf", "three wharves"),
        ("tennis_court", "a tennis court", "one tennis court", "three tennis courts"),
        ("campus", "a campus", "one campus", "three campuses"),
        ("houses", "houses", "one house", "three houses"),
        ("crossroads", "a crossroads", "one crossroads", "three crossroads"),
        ("farmland", "farmland", "one area of farmland", "three areas of farmland"),
        ("HerbaceousVegetation", "herbaceous vegetation", "one area of herbaceous vegetation", "three areas of herbaceous vegetation"),
        ("denseresidential", "a dense residential area", "one dense residential area", "three dense residential areas"),
        ("Industrial", "an industrial area", "one industrial area", "three industrial areas"),
        ("AnnualCrop", "a field of annual crops", "one field of annual crops", "three annual crops"),
        ("SeaLake", "a sea or lake", "one sea or lake", "three seas or lakes"),
        ("place_of_worship", "a place of worship", "one place of worship", "three places of worship"),
        ("parking_lot_or_garage", "a parking lot or garage", "one parking lot or garage", "three parking lots or garages"),
        ("debris_or_rubble", "debris or rubble", "one area of debris or rubble", "three areas of debris or rubble"),
        ("sea and ocean", "sea and ocean", "one area of sea and ocean", "three areas of sea and ocean"),
        ("single-unit_residential", "a single-unit residential building", "one single-unit residential building",
         "three single-unit residential buildings"),
    ],
)  # fmt: skip
def test_nouns(label, phrase, one, three):
    noun = noun_of_label(label)
    assert (noun.phrase, noun.counted(1), noun.counted(3)) == (phrase, one, three)


@pytest.mark.parametrize(
    "phrase",
    "an airport, a harbor, a university, a unit, an unimproved road, an urban area, a European city, an hour, a house, an S2 image, an 8 m "
    "pixel, an 11 m pixel, a 110 m pixel, an L-shaped pier, a one-way street, an overpass, an X-ray, a U-turn, a USGS image".split(
        ", "
    ),
)
def test_articles(phrase):
    phrase = " ".join(phrase.split())
    assert with_article(phrase.split(" ", 1)[1]) == phrase


@given(
    st.sampled_from(
        "ship bridge church factory bus box man person leaf runway storage_tank quay glass wharf house foot lake".split()
    )
)
def test_the_singular_of_the_plural_is_the_word(word):
    assert singular(plural(word)) == word and plural(plural(word)) == plural(word)


def test_numbers_and_lists():
    assert [number(count) for count in (0, 1, 10, 11, 250)] == ["no", "one", "ten", "11", "250"]
    assert [listed(things) for things in ("a", "ab", "abc")] == ["a", "a and b", "a, b and c"]


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("a ship", "A ship."),
        ("A ship.", "A ship."),
        ("near Washington, D.C.", "Near Washington, D.C."),
        ("is it a ship?", "Is it a ship?"),
        ('he said "go."', 'He said "go."'),
        ("a house,", "A house."),
        ("这是一条河。", "这是一条河。"),
    ],
)
def test_sentences_have_one_mark(text, whole):
    assert sentence(text) == whole


def test_a_label_without_a_word():
    with pytest.raises(ValueError, match="holds no word"):
        noun_of_label("__")
