"""What the Hugging Face Hub and `datasets` need to read a dataset folder: the front matter of its README.md.

`datasets` infers a schema from the first samples and fails on records that differ, so the schema is declared,
generated from `Sample`: a field added there is declared here without a further line.

It is written in the form that `datasets.Features` has in YAML, without `datasets`, which takes a second to import.
"""

import json
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from rsvl_data.sample import Sample

_SIZES = [("n<1K", 10**3), ("1K<n<10K", 10**4), ("10K<n<100K", 10**5), ("100K<n<1M", 10**6), ("1M<n<10M", 10**7)]
_VALUES: dict[Any, str] = {str: "string", int: "int64", float: "float64", bool: "bool"}


def record_features(image_suffix: str, with_mask: bool) -> list[dict[str, Any]]:
    """The columns `datasets` shows: the image, the default caption, the record, and the mask where there is one."""
    columns: dict[str, Any] = {image_suffix: {"dtype": "image"}, "json": _feature(Sample), "txt": {"dtype": "string"}}
    if with_mask:
        columns["mask.png"] = {"dtype": "image"}
    columns |= {"__key__": {"dtype": "string"}, "__url__": {"dtype": "string"}}
    return [{"name": name, **feature} for name, feature in columns.items()]


def _feature(annotation: Any) -> dict[str, Any]:
    """With one item: a dtype, a struct (a list of named features) or a list (what each of its members is)."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        return _feature(next(argument for argument in arguments if argument is not NoneType))
    if origin is Literal:
        return {"dtype": "string"}
    if origin is dict:
        return {"dtype": "json"}  # names of scores are open
    if origin in (list, tuple):
        member = _feature(arguments[0])
        return {"list": member.get("dtype") or member.get("struct") or member}
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        fields = annotation.model_fields.items()
        return {"struct": [{"name": name, **_feature(field.annotation)} for name, field in fields if not field.exclude]}
    return {"dtype": _VALUES[annotation]}


def dataset_readme(manifest: dict[str, Any]) -> str:
    """A README.md whose front matter makes `datasets.load_dataset(FOLDER)` work, and whose text says how to read the folder."""
    import yaml  # here: once a dataset, at its end

    total = sum(manifest["splits"].values())
    front = {
        "pretty_name": manifest["name"],
        "tags": ["remote-sensing", "image-text", "webdataset"],
        "task_categories": ["zero-shot-image-classification", "image-to-text"],
        "size_categories": [next((name for name, limit in _SIZES if total < limit), "n>10M")],
        "language": manifest["languages"],
        "configs": [
            {
                "config_name": "default",
                "data_files": [{"split": split, "path": f"data/{split}-*.tar"} for split in manifest["splits"]],
            }
        ],
        "dataset_info": {
            "features": record_features(manifest["image"], manifest["mask"] is not None),
            "splits": [
                {
                    "name": split,
                    "num_examples": count,
                    "num_bytes": sum(s["bytes"] for s in manifest["shards"] if s["split"] == split),
                }
                for split, count in manifest["splits"].items()
            ],
        },
    }
    if manifest["licences"]:
        front["license"] = "other"
    counts = "\n".join(f"| {split} | {count} |" for split, count in manifest["splits"].items())
    return _README.format(
        front=yaml.safe_dump(front, sort_keys=False, allow_unicode=True),
        name=manifest["name"],
        note=f"**{manifest['note']}**\n\n" if manifest["note"] else "",
        counts=counts,
        licences=", ".join(manifest["licences"]) or "none recorded in the source",
        recipe=manifest["recipe"],
        code=manifest["code"],
        config=json.dumps(manifest["config"], indent=1),
    )


_README = """---
{front}---

# {name}

{note}| split | samples |
| --- | --- |
{counts}

Licences of the images: {licences}.

```python
import datasets, webdataset

datasets.load_dataset("THIS_FOLDER")                                             # typed columns, splits
webdataset.WebDataset("THIS_FOLDER/data/train-00000.tar", shardshuffle=False)    # KEY.jpg, KEY.txt, KEY.json
```

`KEY.txt` is the default caption, `KEY.json` the whole record (all captions, regions, geo facts, provenance, scores); the `.parquet` beside
each tar holds one row a sample, `manifest.json` the counts and checksums. Check every byte with `rsvl data validate THIS_FOLDER`.

Built by `{recipe}` (rsvl {code}) with

```json
{config}
```
"""
