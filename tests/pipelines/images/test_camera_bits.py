"""16-bit files of cameras of fewer bits: what is made of them is what is made of the same picture in all 16 bits."""

from __future__ import annotations

import json
import logging
import shlex
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image
from skimage import data
from typer.testing import CliRunner

from flows.cli import app
from pipelines import restore_folder
from pipelines.data.crop_images import load_crop_images
from pipelines.data.plan import survey, warn_of_dark
from pipelines.errors import FolderError
from pipelines.images import find_images, read_image
from pipelines.images.camera_bits import survey_bits
from pipelines.jobfile.job import job_from_document
from pipelines.models.inputs import bits_for
from pipelines.models.session import open_restoring_session
from pipelines.registry.resolve import find_model
from vaecore.representations.image_format import ImageFormat

NUCLEI, DENOISE = "builtin:segment_nuclei", "builtin:denoise"


def nuclei(bits: int = 8) -> NDArray[np.unsignedinteger]:
    """Two bright disks on a dark ground, as a camera of so many bits has them."""
    y, x = np.mgrid[:96, :96]
    shares = np.full((96, 96), 0.08)
    for top, left in ((30, 30), (64, 60)):
        shares[np.hypot(y - top, x - left) < 12] = 0.85
    return np.rint(shares * ((1 << bits) - 1)).astype(np.uint8 if bits == 8 else np.uint16)


def photograph(bits: int) -> NDArray[np.uint16]:
    """All values of so many bits are in it, the largest too."""
    pixels = data.camera()[100:164, 200:272].astype(float)
    shares = (pixels - pixels.min()) / np.ptp(pixels)
    return np.rint(shares * ((1 << bits) - 1)).astype(np.uint16)


