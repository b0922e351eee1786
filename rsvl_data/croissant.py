"""croissant.json: the machine-readable description of a dataset folder (Croissant 1.0, https://docs.mlcommons.org/croissant/docs/croissant-spec.html).

It describes the parquet files, which hold one row a sample; the tars beside them carry the images.
"""

from typing import Any

import pyarrow as pa

from rsvl_data.shards import PARQUET_SCHEMA

_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
_TYPES = {pa.string(): "sc:Text", pa.int32(): "sc:Integer", pa.float64(): "sc:Float"}


def croissant(manifest: dict[str, Any]) -> dict[str, Any]:
    """JSON-LD of a dataset with this manifest. Columns that are lists or maps are left to the parquet's own schema."""
    files = [
        {
            "@type": "cr:FileObject",
            "@id": f"data/{shard['name']}{suffix}",
            "name": f"{shard['name']}{suffix}",
            "contentUrl": f"data/{shard['name']}{suffix}",
            "encodingFormat": encoding,
            "sha256": shard[checksum],
        }
        for shard in manifest["shards"]
        for suffix, encoding, checksum in (
            (".tar", "application/x-tar", "sha256"),
            (".parquet", "application/x-parquet", "parquet_sha256"),
        )
    ]
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": manifest["name"],
        "description": manifest["note"] or f"Image-text shards of {manifest['name']}, built by {manifest['recipe']} of rsvl.",
        "version": "1.0.0",
        "license": manifest["licences"] or ["none recorded in the source"],
        "distribution": files,
        "recordSet": [_record_set(shard["name"], f"data/{shard['name']}.parquet") for shard in manifest["shards"]],
    }


def _record_set(name: str, file: str) -> dict[str, Any]:
    return {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "key": {"@id": f"{name}/key"},
        "field": [
            {
                "@type": "cr:Field",
                "@id": f"{name}/{column.name}",
                "name": column.name,
                "dataType": _TYPES[column.type],
                "source": {"fileObject": {"@id": file}, "extract": {"column": column.name}},
            }
            for column in PARQUET_SCHEMA
            if column.type in _TYPES
        ],
    }
