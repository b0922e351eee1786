"""The `rsvl` command.

Exit status 0: done. 1: it failed, and the message says why. 2: the options were wrong.
"""

import ast
import errno
import importlib
import logging
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import MISSING
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any

from rsvl_data.errors import OptionError, RsvlError

RECIPES = Path(__file__).parent
_USAGE = """rsvl: archives -> image-text shards -> CLIP-type checkpoints -> numbers

  rsvl run                       list the recipes; `rsvl run NAME --help` explains one
  rsvl data validate DATASET     check every byte and record
  rsvl data stats DATASET        counts, sizes, words; `rsvl data browse DATASET` makes a page of samples
  rsvl data rate DATASET         a page on which people rate captions; `rsvl data agreement CSV...` says how far they agree
  rsvl data signature DATASET    hashes of its images, by which a test set can tell what a model has seen
  rsvl eval run SUITE            measure models on many datasets; `rsvl eval ls` lists these, `rsvl eval --help` the single tasks
  rsvl eval report RESULTS       one page of results
  rsvl segment predict           a mask of a picture or a GeoTIFF, from class names
  rsvl card model RUN            write the model card of a run
  rsvl --version
"""


def main(arguments: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if arguments is None else arguments)
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    for ours in ("rsvl_data", "rsvl_pretrain", "rsvl_segment", "evaluation", "cards", "recipes"):
        logging.getLogger(ours).setLevel(logging.INFO)
    try:
        return _dispatch(words)
    except RsvlError as error:
        print(f"rsvl: {error}", file=sys.stderr)
        return 2 if isinstance(error, OptionError) else 1
    except OSError as error:
        hint = ". Make room and give the same command again" if error.errno == errno.ENOSPC else ""
        print(f"rsvl: {error.strerror or error}{f': {error.filename}' if error.filename else ''}{hint}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("rsvl: interrupted. The same command goes on where it stopped.", file=sys.stderr)
        return 1


def _dispatch(words: list[str]) -> int:
    command, rest = (words[0], words[1:]) if words else ("--help", [])
    if command in ("--help", "-h"):
        print(_USAGE, end="")
    elif command == "--version":
        from rsvl_data.version import code_version

        print(f"rsvl {code_version()}")
    elif command == "run":
        return run_recipe(rest)
    elif command in _GROUPS:
        return _GROUPS[command](rest)
    else:
        raise OptionError(f"unknown command {command!r}; allowed are run, {', '.join(_GROUPS)}. See `rsvl --help`.")
    return 0


# --- rsvl run -------------------------------------------------------------------------------------------------------------


def recipe_names() -> list[str]:
    """data/import, pretrain/clip, ...: every file below a folder of `recipes`, and quickstart."""
    files = [path for path in RECIPES.glob("*/*.py") if not path.stem.startswith("_")]
    return ["quickstart", *sorted(path.relative_to(RECIPES).with_suffix("").as_posix() for path in files)]


def recipe_module(name: str) -> ModuleType:
    """Raises OptionError for an unknown name, with those that come close."""
    names = recipe_names()
    if name not in names:
        close = get_close_matches(name, names, n=3, cutoff=0.4)
        raise OptionError(f"no recipe {name!r}; did you mean {' or '.join(close) or 'one of'}? There are: {', '.join(names)}")
    return importlib.import_module(f"recipes.{name.replace('/', '.')}")


def run_recipe(words: list[str]) -> int:
    """`NAME [--config FILE] [--smoke] [options]`. A recipe module has `Options`, `run(options)` and `smoke(folder) -> Options`; it may
    have `PRESETS`, fields of `Options` by name, from which `--preset NAME` lets all options start."""
    if not words or words[0] in ("--help", "-h"):
        for name in recipe_names():
            text = (RECIPES / f"{name}.py").read_text()
            print(f"  {name:<18} {(ast.get_docstring(ast.parse(text)) or '').splitlines()[0]}")
        return 0
    import tyro  # here, since this file is run again in every worker process

    name, *rest = words
    module = recipe_module(name)
    default: Any = tyro.MISSING_NONPROP
    if presets := getattr(module, "PRESETS", None):
        default = _preset(module, presets, rest)
    if "--smoke" in rest:
        rest.remove("--smoke")
        default = module.smoke(Path(tempfile.mkdtemp(prefix="rsvl-smoke-")))
    if "--config" in rest:
        from recipes.config import load_config

        at = rest.index("--config")
        if at + 1 == len(rest):
            raise OptionError("--config needs the path of a config.json")
        default = load_config(Path(rest[at + 1]), name, module.Options)
        del rest[at : at + 2]
    options = tyro.cli(module.Options, args=rest, default=default, description=module.__doc__, prog=f"rsvl run {name}")
    module.run(options)
    return 0


def _preset(module: ModuleType, presets: dict[str, dict[str, Any]], words: list[str]) -> Any:
    """Options of the preset that is asked for, or that `Options` names; what it does not say and must be said is left open."""
    import tyro

    fields: dict[str, Any] = module.Options.__dataclass_fields__
    name, given = fields["preset"].default, [word.removeprefix("--preset=") for word in words if word.startswith("--preset=")]
    if "--preset" in words[:-1]:
        given = [words[words.index("--preset") + 1]]
    if given and ("--smoke" in words or "--config" in words):
        raise OptionError("--preset is where options start, and so are --smoke and --config: give one of them")
    chosen = presets.get(given[0] if given else name, {})
    needed = [each for each, field in fields.items() if field.default is field.default_factory is MISSING]
    return module.Options(**{**dict.fromkeys(needed, tyro.MISSING), **chosen})


# --- rsvl data, rsvl eval, rsvl card ----------------------------------------------------------------------------------------


def _group(name: str, module: str) -> Callable[[list[str]], int]:
    """A group of verbs: the functions that `module.VERBS` names; their signatures are the options."""

    def run(words: list[str]) -> int:
        import tyro

        verbs = importlib.import_module(module).VERBS
        if not words or words[0] in ("--help", "-h"):
            for verb, function in verbs.items():
                print(f"  rsvl {name} {verb:<12} {(function.__doc__ or '').splitlines()[0]}")
            return 0
        if words[0] not in verbs:
            raise OptionError(f"unknown `rsvl {name} {words[0]}`; allowed are {', '.join(verbs)}")
        return tyro.cli(verbs[words[0]], args=words[1:], prog=f"rsvl {name} {words[0]}") or 0

    return run


_GROUPS: dict[str, Callable[[list[str]], int]] = {
    "data": _group("data", "recipes._data"),
    "eval": _group("eval", "recipes._eval"),
    "segment": _group("segment", "recipes._segment"),
    "card": _group("card", "recipes._card"),
}

if __name__ == "__main__":
    sys.exit(main())
