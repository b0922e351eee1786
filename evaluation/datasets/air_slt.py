"""AIR-SLT: large scenes, and sentences with the regions they mean. Yuan et al., TGRS 2022.

https://github.com/xiaoyuan1996/SemanticLocalizationMetrics: 22 scenes of Google Earth (2,000 to 10,000 px a side, about 0.32 m a pixel),
59 sentences, 103 polygons; annotations under MIT, scenes from a drive that its README names. Layout:
    anno.json, or annotations/anno.json     [{"caption": text, "jpg_name": file, "points": [[[x, y], ...], ...]}]
    imgs/, images/, or beside               the scenes
Any annotation in this form is read, and scenes may be GeoTIFFs.
"""

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from evaluation.data import EvalItem, FileSet, part_note, spread
from evaluation.datasets.entry import check_files, check_inside, first_that_holds, folders_called
from evaluation.metrics.polygon_mask import Polygon
from rsvl_data.errors import DataError

AIR_SLT, HOME = "air-slt", "https://github.com/xiaoyuan1996/SemanticLocalizationMetrics"
_FOLDERS = ("AIR-SLT", "SemanticLocalizationMetrics", "selo_air_slt")
NUM_OFFICIAL_QUERIES, NUM_OFFICIAL_SCENES = 59, 22
_ANNOTATIONS = ("anno.json", "annotations/anno.json", "test_data/annotations/anno.json")
_SCENES = ("imgs", "images", "../imgs", "")


@dataclass(frozen=True)
class Query:
    """`key` is its place in the file, `scene` the number of its scene in the set; regions are polygons of [x, y] in the scene's pixels."""

    key: str
    text: str
    scene: int
    regions: tuple[Polygon, ...]


@dataclass(frozen=True)
class LocalizationSet:
    """`scenes` are those that queries ask for. `dropped` counts what could not be asked, by reason."""

    scenes: FileSet
    queries: tuple[Query, ...]
    dropped: dict[str, int]

    @property
    def name(self) -> str:
        return self.scenes.name

    def sha256(self) -> str:
        asked = [(query.key, query.text, query.scene, query.regions) for query in self.queries]
        return hashlib.sha256(f"{self.scenes.sha256()} {json.dumps(asked)}".encode()).hexdigest()

    def thinned(self, limit: int) -> "LocalizationSet":
        """At most `limit` queries, spread over the file; the note says so. Scenes that none of them asks for are not looked at. Raises
        DataError for a limit below 1."""
        if limit < 1:
            raise DataError(f"--limit {limit} leaves no query of {self.name}; it must be at least 1")
        queries = tuple(self.queries[place] for place in spread(len(self.queries), limit))
        note = part_note(self.scenes.note, len(queries), len(self.queries), "queries")
        return LocalizationSet(replace(self.scenes, note=note), queries, self.dropped)


def find_air_slt(root: Path) -> Path | None:
    """The folder of AIR-SLT below `root`, or `root` itself; None when its annotations are not there."""
    return next((folder for folder in folders_called(root, _FOLDERS) if _annotations(folder)), None)


def _annotations(folder: Path) -> Path | None:
    return next((folder / place for place in _ANNOTATIONS if (folder / place).is_file()), None)


def open_air_slt(folder: Path, name: str = AIR_SLT) -> LocalizationSet:
    """Queries without a text or with regions that are no polygons are dropped and counted.

    Raises DataError for a folder without annotations, annotations that are no list, none that can be asked, names that lead out of the
    folder, and scenes that are not there.
    """
    path = _annotations(folder)
    if path is None:
        raise DataError(f"{folder} holds no annotations; expected {' or '.join(_ANNOTATIONS[:2])}")
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} is not readable: {error}") from error
    if not isinstance(entries, list):
        raise DataError(f"{path} holds a {type(entries).__name__}; expected a list of objects with caption, jpg_name and points")
    dropped = Counter(why for entry in entries if (why := _why_not(entry)))
    asked = [(number, entry) for number, entry in enumerate(entries) if not _why_not(entry)]
    if not asked:
        told = ", ".join(f"{why} {count}" for why, count in dropped.items()) or "it is empty"
        raise DataError(f"{path} has no query that can be asked: {told}")
    names = list(dict.fromkeys(entry["jpg_name"] for _, entry in asked))
    check_inside(names, str(path))
    root = first_that_holds((path.parent / place for place in _SCENES), names)
    check_files([root / name for name in names], f"the scenes of {path}")
    queries = tuple(
        Query(str(number), entry["caption"].strip(), names.index(entry["jpg_name"]), _polygons(entry["points"]))
        for number, entry in asked
    )
    items = [EvalItem(scene) for scene in names]
    scenes = FileSet(name, "test", (), items, root, [Path(scene) for scene in names], _note(name, len(queries), len(names)))
    return LocalizationSet(scenes, queries, dict(dropped))


def _note(name: str, num_queries: int, num_scenes: int) -> str | None:
    if name != AIR_SLT or (num_queries, num_scenes) == (NUM_OFFICIAL_QUERIES, NUM_OFFICIAL_SCENES):
        return None
    return (
        f"{num_queries} queries on {num_scenes} scenes here, {NUM_OFFICIAL_QUERIES} on {NUM_OFFICIAL_SCENES} in AIR-SLT as published; "
        "numbers do not compare with published ones."
    )


def _why_not(entry: Any) -> str | None:
    """A word to count by; None for an entry that can be asked."""
    if not isinstance(entry, dict) or not isinstance(entry.get("jpg_name"), str) or not entry["jpg_name"]:
        return "no_scene"
    if not isinstance(entry.get("caption"), str) or not entry["caption"].strip():
        return "no_text"
    points = entry.get("points")
    if not isinstance(points, list) or not points:
        return "no_region"
    return None if all(isinstance(polygon, list) and all(map(_is_vertex, polygon)) for polygon in points) else "bad_region"


def _is_vertex(vertex: Any) -> bool:
    return (
        isinstance(vertex, list)
        and len(vertex) == 2
        and all(isinstance(value, int | float) and not isinstance(value, bool) for value in vertex)
        and all(abs(value) < 2**31 for value in vertex)  # false for NaN, too
    )


def _polygons(points: list[list[list[float]]]) -> tuple[Polygon, ...]:
    return tuple(tuple((float(x), float(y)) for x, y in polygon) for polygon in points)