def write(path: Path, pixels: NDArray[np.unsignedinteger]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif":
        tifffile.imwrite(path, pixels)
    else:
        path.write_bytes(imagecodecs.png_encode(pixels))


def made_of(out: Path, name: str = "a.png") -> NDArray[np.unsignedinteger]:
    return read_image(out / "restored" / name, max_pixels=10**6).pixels


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("bits", [10, 12])
def test_nuclei_are_found_at_every_depth(tmp_path: Path, rows_of, bits: int, suffix: str) -> None:
    write(tmp_path / "8" / "a.png", nuclei())
    write(tmp_path / "deep" / f"a{suffix}", nuclei(bits))
    for name in ("8", "deep"):
        restore_folder(tmp_path / name, NUCLEI, tmp_path / f"out-{name}")
    expected = made_of(tmp_path / "out-8")
    assert expected.any()
    np.testing.assert_array_equal(made_of(tmp_path / "out-deep"), expected)
    (row,) = rows_of(tmp_path / "out-deep")
    assert row["note"] == f"read as {bits} bits: from 0 to {(1 << bits) - 1}"
    run = json.loads((tmp_path / "out-deep" / "run.json").read_text())
    assert run["bits"] == bits
    assert run["warnings"] == [
        f"16-bit files of this folder fill {bits} bits: they were read with {(1 << bits) - 1} as the largest value. "
        "Give --bits 16 where they are meant to be so dark"
    ]


@pytest.mark.parametrize("model", [DENOISE, "builtin:super_resolution_x2", "builtin:colorize"])
def test_results_are_those_of_all_bits_in_the_range_of_the_file(tmp_path: Path, model: str) -> None:
    write(tmp_path / "in" / "a.png", photograph(12))
    write(tmp_path / "full" / "a.png", photograph(16))
    for name in ("in", "full"):
        restore_folder(tmp_path / name, model, tmp_path / f"out-{name}")
    made, full = made_of(tmp_path / "out-in"), made_of(tmp_path / "out-full")
    assert made.dtype == np.uint16
    assert made.max() <= 4095
    assert full.max() > 4095
    assert np.abs(made / 4095 - full / 65535).max() < 0.01


def test_a_dark_picture_of_a_16_bit_folder_is_left_as_dark(tmp_path: Path, rows_of) -> None:
    for number in range(5):
        write(tmp_path / "in" / f"{number}.png", photograph(16))
    write(tmp_path / "in" / "dark.png", photograph(10))
    write(tmp_path / "alone" / "dark.png", photograph(10))
    restore_folder(tmp_path / "in", DENOISE, tmp_path / "out")
    restore_folder(tmp_path / "alone", DENOISE, tmp_path / "out-alone", bits=16)
    np.testing.assert_array_equal(made_of(tmp_path / "out", "dark.png"), made_of(tmp_path / "out-alone", "dark.png"))
    notes = {row["path"]: row["note"] or "" for row in rows_of(tmp_path / "out")}
    assert "its values end at 1023 of 65535: nearly black" in notes["dark.png"]
    assert "its values end" not in notes["0.png"]
    assert json.loads((tmp_path / "out" / "run.json").read_text())["warnings"] == []


def test_pictures_of_one_camera_are_read_alike(tmp_path: Path, rows_of) -> None:
    """A dim one of 12 bits is not taken for one of 10, and one whose values no 12 bits hold has all 16."""
    for name, pixels in (("bright", photograph(12)), ("dim", photograph(10)), ("dimmer", photograph(8))):
        write(tmp_path / "in" / f"{name}.png", pixels)
    restore_folder(tmp_path / "in", DENOISE, tmp_path / "out")
    notes = {row["note"].split(";")[0] for row in rows_of(tmp_path / "out")}
    assert notes == {"read as 12 bits: from 0 to 4095"}
    restore_folder(tmp_path / "in", DENOISE, tmp_path / "out", bits=10)
    found = {row["path"]: row["note"].split(";")[0] for row in rows_of(tmp_path / "out")}
    assert found["bright.png"].startswith("read as 12 bits")
    assert found["dim.png"].startswith("read as 10 bits")


def test_a_run_of_other_bits_does_everything_again(tmp_path: Path) -> None:
    write(tmp_path / "in" / "a.png", photograph(12))
    restore_folder(tmp_path / "in", DENOISE, tmp_path / "out")
    again = restore_folder(tmp_path / "in", DENOISE, tmp_path / "out")
    assert again.images_per_second is None  # all done before
    whole = restore_folder(tmp_path / "in", DENOISE, tmp_path / "out", bits=16)
    assert whole.images_per_second is not None


def test_8_bits_of_a_result_are_of_the_range_that_was_assumed(tmp_path: Path) -> None:
    write(tmp_path / "in" / "a.png", photograph(10))
    restore_folder(tmp_path / "in", DENOISE, tmp_path / "out", kind="webp")
    assert np.asarray(Image.open(tmp_path / "out" / "restored" / "a.webp").convert("L")).max() > 200


def test_psnr_is_of_the_range_that_was_assumed(tmp_path: Path) -> None:
    for bits in (10, 16):
        clean = photograph(bits)
        noise = np.random.default_rng(0).normal(0, 0.1, clean.shape) * ((1 << bits) - 1)
        write(tmp_path / f"clean-{bits}" / "a.png", clean)
        noisy = (clean + noise).clip(0, (1 << bits) - 1).astype(np.uint16)
        write(tmp_path / f"in-{bits}" / "a.png", noisy)
    found = [
        restore_folder(tmp_path / f"in-{bits}", DENOISE, tmp_path / f"out-{bits}", reference=tmp_path / f"clean-{bits}")
        for bits in (10, 16)
    ]
    assert found[0].psnr == pytest.approx(found[1].psnr, abs=0.05)


def test_files_of_8_bits_are_not_decoded_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.png", "b.tif"):
        write(tmp_path / name, nuclei())
    Image.fromarray(nuclei()).save(tmp_path / "c.jpg")
    (tmp_path / "broken.png").write_bytes(b"no image")
    (tmp_path / "gone.tif").write_bytes(b"II\x2a\x00")
    looked: list[str] = []

    def opened(files: list, **_: object) -> list:
        looked.extend(file.relative for file in files)
        return []

    monkeypatch.setattr("pipelines.images.camera_bits.open_images", opened)
    assert survey_bits(find_images(tmp_path)) == 16
    assert looked == []
    write(tmp_path / "deep.tif", nuclei(10))
    survey_bits(find_images(tmp_path))
    assert looked == ["deep.tif"]


def test_a_model_that_learned_dark_images_is_given_dark_images(tmp_path: Path) -> None:
    write(tmp_path / "a.png", photograph(12))
    metadata = open_restoring_session(find_model(DENOISE), device="cpu", threads=1).metadata
    for bit_depth, scales, bits in ((8, False, 12), (16, False, 16), (16, True, 12)):
        of = metadata.model_copy(update={"bit_depth": bit_depth, "scales_bits": scales})
        assert bits_for(of, find_images(tmp_path)) == bits


def test_training_brings_fewer_bits_to_all(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(3):
        write(tmp_path / "in" / f"{number}.png", np.roll(photograph(12), number, 0))
    with caplog.at_level(logging.INFO):
        images = load_crop_images(find_images(tmp_path / "in"), ImageFormat(channels=1, bit_depth=16))
    assert images.image(0).max() == 65535
    assert "16-bit images fill 12 bits" in caplog.text


def test_training_to_score_warns_of_dark_images(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(3):
        write(tmp_path / "in" / f"{number}.png", np.roll(photograph(10), number, 0))
    document = {"name": "dark", "task": "reconstruct", "data": {"train": str(tmp_path / "in")}}
    found = survey(job_from_document(document, tmp_path / "job.toml"))
    assert found.bits == 10
    warn_of_dark(found)
    assert "values below 1024 of 65535, as cameras of 10 bits write them" in caplog.text
    assert "Multiply them by 64" in caplog.text
    write(tmp_path / "in" / "bright.png", photograph(16))
    assert survey(job_from_document(document, tmp_path / "job.toml")).bits == 16


def test_bits_are_named_where_files_were_scaled_or_the_user_gave_them(tmp_path: Path) -> None:
    write(tmp_path / "in" / "a.png", nuclei())
    write(tmp_path / "deep" / "a.png", nuclei(12))

    def run_of(folder: str, out: str, **options: int) -> tuple[int | None, list[str]]:
        restore_folder(tmp_path / folder, NUCLEI, tmp_path / out, **options)
        run = json.loads((tmp_path / out / "run.json").read_text())
        return run["bits"], shlex.split(run["command"])

    bits, words = run_of("in", "out")
    assert bits is None
    assert "--bits" not in words
    written = (tmp_path / "out" / "restored" / "a.png").stat().st_mtime_ns
    bits, words = run_of("in", "out", bits=16)  # as the command of an earlier version said
    assert (bits, words[words.index("--bits") + 1]) == (16, "16")
    assert (tmp_path / "out" / "restored" / "a.png").stat().st_mtime_ns == written
    bits, words = run_of("deep", "out-deep")
    assert (bits, words[words.index("--bits") + 1]) == (12, "12")


@pytest.mark.parametrize("bits", [7, 17])
def test_other_bits_are_refused(tmp_path: Path, bits: int) -> None:
    write(tmp_path / "in" / "a.png", photograph(12))
    with pytest.raises(FolderError, match=f"bits is {bits}: from 8 to 16"):
        restore_folder(tmp_path / "in", DENOISE, tmp_path / "out", bits=bits)
    words = ["restore", str(tmp_path / "in"), "--model", DENOISE, "--out", str(tmp_path / "out"), "--bits", str(bits)]
    assert CliRunner().invoke(app, words).exit_code == 2
