"""Image-text retrieval on a captioned split: which image a sentence means, which sentence an image calls for."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from evaluation.benchmarks.features import EmbedOptions, embedding_origin
from evaluation.benchmarks.identity import as_metric
from evaluation.bootstrap import Interval, Statistic, intervals, mean_of, median, share
from evaluation.data import EvalSet
from evaluation.embed import Encoder, EvalPrecision, embed_images, embed_texts
from evaluation.metrics.ranks import ranks_both_ways
from evaluation.metrics.relevance import Relevance
from evaluation.metrics.retrieval import (
    MERGED,
    RetrievalProtocol,
    RetrievalTask,
    chance_median_rank,
    chance_recall_at_k,
    retrieval_task,
)
from evaluation.prompts import SKYSCRIPT_CAPTION_PREFIX
from evaluation.prompts_multilingual import LANGS
from evaluation.result import Metric, Result
from evaluation.thumbnails import with_pictures
from rsvl_data.errors import DataError, OptionError

ALL = "all"  # languages
KS, MOST = (1, 5, 10), 100
NUM_GALLERY_QUERIES = 6  # a direction
NUM_FOUND = 5


def retrieval(
    encoder: Encoder,
    data: EvalSet,
    *,
    protocol: RetrievalProtocol = "rsvl",
    lang: str = "en",
    seed: int = 0,
    num_bootstrap: int = 1000,
    **embedding: Unpack[EmbedOptions],
) -> Result:
    """Recall at 1, 5, 10 and 100, means of the first three and median ranks, in both directions; protocols as in
    `evaluation.metrics.retrieval`. Recall at 100 is told of galleries of 100 or more, and always where the protocol has it.

    `image_retrieval_*` has text queries, `text_retrieval_*` image queries (CLIP_benchmark's names). Ties go against the model.
    Only captions in `lang` take part; images without one are left out of queries and gallery and counted in `data`.
    `lang="all"` measures every language of the split in a gallery of its own, on the images that have a caption in all of them:
    `mean_recall[pt]` is of one language, `mean_recall` the mean over all.
    Intervals: images are resampled together with their captions, in all languages at once; under `skyscript` and `farslip` merged
    sentences and images each on their own. The gallery stays as it is. A median rank of fewer than six units has none.
    `details["items"]` holds the ranks that a paired comparison of two models needs, for all languages under `by_lang`: those of the text
    queries by what is resampled together, and one for each image.
    Raises DataError when no image of the split has the captions asked for, OptionError for all languages under a protocol that merges.
    """
    began = time.perf_counter()
    captioned = _captioned(data, lang)
    if lang == ALL and protocol in MERGED:
        raise OptionError(
            f"the protocol {protocol!r} resamples sentences, which have no counterpart in another language: "
            "use --protocol rsvl, clip_benchmark or georsclip for all languages, or name one language"
        )
    prefix = _prefix(protocol, data)
    images = embed_images(encoder, data, **embedding)[captioned.rows]
    found = {
        its: _search(encoder, images, captions, protocol, prefix, embedding.get("precision", "fp32"))
        for its, captions in captioned.by_lang.items()
    }
    first = next(iter(found.values()))
    langs = {"langs": list(found)} if lang == ALL else {}
    num_texts = sum(len(each.task.texts) for each in found.values())
    return Result(
        task="retrieval",
        protocol=protocol,
        n=len(images),
        metrics=_metrics(found, protocol, num_bootstrap, seed),
        prompts=f"prefix {prefix!r}" if prefix else None,
        seconds=time.perf_counter() - began,
        seed=seed,
        details={
            **with_pictures(data, _gallery(first.task, captioned.keys, images, first.texts, seed)),
            "items": {"by_lang": {its: each.items() for its, each in found.items()}} if langs else first.items(),
        },
        **embedding_origin(encoder, data, embedding, lang=lang, texts=num_texts, without_caption=captioned.num_without, **langs),
    )


def _prefix(protocol: RetrievalProtocol, data: EvalSet) -> str:
    """FarSLIP's `tests/test_retrieval.py` leaves SkyScript's own captions as they are."""
    return SKYSCRIPT_CAPTION_PREFIX if protocol in MERGED and not data.name.lower().startswith("skyscript") else ""


@dataclass(frozen=True)
class _Captioned:
    """The images that have captions in the languages asked for; `rows` is where they are in the split."""

    rows: list[int]
    keys: list[str]
    by_lang: dict[str, list[list[str]]]
    num_without: int


def _captioned(data: EvalSet, lang: str) -> _Captioned:
    there = Counter(its for item in data.items for its in {its for _, its in item.captions})
    langs = (
        sorted(there, key=lambda its: (its not in LANGS, LANGS.index(its) if its in LANGS else 0, its)) if lang == ALL else [lang]
    )
    by_lang = {its: [[text for text, other in item.captions if other == its] for item in data.items] for its in langs}
    kept = [i for i in range(len(data.items)) if by_lang and all(captions[i] for captions in by_lang.values())]
    if not kept:
        counts = ", ".join(f"{its} ({count} images)" for its, count in sorted(there.items())) or "none"
        advice = f"Choose one of them, such as {min(there)}." if there else "`rsvl eval zero-shot` needs labels and no captions."
        wanted = "every language" if lang == ALL else repr(lang)
        raise DataError(
            f"{data.name}: no sample of split {data.split!r} has a caption in {wanted}; languages there: {counts}. {advice}"
        )
    return _Captioned(
        kept,
        [data.items[i].key for i in kept],
        {its: [captions[i] for i in kept] for its, captions in by_lang.items()},
        len(data.items) - len(kept),
    )


@dataclass(frozen=True)
class _Found:
    """One language searched in both directions. `unit[j]` is what text query j is resampled with."""

    task: RetrievalTask
    texts: Tensor
    text_ranks: np.ndarray
    image_ranks: np.ndarray
    unit: np.ndarray

    def items(self) -> dict[str, Any]:
        return {"text_query_ranks": _by_unit(self.text_ranks, self.unit), "image_query_rank": self.image_ranks.tolist()}


def _search(
    encoder: Encoder,
    images: Float[Tensor, "i d"],
    captions: list[list[str]],
    protocol: RetrievalProtocol,
    prefix: str,
    precision: EvalPrecision,
) -> _Found:
    task = retrieval_task(captions, protocol)
    texts = embed_texts(encoder, [prefix + text for text in task.texts], precision=precision)
    text_ranks, image_ranks = ranks_both_ways(texts, images, task.text_to_image, device=encoder.device)
    return _Found(
        task,
        texts,
        text_ranks,
        image_ranks,
        np.arange(len(texts)) if protocol in MERGED else task.image_of_text,
    )


def _by_unit(ranks: Int[np.ndarray, "t"], unit: Int[np.ndarray, "t"]) -> list[list[int]]:
    """`unit` rises."""
    return [part.tolist() for part in np.split(ranks, np.flatnonzero(np.diff(unit)) + 1)]


_Side = dict[str, tuple[Statistic, float]]  # metric -> the statistic, and what guessing gives


def _metrics(found: Mapping[str, _Found], protocol: RetrievalProtocol, num_bootstrap: int, seed: int) -> dict[str, Metric]:
    sides = {lang: _sides(each, protocol) for lang, each in found.items()}
    first = next(iter(found.values()))
    if protocol in MERGED:  # they report one mean a direction and no mean of both
        (both,) = sides.values()
        together = list(zip(both, (len(first.text_ranks), len(first.image_ranks))))
    else:
        of_lang = {lang: _with_mean(*both) for lang, both in sides.items()}
        together = [(_over_languages(of_lang) if len(of_lang) > 1 else of_lang.popitem()[1], len(first.image_ranks))]
    metrics: dict[str, Metric] = {}
    for side, num_units in together:
        metrics |= _with_intervals(side, num_units, num_bootstrap, seed)
    return metrics


def _with_intervals(side: _Side, num_units: int, num_bootstrap: int, seed: int) -> dict[str, Metric]:
    """Ranks have no bounds: a median that no resample moves keeps its place, if there are units enough."""
    resampled: dict[str, Interval] = {}
    for of_ranks in (False, True):
        statistics = {name: of for name, (of, _) in side.items() if ("rank" in name) == of_ranks}
        bounds = None if of_ranks else (0.0, 1.0)
        resampled |= intervals(statistics, num_units, num_bootstrap=num_bootstrap, seed=seed, bounds=bounds)
    return {
        name: as_metric(
            resampled[name], chance, higher_is_better="rank" not in name, num_units=num_units if "rank" in name else None
        )
        for name, (_, chance) in side.items()
    }


def _sides(found: _Found, protocol: RetrievalProtocol) -> tuple[_Side, _Side]:
    each = np.arange(len(found.image_ranks))
    return (
        _side("image_retrieval", found.text_ranks, found.unit, found.task.text_to_image, protocol),
        _side("text_retrieval", found.image_ranks, each, found.task.image_to_text, protocol),
    )


def _with_mean(images_found: _Side, texts_found: _Side) -> _Side:
    means = [images_found["image_retrieval_mean_recall"], texts_found["text_retrieval_mean_recall"]]
    return {**images_found, **texts_found, "mean_recall": _mean_of_pairs(means)}


def _over_languages(of_lang: Mapping[str, _Side]) -> _Side:
    """The mean over languages of every metric, then each language's own."""
    names = [name for name in next(iter(of_lang.values())) if all(name in side for side in of_lang.values())]
    means = {name: _mean_of_pairs([side[name] for side in of_lang.values()]) for name in names}
    return means | {f"{name}[{lang}]": pair for lang, side in of_lang.items() for name, pair in side.items()}


def _mean_of_pairs(pairs: Sequence[tuple[Statistic, float]]) -> tuple[Statistic, float]:
    return mean_of(*(of for of, _ in pairs)), float(np.mean([chance for _, chance in pairs]))


def _side(
    name: str, ranks: Int[np.ndarray, "q"], unit: Int[np.ndarray, "q"], relevance: Relevance, protocol: RetrievalProtocol
) -> _Side:
    """Every metric of one direction, and what guessing gives. Of a smaller gallery the recall at 100 is always 1."""
    right, num_items = relevance.num_right(), relevance.num_items
    ks = (*KS, MOST) if protocol in MERGED or num_items >= MOST else KS
    recalls = {k: (share((ranks <= k).astype(float), unit=unit), chance_recall_at_k(right, num_items, k)) for k in ks}
    of, chances = zip(*(recalls[k] for k in KS))
    return {
        **{f"{name}_recall@{k}": recall for k, recall in recalls.items()},
        f"{name}_mean_recall": (mean_of(*of), float(np.mean(chances))),
        f"{name}_median_rank": (median(ranks.astype(float), unit), chance_median_rank(right, num_items)),
    }


def _gallery(
    task: RetrievalTask, keys: Sequence[str], images: Float[Tensor, "i d"], texts: Float[Tensor, "t d"], seed: int
) -> list[dict[str, Any]]:
    """A few queries a direction, drawn by `seed`, with the best five answers in the order that was scored."""
    generator = np.random.default_rng(seed)
    first_text = task.image_to_text.first_items()
    text_items = [(keys[image], text) for image, text in zip(task.image_of_text, task.texts)]
    image_items: list[tuple[str, str | None]] = [(key, None) for key in keys]
    shown = []
    for query in _drawn(len(texts), generator):
        right, found = _best(texts[query] @ images.T, task.text_to_image, query, image_items)
        shown.append(_shown("text_to_image", task.texts[query], None, right, found))
    for query in _drawn(len(images), generator):
        right, found = _best(images[query] @ texts.T, task.image_to_text, query, text_items)
        shown.append(_shown("image_to_text", task.texts[first_text[query]], keys[query], right, found))
    return shown


def _shown(direction: str, query: str, query_key: str | None, right: list[str], found: list[dict[str, Any]]) -> dict[str, Any]:
    return {"direction": direction, "query": query, "query_key": query_key, "right": right, "found": found}


def _drawn(count: int, generator: np.random.Generator) -> list[int]:
    return sorted(generator.choice(count, size=min(NUM_GALLERY_QUERIES, count), replace=False).tolist())


def _best(
    similarity: Float[Tensor, "n"], relevance: Relevance, query: int, items: Sequence[tuple[str, str | None]]
) -> tuple[list[str], list[dict[str, Any]]]:
    """Keys of all right items, and the first found. `items` are key and text of the gallery."""
    _, right = relevance.pairs(np.array([query]))
    scores = similarity.numpy()
    is_right = np.isin(np.arange(len(scores)), right)
    best = np.lexsort((is_right, -scores))[:NUM_FOUND]  # among equal scores the wrong ones first, as in the ranks
    found = [{"key": items[i][0], "text": items[i][1], "score": float(scores[i]), "right": bool(is_right[i])} for i in best]
    return sorted({items[i][0] for i in right}), found
