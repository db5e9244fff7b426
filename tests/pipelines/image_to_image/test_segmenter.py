"""Models that label pixels, from a folder of images and labels to label images and figures."""

from __future__ import annotations

import json
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image
from skimage.draw import disk
from typer.testing import CliRunner

from flows.cli import app
from pipelines import restore_folder, train_model
from pipelines.errors import DataError, FolderError, ImageError, JobError, ModelError
from pipelines.evaluate import evaluate_model
from pipelines.image_to_image.plan import read_images
from pipelines.images import find_images, read_image
from pipelines.images.label_images import LabelFolder, read_labels
from pipelines.jobfile.job import load_job
from pipelines.models.session import RestoringSession, SegmentingSession
from pipelines.registry.resolve import find_model
from pipelines.registry.store import Registry
from pipelines.restoration.quality import compare_labels
from pipelines.restoration.segmenter import draw_labels, label_image
from vaecore.representations.image_format import ImageFormat

SIDE = 64


def scene(random: np.random.Generator, side: int = SIDE) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Bright disks are of class 1, brighter ones of class 2."""
    image, labels = random.normal(60, 12, (side, side)), np.zeros((side, side), np.uint8)
    for kind, brightness in ((1, 130), (2, 210)):
        for _ in range(2):
            place = disk(random.integers(8, side - 8, 2), random.integers(5, 11), shape=image.shape)
            image[place], labels[place] = random.normal(brightness, 12, len(place[0])), kind
    return image.clip(0, 255).astype(np.uint8), labels


def write_scenes(folder: Path, count: int, seed: int = 0) -> None:
    random = np.random.default_rng(seed)
    for name in ("image", "label"):
        (folder / name).mkdir(parents=True)
    for number in range(count):
        image, labels = scene(random)
        Image.fromarray(image).save(folder / "image" / f"{number}.png")
        Image.fromarray(labels).save(folder / "label" / f"{number}.png")


def write_job(folder: Path, **tables: str) -> Path:
    body = "\n".join(f"[{name}]\n{text}" for name, text in tables.items())
    path = folder / "job.toml"
    path.write_text(f'name = "disks"\ntask = "segment"\n[data]\ntrain = "image"\nlabels = "label"\n{body}')
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> SegmentingSession:
    """Three classes, on grey images."""
    folder = tmp_path_factory.mktemp("disks")
    write_scenes(folder, 40)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KINTSUGI_HOME", str(folder / "home"))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        job = write_job(
            folder,
            model='classes = ["nothing", "disk", "bright disk"]',
            train="steps = 150\nbatch = 4\ncrop = 64\nlearning_rate = 3e-3",
        )
        result = train_model(load_job(job))
        assert result.promoted
        (version,) = Registry().versions("disks")
        assert version.metrics["challenger_dice"] > 0.6
        return SegmentingSession(find_model("disks@champion"), device="cpu", threads=1)


def test_what_is_registered_labels_pixels(trained: SegmentingSession, tmp_path: Path) -> None:
    write_scenes(tmp_path, 12, seed=1)
    figures = evaluate_model(tmp_path, trained.model.path, json_path=tmp_path / "figures.json")
    assert figures["n_images"] == 12
    assert figures["dice"] > 0.6
    assert figures["ece"] < 0.1
    assert json.loads((tmp_path / "figures.json").read_text())["iou"] < figures["dice"]
    metadata = trained.metadata
    assert metadata.classes == ("nothing", "disk", "bright disk")
    assert metadata.channels == 1
    card = trained.model.card
    assert card is not None
    assert "1 disk, 2 bright disk" in card


def test_labels_are_files_that_are_read_back(trained: SegmentingSession, tmp_path: Path) -> None:
    write_scenes(tmp_path, 3, seed=2)
    out = tmp_path / "out"
    summary = restore_folder(tmp_path / "image", trained.model, out, reference=tmp_path / "label")
    assert (summary.ok, summary.failed, summary.done) == (3, 0, "labelled")
    assert summary.dice is not None
    assert summary.dice > 0.6
    made = Image.open(out / "restored" / "0.png")
    assert made.mode == "P"  # colours for viewers, classes for programs
    image = read_image(tmp_path / "image" / "0.png", max_pixels=10**6)
    np.testing.assert_array_equal(np.asarray(made), label_image(trained, image).labels)
    again = restore_folder(tmp_path / "image", trained.model, out, reference=tmp_path / "label")
    assert again.images_per_second is None  # all done before
    page = (out / "report.html").read_text()
    assert "3 images labelled" in page
    assert "bright disk" in page
    for kind in ("jpeg", "webp"):
        with pytest.raises(FolderError, match="labels are written as png or tiff"):
            restore_folder(tmp_path / "image", trained.model, tmp_path / "other", kind=kind)


def test_results_of_names_that_are_no_utf8_are_compared(trained: SegmentingSession, tmp_path: Path) -> None:
    write_scenes(tmp_path, 1, seed=2)
    for folder in ("image", "label"):
        path = tmp_path / folder / "0.png"
        path.rename(Path(os.fsdecode(os.fsencode(path.parent) + b"/caf\xe9.png")))
    summary = restore_folder(tmp_path / "image", trained.model, tmp_path / "out", reference=tmp_path / "label")
    assert summary.dice is not None


def test_tiles_show_no_seams_and_any_channels_and_depth_do(trained: SegmentingSession, tmp_path: Path) -> None:
    pixels, _ = scene(np.random.default_rng(3), 200)
    Image.fromarray(pixels).save(tmp_path / "grey.png")
    Image.fromarray(np.dstack([pixels, pixels, pixels, 255 - pixels])).save(tmp_path / "rgba.png")
    Image.fromarray(pixels.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    whole = label_image(trained, read_image(tmp_path / "grey.png", max_pixels=10**6))
    assert whole.labels is not None
    for name, side in (("grey", 64), ("grey", 24), ("rgba", 200), ("deep", 200)):
        found = label_image(trained, read_image(tmp_path / f"{name}.png", max_pixels=10**6), side=side)
        assert found.labels is not None
        assert (found.labels != whole.labels).mean() < 1e-3
        assert found.pixels.shape == (200, 200, 1)
        assert found.mean_scale == pytest.approx(whole.mean_scale, abs=1e-3)


@pytest.mark.parametrize("size", [(1, 1), (7, 3), (1, 97), (65, 33)])
def test_any_size_comes_back_at_its_size(trained: SegmentingSession, size: tuple[int, int], tmp_path: Path) -> None:
    Image.fromarray(np.full(size, 90, np.uint8)).save(tmp_path / "odd.png")
    assert label_image(trained, read_image(tmp_path / "odd.png", max_pixels=10**6)).pixels.shape == (*size, 1)


def test_other_noise_is_another_sample(trained: SegmentingSession) -> None:
    pixels, _ = scene(np.random.default_rng(5))
    tile = pixels[None, ..., None].astype(np.float32) / 255
    draws = np.random.default_rng(6).standard_normal((2, *trained.cells(SIDE, SIDE))).astype(np.float32)
    first, second = (trained.run(tile, each[None])[0] for each in draws)
    assert np.abs(first - second).max() > 0
    np.testing.assert_array_equal(first, trained.run(tile, draws[:1])[0])


def test_samples_are_drawn_and_forgotten_again(trained: SegmentingSession, tmp_path: Path) -> None:
    write_scenes(tmp_path, 2, seed=7)
    out = tmp_path / "out"
    restore_folder(tmp_path / "image", trained.model, out, samples=3)
    drawn = {str(path.relative_to(out)): path.read_bytes() for path in (out / "samples").rglob("*.png")}
    assert sorted(drawn) == [f"samples/{number}/{name}.png" for number in (1, 2, 3) for name in (0, 1)]
    rows = pq.read_table(out / "results.parquet").to_pylist()
    assert [row["samples"] for row in rows] == [3, 3]
    for row in rows:
        maps = [np.asarray(Image.open(out / f"samples/{number}/{row['path']}")) for number in (1, 2, 3)]
        apart = (maps[0] != maps[1]) | (maps[0] != maps[2])
        assert row["disagreement"] == pytest.approx(apart.mean())
        assert row["disagreement"] > 0
    (out / "samples" / "2" / "1.png").unlink()  # then the image is work again, and the draws are the same
    restore_folder(tmp_path / "image", trained.model, out, samples=3)
    for name, content in drawn.items():
        assert (out / name).read_bytes() == content
    assert "samples differ on" in (out / "report.html").read_text()
    restore_folder(tmp_path / "image", trained.model, out, samples=1)
    assert [row["disagreement"] for row in pq.read_table(out / "results.parquet").to_pylist()] == [None, None]
    restore_folder(tmp_path / "image", trained.model, out)
    assert not list((out / "samples").rglob("*.png"))
    image = read_image(tmp_path / "image" / "0.png", max_pixels=10**6)
    (whole,), (cut,) = (draw_labels(trained, image, 1, side=side) for side in (64, 24))
    assert (whole != cut).mean() < 1e-3  # a tile gets the noise of its place
    with pytest.raises(FolderError, match="samples is 65: from 0 to 64"):
        restore_folder(tmp_path / "image", trained.model, out, samples=65)


def test_a_model_that_labels_does_not_mend(trained: SegmentingSession) -> None:
    with pytest.raises(ModelError, match="labels pixels"):
        RestoringSession(trained.model)


def test_two_classes_by_the_command_line(own_home: Path, tmp_path: Path) -> None:
    """Instance maps of 16 bits: everything above zero is an object."""
    write_scenes(tmp_path, 20)
    for path in (tmp_path / "label").iterdir():
        instances = np.asarray(Image.open(path)).astype(np.uint16) * 300
        Image.fromarray(instances).save(path)
    run = CliRunner().invoke
    job = write_job(tmp_path, train="steps = 30\nbatch = 4\ncrop = 48")
    done = run(app, ["train", str(job)])
    assert done.exit_code == 0, done.output
    out = tmp_path / "out"
    done = run(app, ["restore", str(tmp_path / "image"), "--model", "disks@champion", "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "20 of 20 images labelled" in done.output
    made = Image.open(out / "restored" / "0.png")
    assert made.mode == "L"
    assert set(np.unique(np.asarray(made))) <= {0, 255}
    done = run(app, ["evaluate", str(tmp_path), "--model", "disks@champion"])
    assert done.exit_code == 0, done.output
    assert "Dice" in done.output
    done = run(app, ["evaluate", str(tmp_path), "--model", "disks@champion", "--levels", "3"])
    assert done.exit_code == 2
    assert "no meaning for a model that labels pixels" in done.output


def test_images_without_labels_are_left_out(tmp_path: Path) -> None:
    write_scenes(tmp_path, 3)
    (tmp_path / "label" / "0.png").rename(tmp_path / "label" / "0_mask.png")
    (tmp_path / "label" / "1.png").unlink()
    Image.fromarray(np.zeros((5, 6), np.uint8)).save(tmp_path / "label" / "2.png")
    folder = LabelFolder.find(tmp_path / "label", 3)
    first, second, third = find_images(tmp_path / "image")
    assert folder.of(first, (SIDE, SIDE)).max() == 2
    for image, told in ((second, "no label image of its name"), (third, "is 64 x 64, its label image 2.png 6 x 5")):
        with pytest.raises(ImageError, match=told):
            folder.of(image, (SIDE, SIDE))


def test_labels_and_images_without_each_other_are_named_in_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_scenes(tmp_path, 24)
    for number in range(3, 12):
        (tmp_path / "label" / f"{number}.png").rename(tmp_path / "label" / f"other_{number}.png")
    folder = LabelFolder.find(tmp_path / "label", 3)
    job = write_job(tmp_path)
    with caplog.at_level("WARNING"):
        images, _ = read_images(load_job(job), ImageFormat(channels=1, bit_depth=8), "probabilities", folder)
    assert len(images) == 15
    lines = [record.getMessage() for record in caplog.records]
    (unused,) = (line for line in lines if "belong to no image" in line)
    assert "9 label images" in unused
    assert "(other_10.png, other_11.png, other_3.png, ...)" in unused
    (missing,) = (line for line in lines if "no label image of its name" in line)
    assert missing.startswith("left out 9 images: 10.png, 11.png, 3.png, ...: ")


def test_an_image_is_never_its_own_label(tmp_path: Path) -> None:
    image, labels = scene(np.random.default_rng(0))
    Image.fromarray(image).save(tmp_path / "0.png")
    Image.fromarray(labels).save(tmp_path / "0_mask.png")
    first, mask = find_images(tmp_path)
    folder = LabelFolder.find(tmp_path, 3)
    np.testing.assert_array_equal(folder.of(first, (SIDE, SIDE)), labels)
    with pytest.raises(ImageError, match="no label image"):
        folder.of(mask, (SIDE, SIDE))


def test_label_images_as_people_save_them(tmp_path: Path) -> None:
    values = np.array([[0, 1], [2, 3]], np.uint8)

    def saved(name: str, picture: Image.Image) -> Path:
        picture.save(tmp_path / name)
        return tmp_path / name

    palette = Image.fromarray(values)
    palette.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9])
    for path in (saved("grey.png", Image.fromarray(values)), saved("palette.png", palette)):
        np.testing.assert_array_equal(read_labels(path, 4), values)
    for path in (
        saved("bits.png", Image.fromarray(values > 0)),
        saved("mask.png", Image.fromarray(np.where(values > 0, 255, 0).astype(np.uint8))),
        saved("grey.tif", Image.fromarray(np.where(values > 0, 40_000, 0).astype(np.uint16))),
        saved("same.png", Image.fromarray(np.dstack([values] * 3))),
    ):
        np.testing.assert_array_equal(read_labels(path, 2), values > 0)
    for path in (
        saved("void.png", _palette(np.array([[0, 1], [15, 255]], np.uint8))),
        saved("many.png", Image.fromarray(np.kron(np.arange(256).reshape(16, 16), np.ones((4, 4))).astype(np.uint8))),
    ):
        np.testing.assert_array_equal(read_labels(path, 2), np.asarray(Image.open(path)) > 0)
    for bits, top in ((2, 3), (4, 15)):
        data = narrow_png(np.array([[0, 1], [2, 3]], np.uint8), bits)
        (tmp_path / f"{bits}.png").write_bytes(data)
        np.testing.assert_array_equal(read_labels(tmp_path / f"{bits}.png", top + 1), values)
    inverted = tmp_path / "white.tif"
    tifffile.imwrite(inverted, values, photometric="miniswhite")
    np.testing.assert_array_equal(read_labels(inverted, 4), values)
    tifffile.imwrite(inverted, np.stack([values, values]), photometric="minisblack")
    with pytest.raises(ImageError, match="holds 2 pages"):
        read_labels(inverted, 4)
    with_alpha = saved("la.png", Image.fromarray(np.dstack([values, values * 0]), "LA"))
    np.testing.assert_array_equal(read_labels(with_alpha, 4), values)
    soft = saved("soft.png", Image.fromarray(np.array([[0, 100, 255], [200, 255, 255]], np.uint8)))
    np.testing.assert_array_equal(read_labels(soft, 2), [[0, 0, 1], [1, 1, 1]])
    for path, classes, told in (
        (saved("colours.png", Image.fromarray(np.dstack([values, values, values + 1]))), 4, "is in colours"),
        (saved("lossy.jpg", Image.fromarray(values)), 4, "is JPEG, which may change values"),
        (saved("lossy.webp", Image.fromarray(values)), 4, "is WebP, which may change values"),
        (tmp_path / "grey.png", 3, "values up to 3: with model.classes of 3 names"),
    ):
        with pytest.raises(ImageError, match=told):
            read_labels(path, classes)
    (tmp_path / "broken.png").write_bytes((tmp_path / "grey.png").read_bytes()[:40])
    with pytest.raises(ImageError, match=r"broken.png: is truncated"):
        read_labels(tmp_path / "broken.png", 3)


def _palette(values: NDArray[np.uint8]) -> Image.Image:
    picture = Image.fromarray(values)
    picture.putpalette(list(range(256)) * 3)
    return picture


def narrow_png(values: NDArray[np.uint8], bits: int) -> bytes:
    """A grey PNG of fewer than 8 bits, two pixels a row: no library here writes one."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(bytes([0, (int(left) << (8 - bits)) | (int(right) << (8 - 2 * bits))]) for left, right in values)
    header = struct.pack(">IIBBBBB", 2, len(values), bits, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_what_segment_cannot_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "job.toml").write_text('name = "n"\ntask = "segment"\n[data]\ntrain = "i"\n[model]\nscale = 2')
    with pytest.raises(JobError) as told:
        train_model(load_job(tmp_path / "job.toml"))
    assert "'data.labels' is missing" in str(told.value)
    assert "'model.scale' has no meaning for segment" in str(told.value)
    write_scenes(tmp_path, 3)
    Image.fromarray(np.zeros((5, 6), np.uint8)).save(tmp_path / "label" / "1.tif")
    with pytest.raises(DataError, match="two label images of the name 1"):
        LabelFolder.find(tmp_path / "label", 2)


def test_labels_have_no_meaning_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "job.toml").write_text('name = "n"\ntask = "denoise"\n[data]\ntrain = "i"\nlabels = "l"')
    with pytest.raises(JobError, match=r"'data.labels' has no meaning for denoise"):
        train_model(load_job(tmp_path / "job.toml"))


def test_dice_and_iou_by_hand() -> None:
    labels, true = (np.array(rows, np.uint8) for rows in ([[0, 1, 1, 2]], [[0, 1, 2, 2]]))
    found = compare_labels(labels, true, 4)  # the third class is in neither
    assert found["dice"] == pytest.approx(2 / 3)
    assert found["iou"] == pytest.approx(1 / 2)
    assert compare_labels(labels * 0, true * 0, 4) == {"dice": 1.0, "iou": 1.0}
