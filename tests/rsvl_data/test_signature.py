import hashlib
import io

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from recipes.cli import main
from rsvl_data.errors import DataError
from rsvl_data.signature import image_phash, read_signature, write_signature
from rsvl_data.validate import problems


def encoded(picture: Image.Image, form: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def picture(seed: int) -> Image.Image:
    blocks = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize((90, 70), Image.Resampling.BICUBIC)


def slow_phash(image: bytes) -> str:
    """imagehash's phash, with the cosine transform written out."""
    grey = np.asarray(Image.open(io.BytesIO(image)).convert("L").resize((32, 32), Image.Resampling.LANCZOS), float)
    low = [
        [
            4
            * sum(
                grey[y, x] * np.cos(np.pi * v * (2 * y + 1) / 64) * np.cos(np.pi * u * (2 * x + 1) / 64)
                for y in range(32)
                for x in range(32)
            )
            for u in range(8)
        ]
        for v in range(8)
    ]
    bits = "".join("1" if value > np.median(low) else "0" for value in np.ravel(low))
    return f"{int(bits, 2):016x}"


def test_the_hash_is_the_slow_one():
    for seed in range(2):
        assert image_phash(encoded(picture(seed))) == slow_phash(encoded(picture(seed)))


def bits_apart(one: bytes, other: bytes) -> int:
    return (int(image_phash(one), 16) ^ int(image_phash(other), 16)).bit_count()


def test_equal_pictures_in_other_files():
    """Coefficients next to the median change sides with compression or size: a bit or two."""
    once = encoded(picture(3))
    assert bits_apart(once, encoded(picture(3), "WEBP", lossless=True)) == 0
    assert bits_apart(once, encoded(picture(3), "JPEG", quality=90)) <= 2
    assert bits_apart(once, encoded(picture(3).resize((180, 140)))) <= 4
    assert bits_apart(once, encoded(picture(4))) > 12 and bits_apart(once, encoded(picture(3).rotate(90))) > 12


def test_flat_pictures_are_one_picture():
    assert len({image_phash(encoded(Image.new("RGB", (50, 50), (level,) * 3))) for level in (10, 99, 200)}) == 1
    with pytest.raises(DataError, match="has no perceptual hash"):
        image_phash(b"no image")


def test_a_signature_of_a_dataset(colours, capsys):
    assert main(["data", "signature", str(colours.root)]) == 0
    assert capsys.readouterr().out.strip().endswith("signature.parquet")
    whole, train = read_signature(colours.root), read_signature(colours.root, "train")
    samples = list(colours.samples("train"))
    assert whole.name == "colours" and whole.num_images == 40 and train.num_images == len(samples)
    assert train.sha256s == {hashlib.sha256(sample.image).hexdigest() for sample in samples}
    assert train.phashes == {image_phash(sample.image) for sample in samples}
    assert train.sha256s < whole.sha256s
    assert list(problems(colours)) == []


def test_a_hash_that_is_there_is_taken(colours):
    parquet = colours.shards("train")[0].tar.with_suffix(".parquet")
    table = pq.read_table(parquet)
    hashes = table["phash"].to_pylist()
    hashes[0] = "0123456789abcdef"
    pq.write_table(table.set_column(table.schema.get_field_index("phash"), table.schema.field("phash"), [hashes]), parquet)
    write_signature(colours)
    assert "0123456789abcdef" in read_signature(colours.root, "train").phashes


def test_what_is_no_signature(tmp_path):
    with pytest.raises(DataError, match="is no signature"):
        read_signature(tmp_path)
    import pyarrow as pa

    pq.write_table(pa.table({"sha256": ["x"]}), tmp_path / "signature.parquet")
    with pytest.raises(DataError, match=r"its columns are \['sha256'\] and its metadata do not say rsvl_signature: 1"):
        read_signature(tmp_path)
