"""Options of a recipe as JSON: `config.json` beside every output, and back through `--config`."""

import json
import os
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from rsvl_data.errors import OptionError
from rsvl_data.shards import write_atomically
from rsvl_data.version import code_version

T = TypeVar("T")


def save_config(folder: Path, recipe: str, options: Any) -> None:
    """The resolved options of a run, defaults and all. Of several processes that torchrun started, the first one writes."""
    if os.environ.get("RANK", "0") != "0":
        return
    content = {"recipe": recipe, "code": code_version(), "options": TypeAdapter(type(options)).dump_python(options, mode="json")}
    write_atomically(folder / "config.json", (json.dumps(content, indent=1) + "\n").encode())


def load_config(path: Path, recipe: str, kind: type[T]) -> T:
    """Raises OptionError for a file of another recipe, or one that names options this recipe does not have."""
    try:
        content = json.loads(path.read_text())
        if content["recipe"] != recipe:
            raise OptionError(f"{path} is the configuration of {content['recipe']}, not of {recipe}")
        unknown = content["options"].keys() - kind.__dataclass_fields__.keys()  # type: ignore[attr-defined]
        if unknown:
            raise OptionError(
                f"{path} sets {', '.join(sorted(unknown))}, which {recipe} does not have (see `rsvl run {recipe} --help`)"
            )
        return TypeAdapter(kind).validate_python(content["options"])
    except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
        raise OptionError(f"--config {path} cannot be used: {error}") from error
