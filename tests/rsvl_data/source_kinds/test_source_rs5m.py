import csv
import io
import json

import pytest
from foreign_tars import picture, read_all, texts, write_tar
from PIL import Image

from rsvl_data.errors import DataError
from rsvl_data.image_form import ImageForm
from rsvl_data.sources import rs5m


def members(key, text="a field", image=None):
    return [(f"{key}.img_content", image or picture()), (f"{key}.img_name", f"{key}.jpg"), (f"{key}.caption", text)]


def test_farslip_27_official_tars(shared):
    root = shared / "fixtures" / "formats" / "02_rs5m"
    expected = json.loads((root / "expected.json").read_text())
    entries, samples, dropped = read_all(rs5m, root, ImageForm("png"))
    assert not dropped
    assert {split: [e.split for e in entries].count(split) for split in ("train", "val")} == expected["samples"]
    per_tar = {tar: sum(entry.facts["tar"] == tar for entry in entries) for tar in expected["shards"]}
    assert per_tar == expected["shards"]
    for name in ("first", "first_rs3"):
        facts = expected[name]
        sample = next(s for s in samples if s.provenance.img_name == facts["img_name"] and s.width == facts["width"])
        assert texts(sample) == facts["captions"] and sample.height == facts["height"]
    pattern = root / expected["pattern"]
    entries, samples, _ = read_all(rs5m, pattern)
    assert len(entries) == 16 and samples[0].sha256 == expected["first"]["sha256"]
    assert [entry.facts["tar"][:5] for entry in entries] == ["pub11"] * 8 + ["rs3-t"] * 8
    found = [Image.open(io.BytesIO(content)).format for content in _contents(root)]
    assert {form: found.count(form) for form in found} == expected["formats_inside_img_content"]


def _contents(root):
    for entry in rs5m.list_entries(root):
        offset, size = entry.facts["members"]["img_content"]
        yield (root / entry.facts["tar"]).read_bytes()[offset : offset + size]


def test_official_label_tables(shared):
    root = shared / "fixtures" / "formats" / "02_rs5m"
    expected = json.loads((root / "expected.json").read_text())
    for name in ("pub11_train.csv", "rs3_train.csv"):
        rows = [row for _, row in rs5m.read_labels(root / name)]
        assert len(rows) == expected[name]["rows"] and rows[0] == expected[name]["first"]
        assert expected[name]["row_4"] in rows


def test_who_wrote_the_captions(tmp_path):
    write_tar(tmp_path / "train" / "pub11-train-0000.tar", members("a"))
    write_tar(tmp_path / "val" / "rs3-val-0000.tar", members("b", "vu par satellite, 18.80°"))
    write_tar(tmp_path / "val" / "other-0000.tar", members("c"))
    entries, samples, _ = read_all(rs5m, tmp_path)
    assert [(e.split, s.captions[0].kind) for e, s in zip(entries, samples)] == [
        ("train", "alt"),
        ("val", "human"),
        ("val", "vlm"),
    ]
    assert (
        texts(samples[2]) == ["vu par satellite, 18.80°"] and samples[2].captions[0].source.model == "Salesforce/blip2-opt-6.7b"
    )
    assert samples[0].provenance.img_name == "a.jpg"


def test_farslip_27_incomplete_samples_and_missing_shards(tmp_path):
    write_tar(
        tmp_path / "pub11-train-0000.tar",
        [*members("a"), *members("b")[:2], *members("c")[1:], *members("d", b"\xff\xfe"), *members("e", image=b"no image")],
    )
    _, samples, dropped = read_all(rs5m, tmp_path / "pub11-train-{0000..0001}.tar")
    assert len(samples) == 1
    reasons = ["missing_member", "missing_member", "bad_encoding", "not_an_image", "missing_file"]
    assert [outcome.reason for outcome in dropped] == reasons


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030"])
def test_labels_by_position_in_either_encoding(tmp_path, encoding):
    table = 'picture,words\na.jpg,"城市, ""旧港""\n第二行"\na.jpg,second\n,no name\nb.jpg\nnone.jpg,x\n'
    (tmp_path / "rs3_val_intermediate.csv").write_bytes(table.encode(encoding))
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.jpg").write_bytes(picture())
    entries, [sample], dropped = read_all(rs5m, tmp_path)
    assert texts(sample) == ['城市, "旧港" 第二行', "second"] and sample.captions[0].kind == "vlm"
    assert [outcome.reason for outcome in dropped] == ["bad_row", "bad_row", "missing_file"]
    assert {entry.split for entry in entries} == {"val"}


def test_a_table_that_is_no_text(tmp_path):
    (tmp_path / "rs3_train.csv").write_bytes(b"a,b\n\xff\xff\xff\n")
    with pytest.raises(DataError, match="neither UTF-8 nor GB18030"):
        list(rs5m.list_entries(tmp_path / "rs3_train.csv"))


def test_a_field_without_end(tmp_path):
    csv.field_size_limit(131_072)  # Python's own; reading another table raises it for the whole process
    (tmp_path / "rs3_train.csv").write_text('a,b\nx,"' + "y" * 200_000)
    with pytest.raises(DataError, match="field larger than field limit"):
        list(rs5m.list_entries(tmp_path / "rs3_train.csv"))


def test_other_things_are_not_found(tmp_path):
    (tmp_path / "labels.csv").write_text("a,b\n")
    write_tar(tmp_path / "tars" / "x.tar", [("a.jpg", picture())])
    for path in (tmp_path, tmp_path / "labels.csv", tmp_path / "tars", tmp_path / "tars" / "x.tar"):
        assert rs5m.find(path) is None
