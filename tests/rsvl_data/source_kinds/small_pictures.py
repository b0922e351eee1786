"""Pictures of a few pixels, and all that a source makes of them."""

from PIL import Image


def picture(path, colour=(10, 20, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6), colour).save(path)


def read_all(source):
    return [(entry, source.read(entry)) for entry in source.entries()]
