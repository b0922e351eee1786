"""Classes as words: what each is called, the phrases that mean it, its colour; and the rows of a text classifier."""

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import open_clip
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from rsvl_data.errors import OptionError

Colour = tuple[int, int, int]
MAX_CLASSES = 255  # 255 itself stands for no class in a mask of bytes
# What RS-OVSS and SegEarth-OV put class names into: OpenAI's 80 for ImageNet.
OPENAI_TEMPLATES: tuple[str, ...] = tuple(fill("{}") for fill in open_clip.OPENAI_IMAGENET_TEMPLATES)

# So that the pictures of the usual classes look as maps do.
_USUAL_COLOURS: dict[str, Colour] = {
    "water": (38, 120, 210),
    "building": (214, 60, 60),
    "road": (250, 206, 66),
    "forest": (22, 110, 48),
    "tree": (22, 110, 48),
    "grass": (136, 196, 88),
    "cropland": (224, 196, 138),
    "agricultural": (224, 196, 138),
    "barren": (156, 130, 108),
    "bareland": (156, 130, 108),
    "background": (80, 80, 80),
}


class TextTower(Protocol):
    def encode_text(self, texts: Sequence[str], *, normalize: bool = True) -> Float[Tensor, "b d"]: ...


@dataclass(frozen=True)
class Classes:
    """`phrases[i]` are the words for class i: the first is its name, the others are synonyms."""

    phrases: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        words = [phrase for group in self.phrases for phrase in group]
        if not self.phrases or not all(self.phrases) or not all(word.strip() for word in words):
            raise OptionError('no class, or one without a name; give names such as "water,building|house,road"')
        if repeated := sorted({word for word in words if words.count(word) > 1}):
            raise OptionError(f"classes name {', '.join(repeated)} more than once; each phrase belongs to one class")
        if len(self.phrases) > MAX_CLASSES:
            raise OptionError(f"{len(self.phrases)} classes; a mask of bytes holds at most {MAX_CLASSES}")

    @classmethod
    def parse(cls, text: str) -> "Classes":
        """`water,building|house,road`: commas between classes, bars between the synonyms of one."""
        return cls(tuple(tuple(phrase.strip() for phrase in group.split("|")) for group in text.split(",")))

    def __len__(self) -> int:
        return len(self.phrases)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(group[0] for group in self.phrases)

    @property
    def queries(self) -> list[str]:
        """All phrases, class after class."""
        return [phrase for group in self.phrases for phrase in group]

    @property
    def query_to_class(self) -> list[int]:
        return [index for index, group in enumerate(self.phrases) for _ in group]

    def index(self, name: str) -> int:
        """Raises OptionError for a name that no class has."""
        for number, group in enumerate(self.phrases):
            if name in group:
                return number
        raise OptionError(f"no class is called {name!r}; there are {', '.join(self.names)}")

    def palette(self) -> tuple[Colour, ...]:
        """A colour each, all different: the usual one for some names, else hues far apart."""
        colours: list[Colour] = []
        for number, name in enumerate(self.names):
            colour, turn = _USUAL_COLOURS.get(name.lower(), _hue(number)), number
            while colour in colours or colour == (0, 0, 0):
                turn += len(self)
                colour = _hue(turn)
            colours.append(colour)
        return tuple(colours)


def _hue(number: int) -> Colour:
    """Steps of the golden angle never come close soon; brightness alternates for those that do."""
    red, green, blue = colorsys.hsv_to_rgb(number * 0.381966 % 1, 0.75, (0.95, 0.7)[number % 2])
    return round(red * 255), round(green * 255), round(blue * 255)


def text_queries(
    encoder: TextTower, classes: Classes, templates: Sequence[str] = OPENAI_TEMPLATES, *, batch_size: int = 256
) -> Float[Tensor, "q d"]:
    """A unit vector for each phrase: the mean of the unit vectors of its prompts. `templates` hold one {} each."""
    wrong = [template for template in templates if template.count("{}") != 1]
    if wrong or not templates:
        raise OptionError(f"each prompt template needs one {{}} for the class; wrong: {wrong or 'there is none'}")
    texts = [template.replace("{}", phrase) for phrase in classes.queries for template in templates]
    with torch.inference_mode():
        parts = [encoder.encode_text(texts[i : i + batch_size]).float() for i in range(0, len(texts), batch_size)]
        unit = F.normalize(torch.cat(parts), dim=-1).view(len(classes.queries), len(templates), -1)
        return F.normalize(unit.mean(1), dim=-1)
