"""Images with labels, boxes, masks or positions -> image-text shards, as RS5M made its RS3 (arXiv:2306.11300, III-B) and beyond.

rsvl run data/rs3 --source MY_IMAGES --out DATASET
rsvl run data/rs3 --source MY_IMAGES --out DATASET --vlm.engine server --vlm.model Qwen/Qwen2.5-VL-7B-Instruct --ranked

The first command writes captions by rule: kinds `label`, `boxes`, `mask` and `meta`, and one of kind `composed` that fits the text
encoder. The second adds candidates of a vision-language model (`vlm`) and the choices among them (`top`, `rotation`). All of them stand
side by side in KEY.json, and `rsvl run pretrain/clip --caption-kinds ...` draws from those it names. Answers are kept beside --out as
they come: a killed build asks for none of them twice, and `rsvl run data/rank` ranks anew without asking.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from recipes._source import SourceOptions
from recipes.config import save_config
from recipes.data.rank import RankOptions, ranking_stages
from rsvl_data.captioning.answers import AnswerRules
from rsvl_data.captioning.engine import Engine, Sampling
from rsvl_data.captioning.openai_server import OpenAIServer
from rsvl_data.captioning.prompts import PROMPTS
from rsvl_data.captioning.stage import CaptionOptions, caption_with
from rsvl_data.captioning.transformers_engine import TransformersModel
from rsvl_data.captioning.vllm_engine import VllmModel
from rsvl_data.captions.compose import compose_captions
from rsvl_data.captions.labels import label_sentences
from rsvl_data.captions.land_cover import land_cover_sentences
from rsvl_data.captions.metadata import metadata_sentences
from rsvl_data.captions.objects import object_sentences
from rsvl_data.errors import OptionError
from rsvl_data.geo_facts import add_geo_facts
from rsvl_data.pipeline import BuildOptions, build
from rsvl_data.ranking.candidates import Ranking
from rsvl_data.ranking.rotation import Rotation
from rsvl_data.shards import Dataset
from rsvl_data.sources.base import Source
from rsvl_data.stage import Stage


@dataclass(frozen=True)
class RuleOptions:
    """Captions by rule."""

    labels: int = 1
    """sentences on the scene class; 0 writes none"""
    objects: int = 4
    """sentences on the boxes at the most; 0 writes none"""
    complete: bool = True
    """every object of the annotated kinds has its box; --no-complete (referring sets, region captions) never counts them"""
    land_cover: int = 4
    """sentences on the mask at the most; 0 writes none"""
    metadata: Literal["plain", "rs5m", "none"] = "plain"
    """sentences on place, time, sensor and angles; rs5m takes the facts and number formats of RS5M's captions of fMoW"""
    budget_tokens: int = 77
    """CLIP tokens that the composed caption may have: 77, or 248 for long-text encoders; 0 composes none"""


@dataclass(frozen=True)
class VlmOptions:
    """Captions by a vision-language model; docs/captioning.md."""

    engine: Literal["none", "server", "vllm", "transformers"] = "none"
    """server is any that speaks OpenAI's chat completions (vllm serve, transformers serve); vllm and transformers run in this process"""
    model: str = ""
    """name under which the server knows it; else a name on the Hugging Face Hub, or a folder"""
    revision: str | None = None
    """commit of the model, for the record and for the Hub"""
    base_urls: tuple[str, ...] = ("http://127.0.0.1:8000/v1",)
    """one a server; they share the requests evenly"""
    dialect: Literal["vllm", "transformers", "openai"] = "vllm"
    """what the server takes beyond the standard"""
    concurrency: int = 64
    """requests at once to one server"""
    prompt: str = "rs-generic-short"
    """id of a prompt of the library"""
    sampling: Sampling = field(default_factory=lambda: Sampling(num_candidates=20, temperature=1.0, top_k=50, max_tokens=60))
    rules: AnswerRules = field(default_factory=AnswerRules)
    tries: int = 3
    """questions for one image: the first, and again with another seed for each answer that the checks refused"""
    image_side_px: int = 1024
    """larger images are scaled down to this on their longer side before the model sees them"""
    store: Path | None = None
    """folder of finished answers; left out, that of --out with .answers behind its name"""

    def __post_init__(self) -> None:
        if self.engine != "none" and not self.model:
            raise OptionError(f"--vlm.engine {self.engine} needs --vlm.model")
        if self.prompt not in PROMPTS:
            raise OptionError(f"--vlm.prompt {self.prompt!r} is unknown; allowed are {', '.join(PROMPTS)}")


