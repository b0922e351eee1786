"""What a class is called and the sentences it is put into: one table for all tasks, each set as its authors published it."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

import open_clip

from evaluation.metrics.classification import TemplateAverage
from rsvl_data.errors import OptionError
from rsvl_data.words import words_of_label

PromptProtocol = Literal["rsvl", "skyscript", "farslip", "georsclip", "clip_benchmark"]
SLOT = "{}"


@dataclass(frozen=True)
class PromptSet:
    """`templates` hold one `{}` each, for the words that `class_name` makes of a raw label; `average` joins their embeddings."""

    name: str
    templates: tuple[str, ...]
    average: TemplateAverage = "normalize_then_average"
    class_name: Callable[[str], str] = words_of_label

    def __post_init__(self) -> None:
        wrong = [template for template in self.templates if template.count(SLOT) != 1]
        if wrong or not self.templates:
            raise OptionError(
                f"prompt set {self.name}: each template needs one {SLOT} for the class name; wrong: {wrong or 'no template'}"
            )

    def prompts(self, label: str) -> list[str]:
        words = self.class_name(label)
        return [template.replace(SLOT, words) for template in self.templates]


def prompt_set_id(prompts: PromptSet) -> str:
    """Name and 8 hex digits that change with any template, their order or the way they are averaged: `skyscript-1a2b3c4d`."""
    content = json.dumps([prompts.templates, prompts.average])
    return f"{prompts.name}-{hashlib.sha256(content.encode()).hexdigest()[:8]}"


def georsclip_class_name(label: str) -> str:
    """GeoRSCLIP does not split CamelCase ("annualcrop"): `zeroshot_get_dataset` in

    https://github.com/om-ai-lab/RS5M/blob/084cdd9596a845b69320526a7eef44b8cd3426ed/inference/inference_tool.py
    """
    return label.replace("_", " ").replace("/", " ").lower()


def _georsclip_templates() -> tuple[str, ...]:
    # https://github.com/om-ai-lab/RS5M/blob/084cdd9596a845b69320526a7eef44b8cd3426ed/inference/classname_and_prompt/RSAID.py
    on_image = (
        *("low resolution", "bad", "cropped", "bright", "dark"),
        *("close-up", "black and white", "jpeg corrupted", "blurry", "good"),
    )
    on_class = ("large", "nice", "small", "weird", "cool")
    templates = []
    for article, noun in (("a", "remote sensing image"), ("an", "aerial image"), ("a", "satellite image")):
        templates += [f"{article} {noun} of {what} {SLOT}." for what in ("many", "a", "the", "the hard to see", "a hard to see")]
        templates += [f"a {adjective} {noun} of {a} {SLOT}." for adjective, a in product(on_image, ("the", "a"))]
        templates += [f"{article} {noun} of {a} {adjective} {SLOT}." for adjective, a in product(on_class, ("the", "a"))]
    return tuple(templates)


# Own. No articles, so that "river", "dense residential" and "storage tanks" all read well; chosen by wording, not by score.
RSVL = PromptSet(
    "rsvl",
    (
        "a satellite image of {}.",
        "an aerial photo of {}.",
        "a remote sensing image of {}.",
        "an overhead view of {}.",
        "{} seen from above.",
    ),
)

# https://github.com/wangzhecheng/SkyScript/blob/b16d2e76c5a0cdd644e2422a4446fb092d2dc1e4/prompt_templates.py
# The second has no full stop there either. FarSLIP's copy of the file holds the same two, and its averaging and accuracies are the same:
# under its name only what surrounds them differs (percent with two decimals, 248 text tokens for its stage 2).
SKYSCRIPT = PromptSet("skyscript", ("a satellite photo of {}.", "a satellite image of {}"))
SKYSCRIPT_CAPTION_PREFIX = "a satellite image. "  # before every caption in retrieval

GEORSCLIP = PromptSet("georsclip", _georsclip_templates(), "average_then_normalize", georsclip_class_name)

# CLIP_benchmark 1.6.2 = https://github.com/LAION-AI/CLIP_benchmark/tree/48de38c1689fa6d8b4dd53e3370c669c3bb18117/clip_benchmark/datasets,
# en_classnames.json and en_zeroshot_classification_templates.json
EUROSAT_CLASS_NAMES = {
    "annual crop": "annual crop land",
    "forest": "forest",
    "herbaceous vegetation": "brushland or shrubland",
    "highway": "highway or road",
    "industrial": "industrial buildings or commercial buildings",
    "pasture": "pasture land",
    "permanent crop": "permanent crop land",
    "residential": "residential buildings or homes or apartments",
    "river": "river",
    "sea lake": "lake or sea",
}


def eurosat_class_name(label: str) -> str:
    return EUROSAT_CLASS_NAMES[words_of_label(label)]


CLIP_BENCHMARK_EUROSAT = PromptSet(
    "clip_benchmark_eurosat",
    ("a centered satellite photo of {}.", "a centered satellite photo of a {}.", "a centered satellite photo of the {}."),
    class_name=eurosat_class_name,
)
# "sattelite" is how it is spelled there.
CLIP_BENCHMARK_RESISC45 = PromptSet(
    "clip_benchmark_resisc45", ("a sattelite image of {}", "an aerial view of {}", "a sattelite photo of {}", "{} from above")
)
# OpenAI's own for RESISC45, whose models' published numbers were made with: data/prompts.md, see RESISC45_CLASS_NAMES below
OPENAI_RESISC45 = PromptSet(
    "openai_resisc45",
    tuple(
        f"{source} {view} of {article}{SLOT}."
        for article in ("", "a ", "the ")
        for view in ("imagery", "photo", "view")
        for source in ("satellite", "aerial")
    ),
)
# What CLIP_benchmark takes for a dataset it has no templates for (builder.py, `default_template`): OpenAI's 80.
CLIP_BENCHMARK_DEFAULT = PromptSet("clip_benchmark_imagenet1k", tuple(fill(SLOT) for fill in open_clip.OPENAI_IMAGENET_TEMPLATES))

# https://github.com/openai/CLIP/blob/d05afc436d78f1c48dc0dbf8e5980a9d471f35f6/data/prompts.md, class list of RESISC45
RESISC45_CLASS_NAMES = (
    "airplane", "airport", "baseball diamond", "basketball court", "beach", "bridge", "chaparral", "church",
    "circular farmland", "cloud", "commercial area", "dense residential", "desert", "forest", "freeway", "golf course",
    "ground track field", "harbor", "industrial area", "intersection", "island", "lake", "meadow", "medium residential",
    "mobile home park", "mountain", "overpass", "palace", "parking lot", "railway", "railway station",
    "rectangular farmland", "river", "roundabout", "runway", "sea ice", "ship", "snowberg", "sparse residential",
    "stadium", "storage tank", "tennis court", "terrace", "thermal power station", "wetland",
)  # fmt: skip


def prompts_of_protocol(protocol: str, labels: Sequence[str]) -> PromptSet:
    """The set a protocol prescribes for the classes of a dataset.

    CLIP_benchmark chooses by the dataset's name; here the classes decide, which a renamed copy cannot change.
    Raises OptionError for a protocol nobody knows.
    """
    fixed: Mapping[str, PromptSet] = {"rsvl": RSVL, "skyscript": SKYSCRIPT, "farslip": SKYSCRIPT, "georsclip": GEORSCLIP}
    if protocol in fixed:
        return fixed[protocol]
    if protocol != "clip_benchmark":
        raise OptionError(f"no zero-shot protocol is called {protocol!r}; allowed: {', '.join([*fixed, 'clip_benchmark'])}")
    classes = {words_of_label(label) for label in labels}
    if classes == set(EUROSAT_CLASS_NAMES):
        return CLIP_BENCHMARK_EUROSAT
    return CLIP_BENCHMARK_RESISC45 if classes == set(RESISC45_CLASS_NAMES) else CLIP_BENCHMARK_DEFAULT
