import time

import pytest

from rsvl_data.caption_text import MAX_CHARS, MAX_RAW_CHARS, BadCaption, clean_caption, decode_text, detect_encoding

CHINESE = "机场旁边有许多飞机 ©Größe"


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("", "utf-8"),
        ("plain", "utf-8"),
        ("vue aérienne", "utf-8"),
        ("vue aérienne", "utf-8-sig"),
        ("vue aérienne", "utf-16"),
        ("vue aérienne", "utf-32"),
        (CHINESE, "gb18030"),
        ("机场 airport 旁边", "gb18030"),
        ("Größe", "cp1252"),
        ("café", "cp1252"),  # ends like UTF-8 that is cut
        ("“Île–de–France”", "cp1252"),
    ],
)
def test_the_encoding_is_found(text, encoding):
    content = text.encode(encoding)
    assert decode_text(content) == text and detect_encoding(content) == encoding


@pytest.mark.parametrize(
    ("content", "position"),
    [
        ("côte é".encode()[:-1], 6),
        ("Вид с воздуха на реку".encode("cp1251"), 0),
        ("空港の滑走路".encode("shift_jis"), 0),
        ("機場的跑道".encode("big5"), 0),
        (b"a\x81\x8d\xff", 1),
        (b"\xff\xfea", 2),
    ],
)
def test_what_cannot_be_told_is_no_text(content, position):
    with pytest.raises(UnicodeDecodeError) as caught:
        decode_text(content)
    assert caught.value.start == position


@pytest.mark.parametrize(
    "text",
    [
        "An airport with two runways",
        "صورة جوية لمطار فيه مدرجان",
        "تصویر هوایی از خانه\u200cها",
        "A stadium 🏟️ 👨\u200d👩\u200d👧 #drone",
        "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f over a pitch",
        "हिन्दी क्\u200dष",
        "area < 5 km² & > 2, x<y and z>w",
        "R&D centre; AT&T tower",
        "An aerial view of Null Island, none of the roads is paved",
        "Flood map, see https://example.org/report?id=1 for details",
        "A photo saved as port.jpg shows two cranes",
        "Fields <north> of the café",
        "7",
        "机场",
    ],
)
def test_sound_text_is_left_alone(text):
    assert clean_caption(text) == text


@pytest.mark.parametrize(
    ("given", "clean"),
    [
        ("  two\r\n lines\u2028here ", "two lines here"),
        ("a\x00 br\x07idge\x7f", "a bridge"),
        ("a \x1b[31mred\x1b[0m roof\x9b2J", "a red roof"),
        ("\u202eroof\u202c \u2066x\u2069 \u200fy", "roof x y"),
        ("an\u200b air\u200bport\ufeff", "an airport"),
        ("air\u200dport\u200c", "airport"),
        ("port\U000e0069\U000e0067", "port"),
        ("a\ufe0f\ufe01\U000e0101 b", "a\ufe0f b"),
        ("a bri\ud83ddge", "a bridge"),
        ("a \ud83c\udfdf here", "a 🏟 here"),
        ("Rho\u0302ne", "Rhône"),
        ("Vue aÃ©rienne de la cÃ´te", "Vue aérienne de la côte"),
        ("Fields &amp; farms &lt;north&gt; &#233;&#xE9;", "Fields & farms <north> éé"),
        ("Fields &amp;amp; farms", "Fields &amp; farms"),
        ('<p>An <b>aerial</b> view of <a href="x">a port</a>.</p><BR/>two', "An aerial view of a port. two"),
        ("a<script>alert(1)</script> road<!-- no --> here", "a road here"),
        ("a road <script>alert(1)", "a road"),
        ("&lt;script&gt;alert(1)&lt;/script&gt;a road", "a road"),
        ("<scr\u200bipt>alert(1)</script>a road", "a road"),
    ],
)
def test_repairs(given, clean):
    assert clean_caption(given) == clean


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "caption_empty"),
        (" \n\t\u200b", "caption_empty"),
        ("... --- !!!", "caption_no_words"),
        ("br\ufffdcke", "caption_encoding"),
        ("<i<i<i<b>>>>a road", "caption_markup"),
        ("null", "caption_placeholder"),
        ("NaN.", "caption_placeholder"),
        ("[No description]", "caption_placeholder"),
        ("https://example.org/1.html", "caption_is_url"),
        ("www.example.org", "caption_is_url"),
        ("IMG_20190304_112233.jpg", "caption_is_file_name"),
        ("DSC 0012", "caption_is_file_name"),
        ("aerial-view-of-a-port-1024x683.JPG", "caption_is_file_name"),
        ("aerial view " * 100, "caption_repetitive"),
        ("ab " * (MAX_CHARS // 2), "caption_too_long"),
        ("a" * (MAX_CHARS + 1), "caption_too_long"),
        ("a" * (MAX_RAW_CHARS + 1), "caption_too_long"),
    ],
)
def test_what_is_no_caption(text, reason):
    assert clean_caption(text) == BadCaption(reason)
    assert reason in BadCaption.__doc__


def test_length_is_judged_after_the_markup_is_gone():
    assert clean_caption("<br>" * 1500 + "a road") == "a road"


@pytest.mark.parametrize(
    "piece", ["<script>", "<!--", "<a ", "<b", "&", "&#", "\x1b[0", "\u200d", "é", "Ã©", "a\u0300", "a.", "x ", "\ud83d"]
)
def test_no_text_takes_long(piece):
    text = (piece * MAX_RAW_CHARS)[:MAX_RAW_CHARS]
    started = time.process_time()
    clean_caption(text)
    assert time.process_time() - started < 1


def test_any_text_becomes_one_safe_line():
    hypothesis = pytest.importorskip("hypothesis")
    pieces = hypothesis.strategies.sampled_from(
        [
            "a",
            "B",
            "é",
            "e\u0301",
            " ",
            "\n",
            "<",
            ">",
            "b",
            "/",
            "\u200c",
            "\u200d",
            "ه",
            "\ufe0f",
            "\ud83d",
            "\x1b[",
            "m",
            "Ã",
            "©",
            "\x00",
        ]
    )

    @hypothesis.settings(max_examples=300, deadline=None, database=None)
    @hypothesis.given(hypothesis.strategies.lists(pieces | hypothesis.strategies.characters(), max_size=12).map("".join))
    def check(text):
        clean = clean_caption(text)
        if isinstance(clean, str):
            assert clean == " ".join(clean.split())
            clean.encode()
            assert not any(character < " " or "\x7f" <= character <= "\x9f" for character in clean)

    check()
