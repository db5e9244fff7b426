"""Masks of defects: every way in which people save them gives the same pixels, and what is of no use is named."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from pipelines.bench.measure import Figures
from pipelines.demo_images import MAGNETIC_TILE
from pipelines.errors import DataError, ImageError
from pipelines.evaluate import evaluate_model
from pipelines.evaluation.defect_masks import Masks
from pipelines.evaluation.descriptions import describe_evaluation
from pipelines.images.label_images import LabelFolder, read_labels

SIDE = 48
DEFECT = np.zeros((SIDE, SIDE), bool)
DEFECT[10:22, 30:41] = True
Save = Callable[[Path], None]


def _grey(values: NDArray) -> Save:
    return lambda path: Image.fromarray(values.astype(np.uint8)).save(path)


def _palette(colours: list[int]) -> Save:
    def save(path: Path) -> None:
        picture = Image.fromarray(DEFECT.astype(np.uint8), "P")
        picture.putpalette(colours)
        picture.save(path)

    return save


def _lossy(**options: object) -> Save:
    return lambda path: Image.fromarray(np.where(DEFECT, 255, 0).astype(np.uint8)).save(path, **options)


def _turned(path: Path) -> None:
    """A mask whose orientation tag turns it by a quarter."""
    tifffile.imwrite(path, np.rot90(DEFECT * np.uint8(255)).copy(), extratags=[(274, "H", 1, 6, True)])


WAYS: dict[str, tuple[str, Save]] = {
    "0 and 255": ("{}.png", _grey(DEFECT * 255)),
    "0 and 1": ("{}.png", _grey(DEFECT)),
    "the number of a class": ("{}.png", _grey(DEFECT * 3)),
    "VOC palette": ("{}.png", _palette([0, 0, 0, 128, 0, 0])),
    "palette of a shrunken black and white file": ("{}.png", _palette([0, 0, 0, 255, 255, 255])),
    "suffix _mask": ("{}_mask.png", _grey(DEFECT)),
    "suffix _gt": ("{}_gt.png", _grey(DEFECT * 255)),
    "suffix _GT, in capitals": ("{}_GT.PNG", _grey(DEFECT * 255)),
    "TIFF": ("{}.tif", _grey(DEFECT)),
    "BMP": ("{}.BMP", _grey(DEFECT * 255)),
    "GIF": ("{}.gif", _grey(DEFECT * 255)),
    "one bit": ("{}.png", lambda path: Image.fromarray(DEFECT).save(path)),
    "JPEG": ("{}.jpg", _lossy(quality=95, subsampling=0)),
    "JPEG, in capitals": ("{}_mask.JPG", _lossy(quality=95, subsampling=0)),
    "turned by its tag": ("{}.tiff", _turned),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_save_a_mask_gives_the_same_pixels(tmp_path: Path, way: str) -> None:
    name, save = WAYS[way]
    folder = tmp_path / "ground_truth" / "crack"
    folder.mkdir(parents=True)
    save(folder / name.format("7"))
    masks = Masks(tmp_path)
    found = masks.of("crack/7.jpg", (SIDE, SIDE))
    assert found is not None
    np.testing.assert_array_equal(found, DEFECT)
    assert masks.report() == {"used": 1}
    np.testing.assert_array_equal(read_labels(folder / name.format("7"), 2), DEFECT)  # as segment takes it


def test_white_is_the_defect_wherever_it_stands_in_a_palette(tmp_path: Path) -> None:
    picture = Image.fromarray((~DEFECT).astype(np.uint8), "P")
    picture.putpalette([255, 255, 255, 0, 0, 0])
    picture.save(tmp_path / "optimised.png")
    np.testing.assert_array_equal(read_labels(tmp_path / "optimised.png", 2), DEFECT)
    tifffile.imwrite(
        tmp_path / "optimised.tif", (~DEFECT).astype(np.uint8), photometric="palette",
        colormap=np.repeat(np.where(np.arange(256) == 0, 65535, 0).astype(np.uint16)[None], 3, axis=0),
    )  # fmt: skip
    np.testing.assert_array_equal(read_labels(tmp_path / "optimised.tif", 2), DEFECT)


def test_masks_whose_values_are_unclear_are_refused_with_the_reason(tmp_path: Path) -> None:
    ramp = np.tile(np.linspace(0, 255, SIDE).astype(np.uint8), (SIDE, 1))
    red = np.dstack([DEFECT * 255, DEFECT * 0, DEFECT * 0]).astype(np.uint8)
    painted = np.dstack([np.full((SIDE, SIDE, 3), 255), DEFECT * 255]).astype(np.uint8)
    for name, save, told in (
        ("shades.png", _grey(ramp), "shades of grey"),
        ("no_zero.png", _grey(DEFECT + 1), "no pixel of value 0"),
        ("red.png", lambda path: Image.fromarray(red).save(path), "in colours"),
        ("faint.jpg", _grey(DEFECT * 40), "end at"),
        ("shades.jpg", _grey(ramp), "shades of grey"),
        ("transparent.png", lambda path: Image.fromarray(painted).save(path), "transparen"),
    ):
        save(tmp_path / name)
        with pytest.raises(ImageError, match=told):
            read_labels(tmp_path / name, 2)


def test_of_two_files_of_one_name_the_lossless_one_counts(tmp_path: Path) -> None:
    _grey(DEFECT)(tmp_path / "1.png")
    Image.fromarray(np.full((SIDE, SIDE), 90, np.uint8)).save(tmp_path / "1.jpg")  # the photograph, copied along
    folder = LabelFolder.find(tmp_path, 2)
    assert folder.named("1") is not None
    assert folder.named("1").relative == "1.png"
    _grey(DEFECT)(tmp_path / "1.tif")
    with pytest.raises(DataError, match="two label images of the name 1: keep one"):
        LabelFolder.find(tmp_path, 2)


def test_what_is_of_no_use_is_named_once_each(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "ground_truth"
    for name, values in {
        "crack/black": DEFECT * 0, "crack/small": DEFECT[:5, :6], "crack/wide": DEFECT[:20],
        "crack/turned": DEFECT[:20].T, "crack/shades": np.tile(np.arange(SIDE) * 5, (SIDE, 1)),
        "crack/fine": DEFECT, "crack/nobody": DEFECT, "Scratch/1": DEFECT, "good/black": DEFECT * 0,
        "good/marked": DEFECT,
    }.items():  # fmt: skip
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        _grey(values)(folder / f"{name}.png")
    (folder / "crack/broken.png").write_bytes((folder / "crack/fine.png").read_bytes()[:60])
    masks = Masks(tmp_path)
    square, wide = (SIDE, SIDE), (20, SIDE)
    for name in ("black", "small", "broken", "shades"):
        assert masks.of(f"crack/{name}.jpg", square) is None
    for name in ("scratch/1", "good/black", "good/marked", "good/2"):
        assert masks.of(f"{name}.jpg", square) is None
    assert masks.of("crack/turned.jpg", wide) is None
    assert masks.of("crack/wide.jpg", wide) is not None
    assert masks.of("crack/fine.jpg", square) is not None
    with caplog.at_level(logging.WARNING):
        counts = masks.report()
    assert counts == {
        "used": 2, "missing": 1, "all_black": 1, "unreadable": 1, "unclear": 1, "other_size": 2, "marked_good": 1,
        "unused": 2,
    }  # fmt: skip
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 7  # one for each
    for told in (
        "1 image of a defect has no mask (scratch/1.jpg): it", "1 mask marks no pixel (crack/black.png): its image is",
        "1 mask is unclear (crack/shades.png): no pixel figure uses it. Label image shades.png: holds shades of grey",
        "1 mask cannot be read (crack/broken.png): no pixel figure uses it. Label image broken.png",
        "2 masks have another size than their images (crack/small.png is 6",
        "1 image in test/good has a mask that marks pixels (good/marked.png): it counts",
        "2 masks belong to no image (Scratch/1.png, crack/nobody.png)",
    ):  # fmt: skip
        assert sum(told in line for line in lines) == 1, (told, lines)
    assert any("turned" in line for line in lines)
    assert max(map(len, lines)) <= 220


def test_the_evaluation_goes_on_without_masks_of_no_use(
    trained, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for part in ("test/good", "test/crack", "ground_truth/crack"):
        shutil.copytree(MAGNETIC_TILE / part, tmp_path / part)
    masks = sorted((tmp_path / "ground_truth" / "crack").iterdir())
    before = evaluate_model(tmp_path, trained.model)
    for path in masks:  # the same masks as 0 and 1, under another name and suffix
        values = np.asarray(Image.open(path)) > 127
        path.unlink()
        Image.fromarray(values.astype(np.uint8)).save(path.with_name(f"{path.stem}_gt.TIF"))
    again = evaluate_model(tmp_path, trained.model)
    assert (again["aupro"], again["pixel_auroc"]) == (before["aupro"], before["pixel_auroc"])
    assert again["masks"] == {"used": 4}
    Image.new("L", (5, 5), 255).save(masks[1])
    masks[1].with_name(f"{masks[1].stem}_gt.TIF").unlink()
    with caplog.at_level(logging.WARNING):
        less = evaluate_model(tmp_path, trained.model)
    assert less["masks"] == {"used": 3, "other_size": 1}
    assert less["defects"]["crack"]["n_masks"] == 3
    assert [line for line in describe_evaluation(before) if "masks" in line] == []
    partly = [line.split()[0] for line in describe_evaluation(less) if line.endswith("(3 masks of 4 images)")]
    assert partly == ["pixel", "AUPRO", "crack"]
    assert less["pixel_auroc"] != before["pixel_auroc"]
    assert sum("another size than its image" in record.getMessage() for record in caplog.records) == 1


def test_baselines_of_the_benchmark_read_masks_by_the_same_rule(tmp_path: Path) -> None:
    (tmp_path / "ground_truth" / "crack").mkdir(parents=True)
    _grey(DEFECT)(tmp_path / "ground_truth" / "crack" / "1_gt.PNG")
    figures = Figures(tmp_path)
    figures.add("good/1.png", 0.0, np.zeros((SIDE, SIDE), np.float32))
    figures.add("crack/1.png", 1.0, DEFECT.astype(np.float32))
    found = figures.result()
    assert found["aupro"] == pytest.approx(1.0)
    assert found["masks"] == {"used": 1}
