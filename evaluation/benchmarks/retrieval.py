"""Image-text retrieval on a captioned split: which image a sentence means, which sentence an image calls for."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from evaluation.benchmarks.identity import as_metric, origin
from evaluation.bootstrap import Statistic, intervals, mean_of, median, share
from evaluation.embed import Encoder, EvalPrecision, Progress, embed_images, embed_texts, no_progress, rows_of_split
from evaluation.metrics.ranks import first_right_ranks
from evaluation.metrics.relevance import Relevance
from evaluation.metrics.retrieval import (
    RetrievalProtocol,
    RetrievalTask,
    chance_median_rank,
    chance_recall_at_k,
    retrieval_task,
)
from evaluation.prompts import SKYSCRIPT_CAPTION_PREFIX
from evaluation.result import Metric, Result
from rsvl_data.errors import DataError
from rsvl_data.shards import Dataset
from rsvl_data.transforms import Engine

KS = (1, 5, 10)
NUM_GALLERY_QUERIES = 6  # a direction
NUM_FOUND = 5


def retrieval(
    encoder: Encoder,
    dataset: Dataset,
    split: str,
    *,
    protocol: RetrievalProtocol = "rsvl",
    lang: str = "en",
    batch_size: int = 64,
    workers: int = 2,
    precision: EvalPrecision = "fp32",
    engine: Engine = "exact",
    limit: int | None = None,
    seed: int = 0,
    num_bootstrap: int = 1000,
    progress: Progress = no_progress,
) -> Result:
    """Recall at 1, 5 and 10, their means and median ranks, in both directions; protocols as in `evaluation.metrics.retrieval`.

    `image_retrieval_*` has text queries, `text_retrieval_*` image queries (CLIP_benchmark's names). Ties go against the model.
    Only captions in `lang` take part; images without one are left out of queries and gallery and counted in `data`.
    Intervals: images are resampled together with their captions, under `skyscript` merged sentences and images each on their own;
    the gallery stays as it is. `details["items"]` holds the ranks that a paired comparison of two models needs: those of the text
    queries by what is resampled together, and one for each image.
    Raises DataError when no image of the split has a caption in `lang`.
    """
    began = time.perf_counter()
    captioned = _captioned(dataset, split, lang, limit)
    task = retrieval_task(captioned.captions, protocol)
    prefix = SKYSCRIPT_CAPTION_PREFIX if protocol == "skyscript" else ""
    images = embed_images(
        encoder,
        dataset,
        split,
        batch_size=batch_size,
        workers=workers,
        precision=precision,
        engine=engine,
        limit=limit,
        progress=progress,
    )[captioned.rows]
    texts = embed_texts(encoder, [prefix + text for text in task.texts], precision=precision)
    unit = np.arange(len(texts)) if protocol == "skyscript" else task.image_of_text  # what each text is resampled with
    text_ranks = first_right_ranks(texts, images, task.text_to_image)
    image_ranks = first_right_ranks(images, texts, task.image_to_text)
    return Result(
        task="retrieval",
        protocol=protocol,
        n=len(images),
        metrics=_metrics(task, text_ranks, unit, image_ranks, protocol, num_bootstrap, seed),
        prompts=f"prefix {prefix!r}" if prefix else None,
        seconds=time.perf_counter() - began,
        seed=seed,
        details={
            "gallery": _gallery(task, captioned.keys, images, texts, seed),
            "items": {"text_query_ranks": _by_unit(text_ranks, unit), "image_query_rank": image_ranks.tolist()},
        },
        **origin(encoder, dataset, split, engine, precision, lang=lang, texts=len(texts), without_caption=captioned.num_without),
    )


@dataclass(frozen=True)
class _Captioned:
    """The images that have captions in the language asked for; `rows` is where they are in the split."""

    rows: list[int]
    keys: list[str]
    captions: list[list[str]]
    num_without: int


def _captioned(dataset: Dataset, split: str, lang: str, limit: int | None) -> _Captioned:
    rows = rows_of_split(dataset, split, ["key", "captions", "caption_langs"], limit)
    captions = [[text for text, its in zip(row["captions"], row["caption_langs"]) if its == lang] for row in rows]
    kept = [i for i, own in enumerate(captions) if own]
    if not kept:
        langs = sorted({its for row in rows for its in row["caption_langs"]})
        there = ", ".join(langs) or "none"
        advice = f"Choose one of them, such as {langs[0]}." if langs else "`rsvl eval zero-shot` needs labels and no captions."
        raise DataError(
            f"{dataset.root}: no sample of split {split!r} has a caption in {lang!r}; languages there: {there}. {advice}"
        )
    return _Captioned(kept, [rows[i]["key"] for i in kept], [captions[i] for i in kept], len(rows) - len(kept))


def _by_unit(ranks: Int[np.ndarray, "t"], unit: Int[np.ndarray, "t"]) -> list[list[int]]:
    """`unit` rises."""
    return [part.tolist() for part in np.split(ranks, np.flatnonzero(np.diff(unit)) + 1)]


def _metrics(
    task: RetrievalTask,
    text_ranks: Int[np.ndarray, "t"],
    unit: Int[np.ndarray, "t"],
    image_ranks: Int[np.ndarray, "i"],
    protocol: RetrievalProtocol,
    num_bootstrap: int,
    seed: int,
) -> dict[str, Metric]:
    ks = (*KS, 100) if protocol == "skyscript" else KS
    each = np.arange(len(image_ranks))
    images_found = _side("image_retrieval", text_ranks, unit, task.text_to_image, ks)
    texts_found = _side("text_retrieval", image_ranks, each, task.image_to_text, ks)
    if protocol == "skyscript":  # it reports one mean a direction and no mean of both
        together = [(images_found, len(text_ranks)), (texts_found, len(image_ranks))]
    else:
        means = [side[f"{name}_retrieval_mean_recall"] for name, side in (("image", images_found), ("text", texts_found))]
        both = (mean_of(*(of for of, _ in means)), float(np.mean([chance for _, chance in means])))
        together = [({**images_found, **texts_found, "mean_recall": both}, len(image_ranks))]
    metrics: dict[str, Metric] = {}
    for side, num_units in together:
        found = intervals({name: of for name, (of, _) in side.items()}, num_units, num_bootstrap=num_bootstrap, seed=seed)
        metrics |= {name: as_metric(found[name], side[name][1], higher_is_better="rank" not in name) for name in side}
    return metrics


def _side(
    name: str, ranks: Int[np.ndarray, "q"], unit: Int[np.ndarray, "q"], relevance: Relevance, ks: Sequence[int]
) -> dict[str, tuple[Statistic, float]]:
    """Every metric of one direction, and what guessing gives."""
    right, num_items = relevance.num_right(), relevance.num_items
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
