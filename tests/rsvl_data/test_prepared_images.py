"""Images prepared ahead: what a build takes is what it would have made, or nothing."""

import os
import time

import numpy as np
import pytest
from PIL import Image

from rsvl_data.executor import start_importing, working_ahead
from rsvl_data.image_form import ImageForm
from rsvl_data.images import to_stored
from rsvl_data.prepared_images import PreparedImages
from rsvl_data.sources.table import Records, list_entries

FORM = ImageForm(size_px=16, resize="keep_ratio")


def image_file(folder, name="a.jpg", size=(40, 30), **options):
    pixels = np.random.default_rng(len(name)).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(folder / name, **options)
    return folder / name


def files_of(prepared):
    return sorted(path for path in prepared.folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    "form", [FORM, ImageForm(), ImageForm("png", size_px=20, resize="border"), ImageForm("webp", quality=50)]
)
def test_what_is_taken_is_what_would_be_stored_and_once(tmp_path, form):
    exif = Image.Exif()
    exif[0x0112] = 6
    prepared = PreparedImages(tmp_path / "prepared", form)
    for image in (image_file(tmp_path), image_file(tmp_path, "b.png"), image_file(tmp_path, "turned.jpg", exif=exif)):
        content = image.read_bytes()
        prepared.prepare(image)
        assert prepared.take(content) == to_stored(content, form)
        assert prepared.take(content) is None and not files_of(prepared)


def test_another_form_or_another_image_is_not_taken(tmp_path):
    prepared = PreparedImages(tmp_path / "prepared", FORM)
    image = image_file(tmp_path)
    prepared.prepare(image)
    assert (
        PreparedImages(prepared.folder, ImageForm(size_px=16, resize="keep_ratio", quality=94)).take(image.read_bytes()) is None
    )
    assert prepared.take(image.read_bytes() + b"\0") is None
    assert prepared.take(image.read_bytes()) is not None


def test_a_cut_or_changed_file_is_as_if_it_were_not_there(tmp_path):
    prepared = PreparedImages(tmp_path / "prepared", FORM)
    image = image_file(tmp_path)
    prepared.prepare(image)
    [path] = files_of(prepared)
    whole = path.read_bytes()
    for damaged in (
        *(whole[:length] for length in range(0, len(whole), 7)),
        whole[:-1] + bytes([whole[-1] ^ 1]),
        b"[]\n",
        b"\xff\n",
    ):
        path.write_bytes(damaged)
        assert prepared.take(image.read_bytes()) is None


def test_what_cannot_be_prepared_is_left_for_the_build_to_say(tmp_path):
    prepared = PreparedImages(tmp_path / "prepared", FORM)
    (tmp_path / "page.jpg").write_bytes(b"<html>")
    prepared.prepare(tmp_path / "page.jpg")
    prepared.prepare(tmp_path / "absent.jpg")
    (tmp_path / "a file").write_bytes(b"")
    PreparedImages(tmp_path / "a file", FORM).prepare(image_file(tmp_path))
    assert not files_of(prepared)


def test_a_source_takes_what_is_prepared_and_makes_the_rest(tmp_path):
    images = [image_file(tmp_path, name) for name in ("a.jpg", "bb.jpg")]
    prepared = PreparedImages(tmp_path / "prepared", FORM)
    prepared.prepare(images[0])
    (tmp_path / "t.csv").write_text("filepath,caption\na.jpg,a road\nbb.jpg,a field\n")
    alone, helped = (
        Records("t", tmp_path, lambda: list_entries(tmp_path / "t.csv"), FORM, prepared=each) for each in (None, prepared)
    )
    assert [helped.read(entry) for entry in helped.entries()] == [alone.read(entry) for entry in alone.entries()]
    assert not files_of(prepared)


# --- the processes that do it ----------------------------------------------------------------------------------------------


def note(path):
    """Named after its process, so that a test sees who did it."""
    if path.name == "bad":
        raise RuntimeError("a bug")
    if path.name == "killed":
        os._exit(1)
    path.write_text(f"{os.getpid()} {os.environ['OPENBLAS_NUM_THREADS']}")


@pytest.fixture(scope="module", autouse=True)
def _small_forkserver():
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("OPENBLAS_NUM_THREADS", raising=False)
        start_importing()
        yield


def test_others_work_and_nobody_waits_for_what_is_not_begun(tmp_path):
    with working_ahead(note, 2) as give:
        for number in range(100):
            give(tmp_path / f"{number}")
        deadline = time.monotonic() + 60
        while len(list(tmp_path.iterdir())) < 96 and time.monotonic() < deadline:
            time.sleep(0.02)
    done = list(tmp_path.iterdir())
    assert len(done) == 96  # the last four make no batch
    processes, threads = zip(*(path.read_text().split() for path in done), strict=True)
    assert str(os.getpid()) not in processes and set(threads) == {"1"} and "OPENBLAS_NUM_THREADS" not in os.environ


@pytest.mark.parametrize("name", ["bad", "killed"])
def test_a_failure_or_a_dead_process_harms_nobody(tmp_path, name):
    with working_ahead(note, 1) as give:
        for _ in range(3):
            for number in range(16):
                give(tmp_path / (name if number == 8 else f"{number}"))
            time.sleep(0.3)


def test_an_error_in_the_block_comes_through(tmp_path):
    with pytest.raises(KeyboardInterrupt), working_ahead(note, 1) as give:
        for number in range(64):
            give(tmp_path / f"{number}")
        raise KeyboardInterrupt
