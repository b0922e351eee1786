import json
from pathlib import Path

import pytest
from PIL import Image

from evaluation.datasets.air_slt import open_air_slt
from rsvl_data.errors import DataError

SQUARE = [[1, 1], [6, 1], [6, 6], [1, 6]]


def write(folder: Path, entries: object, scenes: str = "imgs", names: tuple[str, ...] = ("0.jpg", "1.jpg")) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "anno.json").write_text(entries if isinstance(entries, str) else json.dumps(entries))
    (folder / scenes).mkdir(exist_ok=True)
    for name in names:
        Image.new("RGB", (8, 8)).save(folder / scenes / name)
    return folder


def entry(caption: object = "a pool", scene: object = "0.jpg", points: object = (SQUARE,)) -> dict[str, object]:
    return {"caption": caption, "jpg_name": scene, "points": points}


def test_the_published_annotations_are_read_whole(tmp_path, golden):
    golden("selo_windows")  # skips where there is no shared folder
    from shared_folder import SHARED

    source = SHARED / "data" / "selo_air_slt" / "anno.json"
    published = json.loads(source.read_text())
    names = tuple(sorted({each["jpg_name"] for each in published}))
    data = open_air_slt(write(tmp_path, source.read_text(), names=names))
    assert len(data.queries) == 59 and len(data.scenes.items) == 22 and data.dropped == {}
    assert sum(len(query.regions) for query in data.queries) == 103 and max(len(query.regions) for query in data.queries) == 8
    assert all(query.text and query.text == query.text.strip() for query in data.queries)
    assert all(data.scenes.paths[query.scene].name == published[int(query.key)]["jpg_name"] for query in data.queries)
    assert data.scenes.note is None


@pytest.mark.parametrize("scenes", ["imgs", "images", "."])
def test_scenes_lie_in_a_folder_or_beside(tmp_path, scenes):
    data = open_air_slt(write(tmp_path, [entry(" two pools\n"), entry(scene="1.jpg")], scenes))
    assert [query.text for query in data.queries] == ["two pools", "a pool"] and [query.scene for query in data.queries] == [0, 1]
    assert (data.scenes.root / data.scenes.paths[1]).is_file()
    assert "do not compare with published" in data.scenes.note


def test_annotations_in_the_layout_of_the_authors_repository(tmp_path):
    write(tmp_path / "annotations", [entry()]).joinpath("imgs").rename(tmp_path / "imgs")
    assert len(open_air_slt(tmp_path).queries) == 1


def test_what_cannot_be_asked_is_counted_by_reason(tmp_path):
    bad = [
        entry(caption="  \n"), entry(caption=None), entry(points=[]), entry(points="x"), entry(points=[[[1, 2], [3]]]),
        entry(points=[[[1, float("nan")], [3, 4], [5, 5]]]), entry(points=[[[1, True], [3, 4], [5, 5]]]), entry(scene=None), [], "x",
        entry(points=[[[1, 1e12], [3, 4], [5, 5]]]),
    ]  # fmt: skip
    data = open_air_slt(write(tmp_path, [*bad, entry()]))
    assert data.dropped == {"no_text": 2, "no_region": 2, "bad_region": 4, "no_scene": 3}
    assert [query.key for query in data.queries] == ["11"] and len(data.scenes.items) == 1


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ("{not json", "not readable"),
        ({"caption": "x"}, "holds a dict"),
        ([], "it is empty"),
        ([entry(caption="")], "no_text 1"),
        ([entry(scene="../secret.jpg")], "lead out of the folder"),
        ([entry(scene="/etc/passwd")], "lead out of the folder"),
        ([entry(), entry(scene="7.jpg")], "1 of 2 images are not there"),
    ],
)
def test_what_is_no_annotation_is_an_error(tmp_path, entries, message):
    with pytest.raises(DataError, match=message):
        open_air_slt(write(tmp_path, entries))


def test_a_folder_without_annotations(tmp_path):
    with pytest.raises(DataError, match="expected anno.json"):
        open_air_slt(tmp_path)


def test_the_identity_knows_texts_and_regions(tmp_path):
    def identity(*entries: dict[str, object]) -> str:
        return open_air_slt(write(tmp_path, list(entries))).sha256()

    first = identity(entry())
    assert identity(entry()) == first
    assert len({first, identity(entry("a pond")), identity(entry(points=[SQUARE, SQUARE])), identity(entry(), entry())}) == 4


def test_a_few_queries_are_spread_over_the_file(tmp_path):
    data = open_air_slt(write(tmp_path, [entry(text) for text in ("one", "two", "three", "four")]), "mine")
    few = data.thinned(2)
    first, second = (query.text for query in few.queries)
    assert first in ("one", "two") and second in ("three", "four") and few.sha256() != data.sha256()
    assert few.scenes.note == "Measured on 2 of these 4 queries only (--limit)."
    assert data.thinned(9) == data
    with pytest.raises(DataError, match="at least 1"):
        data.thinned(0)
