"""The page is read as a browser reads it, and the table as the people read it who publish ratings."""

import base64
import hashlib
import json
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from colour_source import ColourSource, build_colours
from PIL import Image

from rsvl_data.errors import DataError, OptionError
from rsvl_data.images import encode
from rsvl_data.pipeline import BuildOptions, build
from rsvl_data.rating.page import PageOptions, write_rating_page
from rsvl_data.rating.ratings import AXES, by_unit, read_ratings
from rsvl_data.sample import Caption
from rsvl_data.shards import Dataset

HOSTILE = '</script><script>alert(1)</script><img src=x onerror=alert(2)> "quoted", & <b>bold</b>'


class Reader(HTMLParser):
    """Elements by name, their attributes, and the text of scripts."""

    def __init__(self, text: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.elements and self.elements[-1][0] == "script" and data.strip():
            self.scripts.append(data)


def kinds_of(number: int) -> dict[str, object]:
    return {
        "captions": [
            Caption(text=HOSTILE if number == 0 else f"written by hand {number}"),
            Caption(text=f"same words {number}", kind="top", parent=0),
            Caption(text=f"same words {number}", kind="rotation", parent=0),
        ]
    }


@pytest.fixture
def captioned(tmp_path: Path) -> Dataset:
    options = BuildOptions(out=tmp_path / "data", samples_per_shard=10, workers=1)
    dataset = build(ColourSource(20, note="flat colours", extra=kinds_of), [], options, recipe="test")
    assert dataset is not None
    return dataset


def page_of(dataset: Dataset, **options: object) -> tuple[str, dict]:
    out = dataset.root.parent / "page.html"
    written = write_rating_page(dataset, out, PageOptions(**options))
    text = out.read_text()
    assert written.num_bytes == out.stat().st_size
    return text, json.loads(Reader(text).scripts[0])


def test_the_page_holds_every_drawn_caption_and_says_nothing_of_its_kind(captioned):
    text, data = page_of(captioned, num=20, captions_per_image=3)
    samples = {s.key: s for split in captioned.splits for s in captioned.samples(split)}
    found = {(item["image_path"], item["description"]) for item in data["items"]}
    assert found == {(f"{key}.jpg", caption.text) for key, s in samples.items() for caption in s.captions}
    assert len(data["items"]) == 40  # the same words are rated once
    assert set(data["items"][0]) == {"image", "image_path", "description"}
    assert "rotation" not in text and "captioned" not in text and '"parent"' not in text
    assert "flat colours" in text


def test_captions_from_the_web_stay_text(captioned):
    text, data = page_of(captioned, num=20, kinds=("human",))
    assert HOSTILE in [item["description"] for item in data["items"]]
    read = Reader(text)
    assert [tag for tag, _ in read.elements].count("script") == 2 and "alert(" not in "".join(read.scripts[1:])
    assert not any(name.startswith("on") for _, attributes in read.elements for name in attributes)
    assert "textContent = item.description" in read.scripts[1] and "innerHTML" not in text


def test_nothing_is_loaded_and_only_the_one_script_may_run(captioned):
    text, data = page_of(captioned, num=3)
    read = Reader(text)
    policy = next(a["content"] for tag, a in read.elements if tag == "meta" and a.get("http-equiv"))
    digest = base64.b64encode(hashlib.sha256(read.scripts[1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in policy and policy.startswith("default-src 'none'")
    assert not re.search(r"https?://|@import|url\(", text)
    assert not [a for _, a in read.elements if a.get("src") or a.get("href")]
    assert all(uri.startswith("data:image/webp;base64,") for uri in data["images"])


@pytest.mark.parametrize("changed", [{"seed": 1}, {"num": 4}, {"kinds": ("human",)}, {"captions_per_image": 2}, {"split": "val"}])
def test_options_change_the_page(captioned, changed):
    base = {"num": 5, "captions_per_image": 1}
    items = page_of(captioned, **base)[1]["items"]
    assert page_of(captioned, **base)[1]["items"] == items
    assert page_of(captioned, **{**base, **changed})[1]["items"] != items


def test_the_choice_does_not_depend_on_shards(captioned, tmp_path):
    options = BuildOptions(out=tmp_path / "other", samples_per_shard=3, workers=1)
    other = build(ColourSource(20, note="flat colours", extra=kinds_of), [], options, recipe="test")
    assert page_of(captioned, num=7)[0] == page_of(other, num=7)[0]


def test_images_shrink_until_the_file_fits(tmp_path):
    noise = np.random.default_rng(0)

    def noisy(number: int) -> dict[str, object]:
        image = encode(Image.fromarray(noise.integers(0, 255, (400, 300, 3), dtype=np.uint8)), "jpg")
        return {"image": image, "sha256": hashlib.sha256(image).hexdigest(), "width": 300, "height": 400}

    dataset = build(ColourSource(6, extra=noisy), [], BuildOptions(out=tmp_path / "noisy", workers=1), recipe="test")
    sizes = {}
    for name, options in {"large": {}, "small": {"image_px": 200}, "squeezed": {"max_mb": 0.15}}.items():
        written = write_rating_page(dataset, tmp_path / f"{name}.html", PageOptions(num=6, **options))
        sizes[name] = written.image_px
        assert written.num_bytes <= 1e6 * options.get("max_mb", 10)
    assert sizes["large"] == 512 and sizes["small"] == 200 and 96 <= sizes["squeezed"] < 200
    with pytest.raises(OptionError, match="smaller --num or a larger --max-mb"):
        write_rating_page(dataset, tmp_path / "none.html", PageOptions(num=6, max_mb=0.02))
    assert not (tmp_path / "none.html").exists()


def test_an_unreadable_sample_is_passed_over_and_counted(captioned, tmp_path):
    tar = captioned.shards("train")[0].tar
    content = bytearray(tar.read_bytes())
    member = captioned.shards("train")[0].members[0][0]
    content[member.offset : member.offset + member.size] = bytes(member.size)
    tar.write_bytes(content)
    written = write_rating_page(captioned, tmp_path / "page.html", PageOptions(num=20))
    assert (written.num_images, written.num_unreadable) == (19, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num": 0}, "num 0"),
        ({"captions_per_image": 0}, "must be 1 or more"),
        ({"image_px": 20}, "at least 96"),
        ({"max_mb": 0}, "above 0"),
    ],
)
def test_wrong_page_options(options, message):
    with pytest.raises(OptionError, match=message):
        PageOptions(**options)


def test_no_caption_of_the_kind(tmp_path):
    with pytest.raises(DataError, match="no caption to rate: kinds vlm"):
        write_rating_page(build_colours(tmp_path / "data"), tmp_path / "page.html", PageOptions(kinds=("vlm",)))
    assert not (tmp_path / "page.html").exists()


# --- ratings.csv ------------------------------------------------------------------------------------------------------------

HEADER = "image_path,description,relevance_detail,hallucination,fluency\r\n"


def table(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_table_with_quotes_blanks_and_mistakes(tmp_path):
    rows = 'a.jpg,"x, ""y""\nz",5,,3\r\nb.jpg,w,9,4.5,good\r\nc.jpg,short\r\na.jpg,"x, ""y""\nz",4,4,4\r\n'
    ratings = read_ratings(table(tmp_path / "ann.csv", "\ufeff" + HEADER + rows))
    assert ratings.rater == "ann" and ratings.units == [("a.jpg", 'x, "y"\nz'), ("b.jpg", "w"), ("a.jpg", 'x, "y"\nz')]
    np.testing.assert_array_equal(ratings.values, [[5, np.nan, 3], [np.nan] * 3, [4, 4, 4]])
    assert ratings.left_out == Counter(not_a_rating=3, short_row=1)


def test_raters_meet_at_image_and_text(tmp_path):
    ann = read_ratings(table(tmp_path / "ann.csv", HEADER + "a.jpg,x,5,5,5\r\nb.jpg,x,1,1,1\r\na.jpg,x,4,4,4\r\n"))
    bob = read_ratings(table(tmp_path / "bob.csv", HEADER + "b.jpg,x,2,2,2\r\na.jpg,y,3,3,3\r\n"))
    units, values = by_unit([ann, bob], "fluency")
    assert units == [("a.jpg", "x"), ("b.jpg", "x"), ("a.jpg", "y")]
    np.testing.assert_array_equal(values, [[4, 1, np.nan], [np.nan, 2, 3]])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read as a CSV"),
        (b"a,b\r\n1,2\r\n", "has no column image_path, description"),
        (b"\xff\xfe\x00", "cannot be read as a CSV"),
        (HEADER.encode() + b'a,"b', "cannot be read as a CSV"),
        (HEADER.encode() + b"a," + b"b" * 200_000 + b",1,1,1\r\n", "field larger than field limit"),
    ],
)
def test_what_is_no_table_of_ratings(tmp_path, content, message):
    with pytest.raises(DataError, match=message):
        read_ratings(table(tmp_path / "bad.csv", content))


def test_the_published_ratings(shared):
    golden = json.loads((shared / "fixtures/evaluation/rs5m_facts.json").read_text())["ratings"]
    folder = shared / "data/rs5m_caption_ratings"
    raters = [read_ratings(folder / name) for name in ("ratings_1_500.csv", "ratings_1001_1500.csv")]
    values = np.concatenate([ratings.values for ratings in raters])
    assert len(values) == golden["rows"]
    assert dict(zip(AXES, (~np.isnan(values)).sum(0), strict=True)) == golden["rated"]
    assert dict(zip(AXES, np.nanmean(values, 0), strict=True)) == pytest.approx(golden["mean"])
