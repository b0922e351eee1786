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
    """Raises OptionError, in words of the command line. An option counts as changed where it is not what its preset begins with."""
    begin = presets[options.preset]
    for need in needs:
        for name in () if need.given else need.options:
            for path, value, usual in _leaves(name, attrgetter(name)(options), _begins_as(type(options), begin, name)):
                if value != usual:
                    raise OptionError(f"{_as_typed(path, value)} changes nothing without {need.words}")


def _begins_as(kind: type, begin: Mapping[str, Any], name: str) -> Any:
    root, _, rest = name.partition(".")
    if root in begin:
        value = begin[root]
    else:
        field = kind.__dataclass_fields__[root]  # type: ignore[attr-defined]
        value = field.default if field.default_factory is MISSING else field.default_factory()
    return attrgetter(rest)(value) if rest else value


def _leaves(path: str, value: Any, usual: Any) -> Iterator[tuple[str, Any, Any]]:
    if not is_dataclass(value):
        yield path, value, usual
        return
    for name in value.__dataclass_fields__:
        yield from _leaves(f"{path}.{name}", getattr(value, name), getattr(usual, name))


def _as_typed(path: str, value: Any) -> str:
    group, dot, flag = path.replace("_", "-").rpartition(".")
    if isinstance(value, bool):
        return f"--{group}{dot}{'' if value else 'no-'}{flag}"
    return " ".join([f"--{group}{dot}{flag}", *map(str, value if isinstance(value, tuple) else (value,))])
