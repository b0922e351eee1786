"""What the README.md of a Hugging Face dataset says in its front matter: the licence, which files are which split, names of classes.

https://huggingface.co/docs/hub/datasets-cards. A README without front matter, or with one that cannot be read, says nothing.
"""

import logging
import re
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Self

_MAX_CHARS = 1_000_000  # of the README; the names of 20,000 classes are within it
_FRONT_MATTER = re.compile(r"\A\ufeff?---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|\Z)", re.DOTALL)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DatasetCard:
    """`data_files` are (split, pattern) as `configs` lists them; `class_names` the names of the numbers in a column."""

    licence: str | None = None
    data_files: tuple[tuple[str, str], ...] = ()
    class_names: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Of the README.md itself; one that is missing is an empty card."""
        import yaml  # here: few datasets have a card

        try:
            with path.open(encoding="utf-8", errors="replace") as file:
                found = _FRONT_MATTER.match(file.read(_MAX_CHARS))
            if found and re.search(r"<<\s*:", found[1]):
                raise ValueError("it merges mappings (<<), which can grow without bounds")
            front = yaml.safe_load(found[1]) if found else None
        except FileNotFoundError:
            return cls()
        except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
            logger.warning("%s: the front matter is passed over: %.200s", path, error)
            return cls()
        if not isinstance(front, dict):
            return cls()
        return cls(_licence(front), tuple(_data_files(front, path)), _class_names(front.get("dataset_info")))

    def lists(self, relative: str) -> bool:
        """Whether the file belongs to the dataset: named by a pattern, or there is none."""
        return not self.data_files or self.split_of(relative) is not None

    def split_of(self, relative: str) -> str | None:
        """The dataset's own word for the split of a file, by the first pattern that names it."""
        return next((split for split, pattern in self.data_files if _matches(relative, pattern)), None)


def _licence(front: dict[str, Any]) -> str | None:
    """`other` is given with a name of its own where there is one."""
    given = _texts(front.get("license")) or _texts(front.get("licence"))
    if given == ["other"]:
        given = _texts(front.get("license_name")) or given
    return ", ".join(given) or None


def _data_files(front: dict[str, Any], path: Path) -> list[tuple[str, str]]:
    given = front.get("configs")
    configs = [c for c in (given if isinstance(given, list) else []) if isinstance(c, dict) and c.get("data_files")]
    if not configs:
        return []
    defaults = [config for config in configs if config.get("default") is True or config.get("config_name") == "default"]
    chosen = (defaults or configs)[0]
    if len(configs) > 1:
        logger.warning("%s has %d configs; read is %s", path, len(configs), chosen.get("config_name"))
    files = chosen["data_files"]
    if isinstance(files, str) or (isinstance(files, list) and all(isinstance(file, str) for file in files)):
        return [("train", pattern) for pattern in _texts(files)]  # as `datasets` has it
    named = [file for file in files if isinstance(file, dict)] if isinstance(files, list) else []
    return [(str(file.get("split", "train")), pattern) for file in named for pattern in _texts(file.get("path"))]


def _class_names(info: Any) -> dict[str, list[str]]:
    """Of `dataset_info.features`, in the form that `datasets` writes: class_label: names: {'0': forest}."""
    info = info[0] if isinstance(info, list) and info else info
    features = info.get("features") if isinstance(info, dict) else None
    found = {}
    for feature in features if isinstance(features, list) else []:
        dtype = feature.get("dtype") if isinstance(feature, dict) else None
        label = dtype.get("class_label") if isinstance(dtype, dict) else None
        names = label.get("names") if isinstance(label, dict) else None
        if isinstance(names, dict):
            names = [names.get(str(number), names.get(number)) for number in range(len(names))]
        if isinstance(names, list) and all(isinstance(name, str) for name in names):
            found[str(feature.get("name"))] = names
    return found


def _texts(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [text for text in values if isinstance(text, str) and text]


def _matches(relative: str, pattern: str) -> bool:
    """`*` stays within a folder, `**` does not."""
    pattern = pattern.removeprefix("./")
    if "**" in pattern:
        return fnmatchcase(relative, pattern) or fnmatchcase(relative, pattern.replace("**/", ""))
    return relative.count("/") == pattern.count("/") and fnmatchcase(relative, pattern)
