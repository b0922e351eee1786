"""README.md of an exported model, in the Hub's form."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from evaluation.result import Result
from evaluation.wording import markdown_table
from rsvl_data.errors import DataError
from rsvl_data.shards import write_atomically
from rsvl_data.version import code_version

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
    if len({result.model["sha256"] for result in results}) > 1:
        raise DataError("the results given are of different weights; a card speaks of one model")
    options = config["options"]
    data = ModelCardData(
        library_name="open_clip",
        pipeline_tag="zero-shot-image-classification",
        tags=["clip", "remote-sensing"],
        model_name=run.resolve().name,
        eval_results=[line for result in results for line in _eval_results(result)] or None,
    )
    notes = sorted({result.data["note"] for result in results if result.data.get("note")})
    text = _CARD.format(
        front=data.to_yaml(),
        name=run.resolve().name,
        notes="".join(f"**{note}**\n\n" for note in notes),
        vision=_describe(model["vision_cfg"]),
        text=_describe(model["text_cfg"]),
        embed_dim=model["embed_dim"],
        start=options["model"],
        steps=options["train"]["steps"],
        batch_size=options["batch_size"],
        dataset=", ".join(sorted({result.dataset for result in results})) or Path(options["data"]).name,
        table=markdown_table(results) if results else "Not measured yet.",
        sha256=results[0].model["sha256"] if results else "see the safetensors file",
        code=code_version(),
        options=json.dumps(options, indent=1),
    )
    path = run / "export" / "README.md"
    write_atomically(path, str(ModelCard(text)).encode())
    return path


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

{table}

Values are fractions with 95 % bootstrap intervals. Numbers under other protocols do not compare.

## Limits

Measured on the data named above and nowhere else. Not for decisions about people, nor without a check by
somebody who knows the imagery.

## How it was made

rsvl {code}, `rsvl run pretrain/clip --config config.json` with

```json
{options}
```
"""
