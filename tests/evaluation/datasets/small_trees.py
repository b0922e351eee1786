"""Small trees of files in the layouts of public datasets. An image is a few bytes, its own path: no reader decodes one."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def grow(root: Path, files: Mapping[str, Any]) -> Path:
    """Write files below `root`; what is neither bytes nor text becomes JSON."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not isinstance(content, bytes):
            content = (content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)).encode()
        path.write_bytes(content)
    return root


def images(*names: str) -> dict[str, bytes]:
    return {name: name.encode() for name in names}


def grow_images(root: Path, names: Iterable[str]) -> Path:
    return grow(root, images(*names))


def karpathy(*records: tuple[str, str, list[str]], **more: Any) -> dict[str, Any]:
    """Of (filename, split, sentences)."""
    return {
        "images": [{"filename": f, "split": s, "sentences": [{"raw": text} for text in texts], **more} for f, s, texts in records]
    }
