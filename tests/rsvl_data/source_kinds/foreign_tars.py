"""Small pictures and tars for the tests of readers."""

import io
import tarfile
from pathlib import Path

from PIL import Image

from rsvl_data.image_form import DEFAULT_FORM
from rsvl_data.stage import Dropped


def picture(colour=(10, 20, 30), form="JPEG", size=(8, 6)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, form)
    return out.getvalue()


def write_tar(path: Path, members: list[tuple[str, bytes | str]], form=tarfile.USTAR_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as tar:
        for name, content in members:
            data = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def read_all(module, path, image_form=DEFAULT_FORM, **options):
    """(entries, samples, dropped) of what a source module finds at a path."""
    main = module.find(path)
    assert main is not None, f"{module.__name__} finds nothing at {path}"
    source = module.open(main, "made", image_form, **options)
    entries = list(source.entries())
    outcomes = [source.read(entry) for entry in entries]
    samples = [outcome for outcome in outcomes if not isinstance(outcome, Dropped)]
    return entries, samples, [outcome for outcome in outcomes if isinstance(outcome, Dropped)]


def texts(sample):
    return [caption.text for caption in sample.captions]
