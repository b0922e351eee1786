"""Options that others leave without an effect: one that was changed is refused, so that nobody believes in what it says."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, is_dataclass
from operator import attrgetter
from typing import Any

from rsvl_data.errors import OptionError


@dataclass(frozen=True)
class Needs:
    """`options`, such as crop_area, distill.momentum, or distill for all below it, have an effect only where `given`: with `words`."""

    given: bool
    words: str
    options: Sequence[str]


def refuse_unused(options: Any, presets: Mapping[str, Mapping[str, Any]], needs: Sequence[Needs]) -> None:
    """Raises OptionError, in words of the command line. What the preset begins with, and what any recipe would, counts as left alone."""
    for need in needs:
        for name in () if need.given else need.options:
            root, _, rest = name.partition(".")
            default = _default(options, root)
            begin = presets[options.preset].get(root, default)
            of_all = (attrgetter(rest)(value) if rest else value for value in (getattr(options, root), default, begin))
            for path, value, *left_alone in _leaves(name, *of_all):
                if value not in left_alone:
                    raise OptionError(f"{_as_typed(path, value)} changes nothing without {need.words}")


def _default(options: Any, name: str) -> Any:
    field = options.__dataclass_fields__[name]
    return field.default if field.default_factory is MISSING else field.default_factory()


def _leaves(path: str, *values: Any) -> Iterator[tuple[Any, ...]]:
    """The path and the values there, of all that is below dataclasses."""
    if not is_dataclass(values[0]):
        yield path, *values
        return
    for name in values[0].__dataclass_fields__:
        yield from _leaves(f"{path}.{name}", *(getattr(value, name) for value in values))


def _as_typed(path: str, value: Any) -> str:
    group, dot, flag = path.replace("_", "-").rpartition(".")
    if isinstance(value, bool):
        return f"--{group}{dot}{'' if value else 'no-'}{flag}"
    return " ".join([f"--{group}{dot}{flag}", *map(str, value if isinstance(value, tuple) else (value,))])
