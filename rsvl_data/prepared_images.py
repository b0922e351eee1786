"""Images in the form of a dataset, made while others are still being downloaded.

    FOLDER/ab/ab12...f    named by the SHA-256 of the form and of the image as it came: one line of JSON, then the bytes to store

It only saves time. What lies here is what `to_stored` would answer, whoever wrote it and when, so the bytes of a dataset do not depend on
it. What is not here, or is not whole, the build makes itself; and what has no answer (an image that cannot be read, a full disk) is left
for the build to meet and to say.
"""

import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rsvl_data.image_form import ImageForm, Placement
from rsvl_data.images import StoredImage, UnreadableImage, to_stored


@dataclass(frozen=True)
class PreparedImages:
    folder: Path
    form: ImageForm

    def prepare(self, image: Path) -> None:
        """From an image file. Files are written under their own name and not synced: a cut one is known by its checksum."""
        with suppress(OSError, UnreadableImage):
            content = image.read_bytes()
            stored = to_stored(content, self.form)
            path = self._path(content)
            packed = _packed(stored)
            try:
                path.write_bytes(packed)
            except FileNotFoundError:  # once a folder; asking before each file would cost more
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(packed)

    def take(self, content: bytes) -> StoredImage | None:
        """Of an image as it came, once: its file is removed, so that a build needs no room for two copies of a dataset."""
        path = self._path(content)
        try:
            packed = path.read_bytes()
            path.unlink()
        except OSError:
            return None
        return _unpacked(packed, content)

    def _path(self, content: bytes) -> Path:
        digest = hashlib.sha256(f"{self.form}\0".encode())
        digest.update(content)
        name = digest.hexdigest()
        return self.folder / name[:2] / name


def _packed(stored: StoredImage) -> bytes:
    """Without the bytes where they are those that came."""
    content = stored.content if stored.reencoded else b""
    facts = {
        "width": stored.width,
        "height": stored.height,
        "reencoded": stored.reencoded,
        "placement": list(vars(stored.placement).values()),
        "orientation": stored.orientation,
    }
    return json.dumps([facts, hashlib.sha256(content).hexdigest()]).encode() + b"\n" + content


def _unpacked(packed: bytes, came: bytes) -> StoredImage | None:
    """None for a file that a kill or a full disk cut."""
    line, _, content = packed.partition(b"\n")
    try:
        facts, sha256 = json.loads(line)
    except ValueError:
        return None
    if hashlib.sha256(content).hexdigest() != sha256:
        return None
    placement = Placement(*facts.pop("placement"))
    return StoredImage(content if facts["reencoded"] else came, placement=placement, **facts)
