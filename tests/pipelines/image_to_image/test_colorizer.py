"""Models that colour grey images, from a folder of colour images to files, samples, figures and a report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageCms
from typer.testing import CliRunner

from flows.cli import app
from pipelines import restore_folder, train_model
from pipelines.data.crop_images import load_crop_images
from pipelines.errors import DataError, FolderError, JobError, ModelError
from pipelines.evaluate import evaluate_model
from pipelines.evaluation.descriptions import describe_evaluation
from pipelines.images import find_images, read_image
from pipelines.images.convert import pixel_digest
from pipelines.jobfile.job import job_from_document
from pipelines.models.session import ColorizingSession, RestoringSession, Session
from pipelines.registry.resolve import find_model
from pipelines.restoration import colorizer
from vaecore.graphs.colorization import LUMA
from vaecore.representations.image_format import ImageFormat


def scene(random: np.random.Generator, height: int = 96, width: int = 120) -> NDArray[np.uint8]:
    """A bright blue sky over dark green ground: what is above decides the colour."""
    image = np.empty((height, width, 3))
    horizon = int(random.integers(height // 3, 2 * height // 3))
    image[:horizon] = (150, 190, 240)
    image[horizon:] = (60, 110, 40)
    shade = random.normal(0, 6, (height, width, 1)) + random.normal(0, 8)
    return (image + shade).clip(0, 255).astype(np.uint8)


def write_scenes(folder: Path, count: int, seed: int = 0) -> None:
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    for number in range(count):
        Image.fromarray(scene(random)).save(folder / f"{number}.png")


def document(folder: Path, **train: object) -> dict[str, object]:
    return {"name": "skies", "task": "colorize", "data": {"train": str(folder)}, "train": train}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> ColorizingSession:
    folder = tmp_path_factory.mktemp("skies")
    write_scenes(folder / "train", 40)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KINTSUGI_HOME", str(folder / "home"))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        train_model(job_from_document(document(folder / "train", steps=40, batch=4), folder / "job.toml"))
        return ColorizingSession(find_model("skies@champion"), device="cpu", threads=1)


def test_the_colours_of_held_out_images_are_found(trained: ColorizingSession, tmp_path: Path) -> None:
    write_scenes(tmp_path / "in", 6, seed=1)
    Image.fromarray(np.full((30, 30), 90, np.uint8)).save(tmp_path / "in" / "grey.png")
    figures = evaluate_model(tmp_path / "in", trained.model.path)
    assert (figures["n_images"], figures["n_grey"]) == (6, 1)
    found = figures["levels"]["default"]
    grey, own, drawn = (found["baselines"][name] for name in ("input", "own_mean", "sample"))
    assert found["ab_mae"] < 0.6 * grey["ab_mae"]
    assert own["ab_mae"] < grey["ab_mae"]
    assert found["psnr"] > grey["psnr"] + 2
    assert found["ssim"] > 0.5
    assert found["nll"] < 0
    assert set(found["coverage"]) == {"0.5", "0.68", "0.9", "0.95"}
    assert found["difference"] > 0
    assert found["colourfulness_ratio"] == pytest.approx(drawn["colourfulness"] / 30, rel=0.6)
    assert any("error of a and b" in line for line in describe_evaluation(figures))
    assert "skies" in (trained.model.card or "")
    assert trained.metadata.channels == 1
    with pytest.raises(DataError, match=r"--levels has no meaning for a model that colours grey images"):
        evaluate_model(tmp_path / "in", trained.model.path, levels=["15"])


def test_every_kind_of_file_keeps_its_luma_and_what_else_it_has(trained: ColorizingSession, tmp_path: Path) -> None:
    folder, random = tmp_path / "in", np.random.default_rng(3)
    folder.mkdir()
    pixels = scene(random)
    grey = np.asarray(Image.fromarray(pixels).convert("L"))
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(grey).save(folder / "grey.png", dpi=(300, 300))
    Image.fromarray(np.dstack([grey, 255 - grey]), "LA").save(folder / "alpha.png")
    Image.fromarray(pixels).save(folder / "colour.png", icc_profile=icc)
    tifffile.imwrite(folder / "deep.tif", grey.astype(np.uint16) * 100)
    Image.fromarray(grey[:1, :1]).save(folder / "one.png")
    Image.fromarray(np.repeat(grey[:7, :3], 20, axis=0)).save(folder / "narrow.png")
    (folder / "broken.png").write_bytes(b"no image")
    out = tmp_path / "out"
    summary = restore_folder(folder, trained.model, out, samples=3)
    assert (summary.ok, summary.failed, summary.done) == (6, 1, "coloured")
    for name, dtype in (
        ("grey.png", np.uint8),
        ("colour.png", np.uint8),
        ("deep.tif", np.uint16),
        ("one.png", np.uint8),
    ):
        before = read_image(folder / name, max_pixels=10**6)
        made = read_image(out / "restored" / Path(name).with_suffix(".png"), max_pixels=10**6)
        assert made.pixels.shape == (*before.pixels.shape[:2], 3)
        assert made.pixels.dtype == dtype
        off = np.abs(colorizer.luma_of(made.pixels) - colorizer.luma_of(before.pixels))[..., 0]
        assert (off <= 1.01 / np.iinfo(dtype).max).all()
    with Image.open(out / "restored" / "alpha.png") as kept:
        assert kept.mode == "RGBA"
        np.testing.assert_array_equal(np.asarray(kept)[..., 3], 255 - grey)
    with Image.open(out / "restored" / "grey.png") as kept:
        assert kept.info["dpi"] == pytest.approx((300, 300), abs=0.1)
    with Image.open(out / "restored" / "colour.png") as kept:
        assert kept.info["icc_profile"] == icc
    names = [out / "samples" / str(number) / "grey.png" for number in (1, 2, 3)]
    drawn = [read_image(name, max_pixels=10**6).pixels for name in names]
    assert (drawn[0] != drawn[1]).any()
    assert (drawn[1] != drawn[2]).any()
    rows = {row["path"]: row for row in pq.read_table(out / "results.parquet").to_pylist()}
    assert rows["colour.png"]["note"] == "colours of the file were not looked at"
    assert rows["grey.png"]["samples"] == 3
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "6 images coloured" in page
    assert "Colorization report" in page
    (folder / "broken.png").unlink()
    assert restore_folder(folder, trained.model, out, samples=3).images_per_second is None  # all done before
    jpeg = restore_folder(folder, trained.model, tmp_path / "jpeg", kind="jpeg", reference=folder)
    assert jpeg.psnr is not None


def test_large_images_are_coloured_in_bands(
    trained: ColorizingSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(scene(np.random.default_rng(4), 203, 310)).save(tmp_path / "image.png")
    image = read_image(tmp_path / "image.png", max_pixels=10**6)
    at_once = colorizer.colour_image(trained, image).pixels
    monkeypatch.setattr(colorizer, "BAND", 50)
    np.testing.assert_array_equal(colorizer.colour_image(trained, image).pixels, at_once)
    monkeypatch.setattr(colorizer, "WHOLE", 20_000)  # now colours are found in an image of half the size
    reduced = colorizer.colour_image(trained, image).pixels
    assert np.abs(colorizer.luma_of(reduced) - colorizer.luma_of(at_once)).max() < 0.02
    assert np.abs(reduced.astype(int) - at_once).mean() < 4
    monkeypatch.setattr(colorizer, "BAND", 1000)
    np.testing.assert_array_equal(colorizer.colour_image(trained, image).pixels, reduced)


def test_luma_is_what_the_model_was_trained_on() -> None:
    np.testing.assert_array_equal(colorizer.LUMA, np.float32(LUMA))


def test_chroma_gives_way_to_luma() -> None:
    random = np.random.default_rng(0)
    luma = random.random((40, 50, 1), dtype=np.float32)
    luma[0], luma[1] = 0, 1
    raw = random.normal(0, 0.4, (40, 50, 3)).astype(np.float32)
    chroma = raw - raw @ colorizer.LUMA[:, None]  # it has no luma of its own
    made = colorizer.add_chroma(luma, chroma)
    assert made.min() >= -1e-6
    assert made.max() <= 1 + 1e-6
    np.testing.assert_allclose(colorizer.luma_of(made), luma, atol=1e-5)
    inside = ((luma + chroma >= 0) & (luma + chroma <= 1)).all(axis=2)
    np.testing.assert_allclose(made[inside], (luma + chroma)[inside], atol=1e-6)


def test_colours_stay_where_they_were_when_enlarged() -> None:
    ramp = np.linspace(0, 1, 1300, dtype=np.float32)[None, :, None] * np.ones((1001, 1, 1), np.float32)
    few = colorizer.reduce_image(ramp, colorizer.shares_of)
    assert few.shape == (501, 650, 1)
    back = colorizer._enlarge(few, slice(300, 400), 1001, 1300)
    np.testing.assert_allclose(back[:, 2:-2], ramp[300:400, 2:-2], atol=1e-4)
    across = colorizer._enlarge(
        colorizer.reduce_image(ramp.transpose(1, 0, 2), colorizer.shares_of), slice(500, 600), 1300, 1001
    )
    np.testing.assert_allclose(across, ramp.transpose(1, 0, 2)[500:600], atol=1e-4)


def test_training_images_are_reduced_and_known_by_what_they_were(tmp_path: Path) -> None:
    write_scenes(tmp_path / "in", 2)
    larger, images = (
        load_crop_images(find_images(tmp_path / "in"), ImageFormat(channels=3, bit_depth=8), short_side=side)
        for side in (192, 48)
    )
    assert larger.sizes == ((192, 240), (192, 240))
    assert images.sizes == ((48, 60), (48, 60))
    original = read_image(tmp_path / "in" / "0.png", max_pixels=10**6).pixels
    assert images.pixel_sha256[0] == pixel_digest(original)
    crop = images.draw_crops([0] * 20, 48, np.random.default_rng(0), upright=True)
    assert (crop[:, :12].mean(axis=(1, 2))[:, 2] > crop[:, -12:].mean(axis=(1, 2))[:, 2]).all()  # the sky is above


def test_what_cannot_be_is_refused(trained: ColorizingSession, tmp_path: Path, own_home: Path) -> None:
    (tmp_path / "grey").mkdir()
    for number in range(4):
        Image.fromarray(np.full((40, 40), 50 * number, np.uint8)).save(tmp_path / "grey" / f"{number}.png")
    with pytest.raises(JobError, match="are grey: colours are learned from colour ones"):
        train_model(job_from_document(document(tmp_path / "grey"), tmp_path / "job.toml"))
    with pytest.raises(JobError, match=r"'train.batch' is 1: one half"):
        train_model(job_from_document(document(tmp_path / "grey", batch=1), tmp_path / "job.toml"))
    wrong = {**document(tmp_path / "grey"), "model": {"network": "S", "scale": 2}}
    with pytest.raises(JobError, match=r"'model.network' has no meaning for colorize"):
        train_model(job_from_document(wrong, tmp_path / "job.toml"))
    with pytest.raises(ModelError, match="colours grey images: use `kintsugi restore`"):
        Session(trained.model)
    with pytest.raises(ModelError, match="colours grey images"):
        RestoringSession(trained.model)
    with pytest.raises(DataError, match=r"there is nothing to measure: all 4 images under .* are grey"):
        evaluate_model(tmp_path / "grey", trained.model.path)
    with pytest.raises(FolderError, match="samples is 65"):
        restore_folder(tmp_path / "grey", trained.model, tmp_path / "out", samples=65)


def test_from_the_command_line(trained: ColorizingSession, tmp_path: Path) -> None:
    write_scenes(tmp_path / "in", 1)
    found = CliRunner().invoke(
        app, ["restore", str(tmp_path / "in"), "--model", str(trained.model.path), "--out", str(tmp_path / "out")]
    )
    assert found.exit_code == 0, found.output
    assert "1 of 1 images coloured" in found.output