@dataclass(frozen=True, kw_only=True)
class Options(SourceOptions, BuildOptions):
    rules: RuleOptions = field(default_factory=RuleOptions)
    vlm: VlmOptions = field(default_factory=VlmOptions)
    ranked: bool = False
    """rank the model's candidates with two CLIP models, and add the choices `top` and `rotation`"""
    rank: RankOptions = field(default_factory=RankOptions)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ranked and self.vlm.engine == "none" and self.rank.ranking.candidate_kind == "vlm":
            raise OptionError("--ranked needs candidates: give --vlm.engine, or another --rank.ranking.candidate-kind")
        if self.workers > 1 and (self.ranked or self.vlm.engine in ("vllm", "transformers")):
            raise OptionError(f"--workers {self.workers} would load the models so many times; give --workers 1")

    def facts(self) -> dict[str, Any]:
        """Where answers come from and are kept is no matter."""
        facts = super().facts()
        for name in ("store", "base_urls", "concurrency"):
            del facts["vlm"][name]
        return facts


def run(options: Options) -> Dataset | None:
    source = options.open()
    dataset = build(source, stages(options, source), options, recipe="data/rs3", image_suffix=options.image.suffix)
    if dataset is not None:
        save_config(options.out, "data/rs3", options)
    return dataset


def stages(options: Options, source: Source) -> list[Stage]:
    rules, seed = options.rules, options.seed
    chosen = [add_geo_facts(options.geo)]
    if rules.labels:
        chosen.append(label_sentences(count=rules.labels, seed=seed))
    if rules.objects:
        chosen.append(object_sentences(most=rules.objects, complete=rules.complete, seed=seed))
    if rules.land_cover and source.mask:
        chosen.append(land_cover_sentences(source.mask, most=rules.land_cover, seed=seed))
    if rules.metadata != "none":
        chosen.append(metadata_sentences(preset=rules.metadata, seed=seed))
    if options.vlm.engine != "none":
        chosen.append(_vlm_stage(options))
    if options.ranked:
        chosen += ranking_stages(options.rank, seed)
    if rules.budget_tokens:
        chosen.append(compose_captions(budget_tokens=rules.budget_tokens, first=not options.ranked))
    return chosen


def _vlm_stage(options: Options) -> Stage:
    vlm, out = options.vlm, options.out.resolve()
    captions = CaptionOptions(
        store=vlm.store or out.with_name(out.name + ".answers"),
        tries=vlm.tries,
        image_side_px=vlm.image_side_px,
        sampling=vlm.sampling,
        rules=vlm.rules,
    )
    return caption_with(_engine(vlm), PROMPTS[vlm.prompt], captions)


def _engine(vlm: VlmOptions) -> Engine:
    if vlm.engine == "server":
        return OpenAIServer(
            model=vlm.model, revision=vlm.revision, base_urls=vlm.base_urls, dialect=vlm.dialect, concurrency=vlm.concurrency
        )
    return (VllmModel if vlm.engine == "vllm" else TransformersModel)(model=vlm.model, revision=vlm.revision)


def smoke(folder: Path) -> Options:
    """Twelve images of noise in three class folders; the sentences made from their labels are ranked by two tiny models."""
    noise = np.random.default_rng(0)
    for index in range(12):
        path = folder / "source" / ("forest", "river", "beach")[index % 3] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path)
    rank = RankOptions(
        model1="rsvl-tiny",
        model2="rsvl-tiny",
        ranking=Ranking(candidates=3, first_keep=2, second_keep=1, candidate_kind="label"),
        rotation=Rotation(num_views=4),
    )
    return Options(
        source=str(folder / "source"), out=folder / "dataset", rules=RuleOptions(labels=3), ranked=True, rank=rank, workers=1
    )
