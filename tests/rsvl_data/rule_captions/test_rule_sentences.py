import pytest

from rsvl_data.captions.sentences import as_sentences, sentences


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a river. two ships", ["a river.", "two ships"]),
        ("near St. Louis. two ships", ["near St. Louis.", "two ships"]),
        ("over Washington, D.C., in summer. ok", ["over Washington, D.C., in summer.", "ok"]),
        ("a stop in D.C. is near", ["a stop in D.C. is near"]),
        ("stands at 2.60m. utm zone 18T. next", ["stands at 2.60m.", "utm zone 18T.", "next"]),
        ('he said "go." then left', ['he said "go."', "then left"]),
        ("on June 9, 2016. amidst", ["on June 9, 2016.", "amidst"]),
        ("一条河。两艘船。", ["一条河。", "两艘船。"]),
        ("  ", []),
        ("", []),
    ],
)
def test_sentences(text, parts):
    assert sentences(text) == parts


def test_nothing_is_lost():
    text = "The sea! Is it St. Ives? approx. 3 boats... (near a pier.) End"
    assert " ".join(sentences(text)) == text


def test_sentences_to_stand_alone():
    assert as_sentences("a river, two ships. no bridge") == ["A river, two ships.", "No bridge."]
