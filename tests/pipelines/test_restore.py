"""Mending a folder: depth, channels, transparency, orientation, profile and resolution are kept; kills lose nothing."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile
from PIL import Image, ImageCms

from pipelines import restore_folder
from pipelines.batch import folder_run, shard_store
from pipelines.batch.output_folder import check_output
from pipelines.errors import FolderError, OutputError
from pipelines.images import read_image
from pipelines.models.model_file import ModelFile
from pipelines.report import results_page
from pipelines.restoration.quality import compare

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def pixels(height: int = 33, width: int = 47, channels: int = 3, largest: int = 255) -> np.ndarray:
    kind = np.uint8 if largest <= 255 else np.uint16
    return np.random.default_rng(0).integers(0, largest + 1, (height, width, channels), dtype=kind)


def write_all(folder: Path) -> None:
    """One file of each kind that keeps something."""
    folder.mkdir()
    rgb, grey = pixels(), pixels(channels=1)[..., 0]
    Image.fromarray(rgb).save(folder / "rgb.png", dpi=(300, 300), icc_profile=PROFILE)
    Image.fromarray(grey).save(folder / "grey.png")
    Image.fromarray(np.dstack([grey, grey[::-1]]), "LA").save(folder / "la.png")
    Image.fromarray(np.dstack([rgb, grey])).save(folder / "rgba.png")
    Image.fromarray(rgb).quantize(16).save(folder / "palette.gif")
    Image.fromarray(rgb).save(folder / "photo.webp", lossless=True)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(rgb).save(folder / "turned.tiff", exif=exif)
    tifffile.imwrite(folder / "dark16.tif", pixels(channels=1, largest=900)[..., 0])
    (folder / "rgb16.png").write_bytes(imagecodecs.png_encode(pixels(largest=65535)))
    (folder / "rgba16.png").write_bytes(imagecodecs.png_encode(pixels(channels=4, largest=65535)))
    Image.fromarray(grey > 128).save(folder / "bilevel.png")


@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_what_a_file_holds_is_kept(same: ModelFile, tmp_path: Path, kind: str) -> None:
    write_all(tmp_path / "in")
    summary = restore_folder(tmp_path / "in", same, tmp_path / "out", kind=kind)
    assert (summary.files, summary.ok, summary.failed) == (11, 11, 0)
    for row in pq.read_table(tmp_path / "out" / "results.parquet").to_pylist():
        before = read_image(tmp_path / "in" / row["path"], max_pixels=10**6)
        after = read_image(tmp_path / "out" / row["output"], max_pixels=10**6)
        shows = np.ones((*before.pixels.shape[:2], 1), bool) if before.alpha is None else before.alpha > 0
        np.testing.assert_array_equal(after.pixels * shows, before.pixels * shows, err_msg=row["path"])
        assert ("colour under full transparency" in (row["note"] or "")) == (not shows.all())
        assert after.pixels.dtype == before.pixels.dtype
        assert after.icc == before.icc
        assert (after.alpha is None) == (before.alpha is None)
        if before.alpha is not None:
            np.testing.assert_array_equal(after.alpha, before.alpha)
        if before.dpi is not None:
            assert after.dpi == pytest.approx(before.dpi, abs=0.1)
        assert row["mean_scale"] > 0
    assert read_image(tmp_path / "out" / "restored" / f"turned{Path(row['output']).suffix}", max_pixels=10**6)


def test_a_turned_photo_is_upright(same: ModelFile, tmp_path: Path) -> None:
    write_all(tmp_path / "in")
    restore_folder(tmp_path / "in", same, tmp_path / "out")
    with Image.open(tmp_path / "out" / "restored" / "turned.png") as turned:
        assert turned.size == (33, 47)
        assert turned.getexif().get(0x0112, 1) == 1


def test_a_larger_result_states_where_when_and_how_large(larger: ModelFile, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "Maker", 8
    exif.get_ifd(0x8769).update({0x9003: "2024:05:06 07:08:09", 0xA002: 40, 0xA003: 20})
    exif.get_ifd(0x8825).update({1: "N", 2: (48.0, 51.0, 29.5)})
    Image.fromarray(pixels(20, 40)).save(folder / "photo.jpg", exif=exif)
    place = [(33550, 12, 3, (10.0, 10.0, 0.0), True), (33922, 12, 6, (0.0, 0, 0, 5e5, 4.6e6, 0), True)]
    tifffile.imwrite(folder / "land.tif", pixels(20, 40), photometric="rgb", extratags=place)
    grey = pixels(20, 40, 1)[..., 0]
    tifffile.imwrite(folder / "cells.tif", grey, imagej=True, resolution=(2, 2), metadata={"unit": "micron"})
    linear = imagecodecs.png_encode(pixels(20, 40))
    gamma = b"\0\0\0\4gAMA" + (100_000).to_bytes(4, "big")
    (folder / "light.png").write_bytes(linear[:33] + gamma + zlib.crc32(gamma[4:]).to_bytes(4, "big") + linear[33:])
    summary = restore_folder(folder, larger, tmp_path / "tiff", kind="tiff")
    assert summary.ok == 4
    with Image.open(tmp_path / "tiff" / "restored" / "photo.tif") as photo:
        found = photo.getexif()
        assert (photo.size, found.get(0x0112, 1), found[0x010F]) == ((40, 80), 1, "Maker")
        inside = found.get_ifd(0x8769)
        assert (inside[0x9003], inside[0xA002], inside[0xA003]) == ("2024:05:06 07:08:09", 40, 80)
        assert found.get_ifd(0x8825)[1] == "N"
    with tifffile.TiffFile(tmp_path / "tiff" / "restored" / "land.tif") as land:
        assert land.pages.first.tags[33550].value == (5, 5, 0)
        assert land.pages.first.tags[33922].value == (0, 0, 0, 5e5, 4.6e6, 0)
    with tifffile.TiffFile(tmp_path / "tiff" / "restored" / "cells.tif") as cells:
        assert cells.imagej_metadata["unit"] == "micron"
        assert cells.pages.first.tags[282].value == (4, 1)
    light = read_image(tmp_path / "tiff" / "restored" / "light.tif", max_pixels=10**6)
    assert light.icc == read_image(folder / "light.png", max_pixels=10**6).icc

    restore_folder(folder, larger, tmp_path / "png", gps=False)
    with Image.open(tmp_path / "png" / "restored" / "photo.png") as photo:
        assert photo.getexif().get_ifd(0x8769)[0x9003] == "2024:05:06 07:08:09"
        assert 0x8825 not in photo.getexif()
    rows = pq.read_table(tmp_path / "png" / "results.parquet").to_pylist()
    notes = {row["path"]: row["note"] or "" for row in rows}
    assert "georeference left out, which PNG has not: choose tiff" in notes["land.tif"]
    assert "colour space of the gAMA chunk written as a colour profile" in notes["light.png"]
    assert "--no-gps" in json.loads((tmp_path / "png" / "run.json").read_text())["command"]


def test_a_larger_result_has_larger_transparency_and_the_same_size_on_paper(larger: ModelFile, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    ramp = np.linspace(0, 255, 40, dtype=np.uint8)[None].repeat(20, 0)
    rgba = np.dstack([pixels(20, 40), ramp])
    Image.fromarray(rgba).save(tmp_path / "in" / "a.png", dpi=(100, 100))
    restore_folder(tmp_path / "in", larger, tmp_path / "out")
    image = read_image(tmp_path / "out" / "restored" / "a.png", max_pixels=10**6)
    assert image.pixels.shape == (40, 80, 3)
    assert image.alpha is not None
    assert image.alpha.shape == (40, 80, 1)
    assert image.alpha[0, 0, 0] == 0
    assert image.alpha[0, -1, 0] == 255
    assert (np.diff(image.alpha[10, :, 0].astype(int)) >= 0).all()
    assert image.dpi == pytest.approx((200, 200), abs=0.1)


def test_a_bad_file_is_a_row_and_a_second_run_does_what_is_missing(same: ModelFile, tmp_path: Path) -> None:
    write_all(tmp_path / "in")
    (tmp_path / "in" / "sub").mkdir()
    (tmp_path / "in" / "sub" / "bad.png").write_bytes(b"no image")
    first = restore_folder(tmp_path / "in", same, tmp_path / "out")
    assert (first.ok, first.failed) == (11, 1)
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "restored").iterdir()}
    (tmp_path / "out" / "restored" / "rgb.png").unlink()
    Image.fromarray(pixels()).save(tmp_path / "in" / "sub" / "bad.png")
    second = restore_folder(tmp_path / "in", same, tmp_path / "out")
    assert (second.ok, second.failed) == (12, 0)
    for path, changed in kept.items():
        assert (path.stat().st_mtime_ns == changed) == (path.name != "rgb.png")


def test_another_format_replaces_what_was_made(same: ModelFile, tmp_path: Path) -> None:
    write_all(tmp_path / "in")
    restore_folder(tmp_path / "in", same, tmp_path / "out")
    restore_folder(tmp_path / "in", same, tmp_path / "out", kind="jpeg")
    assert {path.suffix for path in (tmp_path / "out" / "restored").iterdir()} == {".jpg"}
    notes = {row["path"]: row["note"] for row in pq.read_table(tmp_path / "out" / "results.parquet").to_pylist()}
    assert "16 bits reduced" in notes["rgb16.png"]
    assert "transparency left out" in notes["rgba.png"]


def test_results_of_other_images_and_the_input_itself_are_safe(same: ModelFile, tmp_path: Path) -> None:
    write_all(tmp_path / "in")
    with pytest.raises(OutputError, match="holds other files"):
        restore_folder(tmp_path / "in", "nothing.onnx", tmp_path / "in")  # before a model is looked for
    with pytest.raises(FolderError, match="not an output format"):
        restore_folder(tmp_path / "in", "nothing.onnx", tmp_path / "out", kind="bmp")
    restore_folder(tmp_path / "in", same, tmp_path / "out")
    (tmp_path / "others").mkdir()
    with pytest.raises(OutputError, match="holds the results of"):
        restore_folder(tmp_path / "others", "nothing.onnx", tmp_path / "out")


def test_a_killed_run_ends_in_the_same_files(other: ModelFile, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(40):
        Image.fromarray(np.roll(pixels(160, 160), number, 0)).save(folder / f"{number:02}.png")
    restore_folder(folder, other, tmp_path / "whole")
    code = (
        "import sys, pipelines.batch.folder_run as f; f.KEEP_SECONDS = 0.0\n"
        "from pipelines import restore_folder; restore_folder(*sys.argv[1:4])"
    )
    arguments = [sys.executable, "-c", code, str(folder), str(other.path), str(tmp_path / "out")]
    with subprocess.Popen(arguments) as process:
        while process.poll() is None and len(list((tmp_path / "out" / "restored").glob("*.png"))) < 5:
            time.sleep(0.002)
        process.kill()
    done = len(list((tmp_path / "out" / "restored").glob("*.png")))
    assert 0 < done < 40
    summary = restore_folder(folder, other, tmp_path / "out")
    assert summary.ok == 40
    for name in ("results.parquet", *(f"restored/{number:02}.png" for number in range(40))):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_name_that_became_another_file_s_is_made_again(same: ModelFile, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    first, second = pixels(20, 20), pixels(20, 20)[::-1]
    for name in ("a.bmp", "a.tif"):
        Image.fromarray(first).save(folder / name)
    restore_folder(folder, same, tmp_path / "out")
    (folder / "a.tif").unlink()
    Image.fromarray(second).save(folder / "a.bmp.tif")
    restore_folder(folder, same, tmp_path / "out")
    rows = {row["path"]: row["output"] for row in pq.read_table(tmp_path / "out" / "results.parquet").to_pylist()}
    assert len(set(rows.values())) == 2
    for name, expected in (("a.bmp", first), ("a.bmp.tif", second)):
        made = read_image(tmp_path / "out" / rows[name], max_pixels=10**6)
        np.testing.assert_array_equal(made.pixels, expected)


@pytest.mark.parametrize("scale", [1, 3])
def test_odd_files_do_not_stop_the_others(export_mender, tmp_path: Path, scale: int) -> None:
    model, folder = export_mender(tmp_path / "m", scale=scale, identity=True), tmp_path / "in"
    (folder / "x.png").mkdir(parents=True)
    Image.fromarray(pixels(1, 1, 1)[..., 0]).save(folder / "one.png")
    Image.fromarray(pixels(9, 9)).save(folder / "x.jpg")
    Image.fromarray(pixels(9, 9)).save(folder / "x.png" / "y.png")
    Image.fromarray(pixels(9, 9)).save(folder / f"{'n' * 250}.png")
    tifffile.imwrite(
        folder / "dense.tif", pixels(9, 9), resolution=((4294967295, 1), (4294967295, 1)), resolutionunit=2
    )
    tifffile.imwrite(folder / "wide16.tif", pixels(11, 900, 3, largest=4000))
    summary = restore_folder(folder, model, tmp_path / "out", kind="webp" if scale == 1 else "png")
    assert (summary.ok, summary.failed) == (6, 0)
    assert (tmp_path / "out" / "restored" / "x.png" / ("y.webp" if scale == 1 else "y.png")).is_file()


def test_another_verb_s_results_are_not_replaced(same: ModelFile, tmp_path: Path) -> None:
    write_all(tmp_path / "in")
    restore_folder(tmp_path / "in", same, tmp_path / "out")
    with pytest.raises(OutputError, match="holds the results of `kintsugi restore`: give another --out to score"):
        check_output(tmp_path / "out", tmp_path / "in")


def test_pictures_are_kept_of_the_widest_error_bars_alone(
    other: ModelFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_run, "GALLERY_ROWS", 2)
    monkeypatch.setattr(shard_store, "GALLERY_ROWS", 2)
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(8):
        Image.fromarray(pixels(40, 40) // (number + 1)).save(folder / f"{number}.png")
    restore_folder(folder, other, tmp_path / "out")
    shown = pq.read_table(tmp_path / "out" / ".kintsugi-run" / "gallery.parquet").to_pylist()
    rows = pq.read_table(tmp_path / "out" / "results.parquet").to_pylist()
    widest = sorted(rows, key=lambda row: -row["mean_scale"])[:2]
    assert [row["path"] for row in shown] == [row["path"] for row in widest]


def test_a_long_report_has_the_figures_of_all(same: ModelFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results_page, "SHOWN_ROWS", 4)
    write_all(tmp_path / "in")
    summary = restore_folder(tmp_path / "in", same, tmp_path / "out", reference=tmp_path / "in")
    page = (tmp_path / "out" / "report.html").read_text()
    assert "4 of 11 files" in page
    (rows,) = re.findall(r'<script type="application/json" id="data-rows">(.*?)</script>', page)
    assert len(json.loads(rows)["names"]) == 4
    assert summary.psnr == 100  # nothing was changed, and each is compared with its own twin
    assert re.search(r"\b100(\.0*)? dB", page)


def test_clean_images_that_are_of_no_use_are_noted(larger: ModelFile, tmp_path: Path) -> None:
    for name in ("in", "clean"):
        (tmp_path / name).mkdir()
    for name in ("a", "b", "c"):
        Image.fromarray(pixels(20, 30)).save(tmp_path / "in" / f"{name}.png")
    Image.fromarray(pixels(41, 61)).save(tmp_path / "clean" / "a.png")  # what was made smaller had been cut
    (tmp_path / "clean" / "b.png").write_bytes(b"broken")
    Image.fromarray(pixels(7, 7)).save(tmp_path / "clean" / "c.png")
    summary = restore_folder(tmp_path / "in", larger, tmp_path / "out", reference=tmp_path / "clean")
    assert (summary.ok, summary.failed) == (3, 0)
    rows = {row["path"]: row for row in pq.read_table(tmp_path / "out" / "results.parquet").to_pylist()}
    assert rows["a.png"]["psnr"] is not None
    assert "the clean image b.png is a text file, not an image" in rows["b.png"]["note"]
    assert "the clean image c.png is of another size" in rows["c.png"]["note"]


def test_clean_images_are_compared_with(same: ModelFile, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clean = pixels(64, 64)
    noisy = np.clip(clean + np.random.default_rng(1).normal(0, 10, clean.shape), 0, 255).astype(np.uint8)
    for name in ("in", "clean"):
        (tmp_path / name).mkdir()
    Image.fromarray(noisy).save(tmp_path / "in" / "a.png")
    Image.fromarray(noisy).save(tmp_path / "in" / "alone.png")
    Image.fromarray(clean).save(tmp_path / "clean" / "a.tif")
    summary = restore_folder(tmp_path / "in", same, tmp_path / "out", reference=tmp_path / "clean")
    expected = compare(noisy, clean)["psnr"]
    assert summary.psnr == expected
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert run["warnings"][0] == (
        "1 image(s) were not compared: no clean image has their name, or it does not fit (see the notes)"
    )
    assert caplog.messages[-1] == run["warnings"][0]
    assert "--reference" in run["command"]
    assert f"{expected:.2f}"[:4] in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.parametrize("order", [("a.jpg", "a.png/x.jpg"), ("a.png/x.jpg", "a.jpg")])
def test_a_result_of_an_image_that_is_gone_is_in_nobody_s_way(
    same: ModelFile, tmp_path: Path, order: tuple[str, str]
) -> None:
    """A file gives way to a folder, and a folder to a file."""
    for name in order:
        shutil.rmtree(tmp_path / "set", ignore_errors=True)
        (tmp_path / "set" / name).parent.mkdir(parents=True)
        Image.fromarray(pixels()).save(tmp_path / "set" / name)
        assert restore_folder(tmp_path / "set", same, tmp_path / "out").ok == 1
    (result,) = [path for path in (tmp_path / "out" / "restored").rglob("*") if path.is_file()]
    assert result.relative_to(tmp_path / "out" / "restored") == Path(order[1]).with_suffix(".png")


def test_a_fresh_run_mends_all_again_and_leaves_nothing_of_images_that_are_gone(
    same: ModelFile, tmp_path: Path
) -> None:
    folder, out = tmp_path / "set", tmp_path / "out"
    folder.mkdir()
    for name in ("a.bmp", "gone.bmp"):
        Image.fromarray(pixels()).save(folder / name)
    before = (folder / "a.bmp").stat()
    restore_folder(folder, same, out)
    Image.fromarray(255 - pixels()).save(folder / "a.bmp")
    os.utime(folder / "a.bmp", ns=(before.st_atime_ns, before.st_mtime_ns))
    (folder / "gone.bmp").unlink()
    (out / "restored" / "mine.txt").write_text("a note of the user's")
    restore_folder(folder, same, out, fresh=True)
    assert {path.name for path in (out / "restored").iterdir()} == {"a.png", "mine.txt"}
    np.testing.assert_array_equal(read_image(out / "restored" / "a.png", max_pixels=10**6).pixels, 255 - pixels())


@pytest.mark.parametrize(("kind", "suffix"), [("jpg", "jpg"), ("JPEG", "jpg"), ("tif", "tif"), (".png", "png")])
def test_a_suffix_stands_for_its_kind_of_file(same: ModelFile, tmp_path: Path, kind: str, suffix: str) -> None:
    (tmp_path / "in").mkdir()
    Image.fromarray(pixels()).save(tmp_path / "in" / "a.png")
    assert restore_folder(tmp_path / "in", same, tmp_path / "out", kind=kind).ok == 1
    assert (tmp_path / "out" / "restored" / f"a.{suffix}").is_file()
