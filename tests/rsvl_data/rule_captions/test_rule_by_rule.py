import pytest

from rsvl_data.captions.by_rule import RULE_SOURCE, Dice, Templates, rule_stage, without_rule_captions
from rsvl_data.captions.labels import label_captions, label_sentences, label_vocabulary
from rsvl_data.errors import OptionError
from rsvl_data.sample import Caption, Sample


def sample(key="k", captions=(), **facts):
    return Sample(key=key, width=100, height=100, sha256="0" * 64, captions=list(captions), **facts)


def test_dice_follow_from_seed_key_and_purpose():
    def draws(*of):
        dice = Dice(*of)
        return [dice.below(1000) for _ in range(200)]

    assert draws(0, "a", "x") == draws(0, "a", "x")
    assert len({tuple(draws(*of)) for of in ((0, "a", "x"), (1, "a", "x"), (0, "b", "x"), (0, "a", "y"))}) == 4
    assert draws(0, "a", "x")[:3] == [876, 901, 715], "other machines and versions draw the same"


def test_dice_are_fair_and_never_run_out():
    dice = Dice(0, "k", "p")
    counts = [0] * 7
    for _ in range(7000):
        counts[dice.below(7)] += 1
    assert min(counts) > 850 and max(counts) < 1150
    assert sorted(dice.some("abc", 9)) == ["a", "b", "c"] and len(set(dice.some(range(50), 9))) == 9


def test_templates_tell_as_many_facts_as_there_are():
    templates = Templates("{what} in {season}", "{a_season} view of {what}", "{what} {be} here", forms=("be",))
    assert set(templates.fitting(["what", "season"])) == {"{what} in {season}", "{a_season} view of {what}"}
    assert templates.fitting(["what"]) == ("{what} {be} here",) and templates.fitting(["season"]) == ()
    assert templates.fill(Dice(0, "k", "p"), {"what": "ships"}, be="are") == "Ships are here."
    told = {templates.fill(Dice(0, str(key), "p"), {"what": "ships", "season": "autumn"}, be="are") for key in range(20)}
    assert told == {"Ships in autumn.", "An autumn view of ships."}
    with pytest.raises(ValueError, match="no template tells"):
        templates.fill(Dice(0, "k", "p"), {"season": "spring"}, be="are")
    with pytest.raises(ValueError, match="tells no fact"):
        Templates("nothing {be}", forms=("be",))


def test_braces_in_a_fact_stay_what_they_are():
    assert Templates("{what}").fill(Dice(0, "k", "p"), {"what": "a {b}"}) == "A {b}."


def test_only_rule_captions_of_the_kind_are_replaced_and_parents_follow():
    captions = [
        Caption(text="plain", kind="label", source=RULE_SOURCE),
        Caption(text="a river", kind="vlm"),
        Caption(text="by a person", kind="label"),
        Caption(text="ein Fluss", kind="translation", lang="de", parent=1),
        Caption(text="boxes", kind="boxes", source=RULE_SOURCE),
    ]
    kept = without_rule_captions(captions, "label")
    assert [(c.text, c.parent) for c in kept] == [("a river", None), ("by a person", None), ("ein Fluss", 0), ("boxes", None)]
    translated = [captions[0], Caption(text="x", kind="translation", lang="de", parent=0)]
    assert without_rule_captions(translated, "label") == translated, "what a translation was made from stays"


def test_a_stage_can_run_again():
    stage = rule_stage("s", "label", lambda s: ["One.", "Two."] if s.label else [])
    (once,) = stage.run([sample(captions=label_captions("river"), label="river")])
    assert [c.text for c in once.captions] == ["One.", "Two."]
    (twice,) = stage.run([once])
    assert [c.text for c in twice.captions] == ["One.", "Two."]
    (without,) = stage.run([sample(captions=[Caption(text="x")])])
    assert [c.text for c in without.captions] == ["x"]


def test_label_captions_are_grammatical():
    assert [c.text for c in label_captions("airport")][:2] == [
        "a satellite image of an airport.",
        "an aerial photo showing an airport.",
    ]
    assert label_captions("storagetanks")[4].text == "storage tanks, seen from above."


def test_label_sentences_vary_by_key_seed_and_count():
    def texts(key="k", **options):
        (out,) = label_sentences(**options).run([sample(key, label="DenseResidential")])
        return [c.text for c in out.captions]

    assert texts() == texts() and len(texts(count=5)) == len(set(texts(count=5))) == 5
    assert len({tuple(texts(seed=seed)) for seed in range(20)}) > 5 and len({tuple(texts(str(key))) for key in range(20)}) > 5
    assert all("a dense residential area" in text.lower() and text[0].isupper() and text.endswith(".") for text in texts(count=9))
    with pytest.raises(OptionError, match="allowed are 1 to"):
        label_sentences(count=0)
    with pytest.raises(OptionError, match="count is 99"):
        label_sentences(count=99)


def test_a_label_without_a_word_passes():
    (out,) = label_sentences().run([sample(label="__", captions=[Caption(text="x")])])
    assert [c.text for c in out.captions] == ["x"]
    assert label_vocabulary(["SeaLake", "aircraft"]) == {"SeaLake": "a sea or lake", "aircraft": "an aircraft"}
