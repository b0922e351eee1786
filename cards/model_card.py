"""README.md of an exported model, in the Hub's form."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from evaluation.contamination import shows_overlap
from evaluation.report_groups import contamination_text
from evaluation.result import Result
from evaluation.wording import markdown_table, model_name
from rsvl_data.errors import DataError
from rsvl_data.shard_cache import remote_address
from rsvl_data.shards import Dataset, write_atomically
from rsvl_pretrain.model import DualEncoder

_TASK_TYPES = {"zero_shot": "zero-shot-image-classification", "retrieval": "image-text-retrieval"}


def write_model_card(run: Path, results: Sequence[Result]) -> Path:
    """Write `run`/export/README.md and return its path.

    Raises DataError for a run without an export, or for results of other weights than the exported ones.
    """
    try:
        model = json.loads((run / "export" / "open_clip_config.json").read_text())["model_cfg"]
        config = json.loads((run / "config.json").read_text())
    except FileNotFoundError as error:
        raise DataError(f"{run} is not a finished run: {error.filename} is missing") from error
    options = config["options"]
    sha256 = DualEncoder.load(str(run)).weights_sha256()
    _refuse_other_weights(run, sha256, results)
    dataset, note = _training_data(options["data"])
    data = ModelCardData(
        library_name="open_clip",
        pipeline_tag="zero-shot-image-classification",
        tags=["clip", "remote-sensing"],
        model_name=run.resolve().name,
        eval_results=[line for result in results for line in _eval_results(result)] or None,
    )
    notes = sorted({text for text in (note, *(result.data.get("note") for result in results)) if text})
    text = _CARD.format(
        front=data.to_yaml(),
        name=run.resolve().name,
        notes="".join(f"**{note}**\n\n" for note in notes),
        vision=_describe(model["vision_cfg"]),
        text=_describe(model["text_cfg"]),
        embed_dim=model["embed_dim"],
        start=options["init_from"] if "init_from" in options else options["model"],
        steps=options["train"]["steps"],
        batch_size=options["batch_size"],
        dataset=dataset,
        results=_results_text(results),
        measured=_measured_on(results),
        sha256=sha256,
        code=config["code"],
        recipe=config["recipe"],
        options=json.dumps(options, indent=1),
    )
    path = run / "export" / "README.md"
    write_atomically(path, str(ModelCard(text)).encode())
    return path


def _refuse_other_weights(run: Path, sha256: str, results: Sequence[Result]) -> None:
    for result in results:
        if result.model["sha256"] != sha256:
            raise DataError(
                f"the result on {result.dataset} ({result.task}) is of {model_name(result)} with weights {result.model['sha256'][:12]}, "
                f"the export of {run} holds {sha256[:12]}; a card speaks of one model. Measure with --model {run}"
            )


def _training_data(place: str) -> tuple[str, str | None]:
    """What the training data are called, and the sentence that must stand beside them; the end of their path when they are gone."""
    if address := remote_address(place):
        return address, None
    try:
        dataset = Dataset.open(place)
    except DataError:
        return Path(place).resolve().name, None
    return dataset.name, dataset.note


def _results_text(results: Sequence[Result]) -> str:
    """The numbers, and below them what is known of images or datasets that the model was trained on, too."""
    if not results:
        return "Not measured yet."
    overlaps = dict.fromkeys(
        f"Overlap with the training data, {result.dataset}: {contamination_text(result.contamination)}."
        for result in results
        if result.contamination and shows_overlap(result.contamination)
    )
    return "\n\n".join([_RESULTS.format(table=markdown_table(results)), *overlaps])


def _measured_on(results: Sequence[Result]) -> str:
    names = ", ".join(dict.fromkeys(f"{result.dataset} ({result.split})" for result in results))
    return f"Measured on {names} and nowhere else." if results else "Measured on nothing yet."


def _eval_results(result: Result) -> list[EvalResult]:
    return [
        EvalResult(
            task_type=_TASK_TYPES.get(result.task, result.task),
            dataset_type=result.dataset,
            dataset_name=result.dataset,
            dataset_split=result.split,
            metric_type=name,
            metric_name=f"{name} ({result.protocol} protocol)",
            metric_value=metric.value,
        )
        for name, metric in result.metrics.items()
    ]


def _describe(config: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in config.items())


_CARD = """---
{front}
---

# {name}

{notes}A CLIP-type dual encoder for remote-sensing images, trained with rsvl on {dataset}.

| part | |
| --- | --- |
| image tower | {vision} |
| text tower | {text} |
| embedding | {embed_dim} numbers |
| started from | {start} |
| training | {steps} steps of {batch_size} samples |
| weights sha256 | `{sha256}` |

## Use

```python
import open_clip

model, _, preprocess = open_clip.create_model_and_transforms("local-dir:THIS_FOLDER")
tokenizer = open_clip.get_tokenizer("local-dir:THIS_FOLDER")
```

## Results

{results}

## Limits

{measured} Not for decisions about people, nor without a check by
somebody who knows the imagery.

## How it was made

rsvl {code}, `rsvl run {recipe} --config config.json` with

```json
{options}
```
"""

_RESULTS = """{table}

Shares are in percent, with 95 % bootstrap intervals; the front matter of this page holds the same as fractions of 1. Numbers under other
protocols do not compare."""
