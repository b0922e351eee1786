"""Tars as shards of RS5M, img2dataset and CLIP_benchmark: python -m tests.fuzz.tar --seconds 60"""

import gzip
import io
import random
import tarfile

import atheris
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from tests.fuzz.engine import fuzz, read_everything, scratch_folder, shared_fixtures

FOLDER = scratch_folder()
ROWS = [{"key": key, "status": "success", "error_message": None, "url": "u"} for key in ("a0000", "a0001", "a")]


def target(content: bytes) -> None:
    for path, format in (("rs5m/0.tar", "rs5m"), ("img2dataset/00000.tar", "img2dataset"), ("wds/test/0.tar", "clip-benchmark")):
        (FOLDER / path).write_bytes(content)
        try:
            read_everything(FOLDER / path.split("/", maxsplit=1)[0], format)
        except ValueError as error:
            if "holds nothing that can be imported" not in str(error):
                raise


def prepare() -> None:
    for folder in ("rs5m", "img2dataset", "wds/test"):
        (FOLDER / folder).mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(ROWS), FOLDER / "img2dataset" / "00000.parquet")
    (FOLDER / "wds" / "test" / "nshards.txt").write_text("1")
    (FOLDER / "wds" / "classnames.txt").write_text("river\nforest\n")


def small_tars() -> list[bytes]:
    image = io.BytesIO()
    Image.new("RGB", (8, 6), (10, 20, 30)).save(image, "JPEG")
    forms = (
        {"img_content": image.getvalue(), "img_name": b"a.jpg", "caption": b"a river"},
        {"jpg": image.getvalue(), "txt": b"a river", "json": b'{"caption": "a river", "lat": 5, "lon": 7, "license": "CC0"}'},
        {"jpg": image.getvalue(), "cls": b"1"},
    )
    return [
        one_tar(members, form) for members in forms for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
    ]


def one_tar(members: dict[str, bytes], form: int) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for key in ("a", "é" if form == tarfile.PAX_FORMAT else "d/" * 60 + "b" if form == tarfile.GNU_FORMAT else "b"):
            for suffix, content in members.items():
                info = tarfile.TarInfo(f"{key}.{suffix}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def mutate(content: bytes, max_bytes: int, seed: int) -> bytes:
    """Mostly with the checksums of all headers set right again, or no mutation would get past them."""
    chance = random.Random(seed)
    mutated = bytearray(atheris.Mutate(content, max_bytes))
    if chance.random() < 0.2 and len(content) > 1024:  # whole blocks moved, doubled or lost
        blocks = [content[place : place + 512] for place in range(0, len(content), 512)]
        first, second = chance.randrange(len(blocks)), chance.randrange(len(blocks))
        blocks[first : first + chance.randrange(3)] = blocks[second : second + chance.randrange(4)]
        mutated = bytearray(b"".join(blocks)[:max_bytes])
    if chance.random() < 0.9:
        for place in range(0, len(mutated) - 511, 512):
            if mutated[place + 257 : place + 262] == b"ustar":
                mutated[place + 148 : place + 156] = b" " * 8
                mutated[place + 148 : place + 156] = b"%06o\0 " % sum(mutated[place : place + 512])
    return bytes(mutated)


if __name__ == "__main__":
    prepare()
    small = small_tars()
    fuzz(target, [*small, gzip.compress(small[0]), *shared_fixtures("bad/tars/*")], mutate)
