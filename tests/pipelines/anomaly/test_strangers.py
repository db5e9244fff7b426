"""Images of another subject are called so, however few calibration images there are."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines import score_folder
from pipelines.anomaly.calibration import Calibration
from pipelines.anomaly.strangers import Strangers
from pipelines.demo_images import MAGNETIC_TILE


def told(calibration: list[float], scores: list[float], below: tuple[str, ...] = ()) -> str | None:
    strangers = Strangers(Calibration(model_sha256="", scores=tuple(calibration), map_quantiles={}), below)
    strangers.add({"status": "ok", "score": score, "path": f"good/{score}.png"} for score in scores)
    strangers.add([{"status": "failed", "score": None, "path": "good/x.png"}])
    return strangers.warning()


def test_nearly_all_images_above_all_calibration_images() -> None:
    ten = [float(score) for score in range(10)]
    assert "12 of 12 images score above all 10 calibration images" in (told(ten, [11.0] * 12) or "")
    assert "19 of 20 images score above" in (told(ten, [11.0] * 19 + [3.0]) or "")
    assert "20000 of 20000" in (told(ten, [11.0] * 20_000) or "")
    assert "12 of 12 images score below all 10" in (told(ten, [-1.0] * 12) or "")  # none of them is flagged
    assert told(ten, [-1.0] * 6 + [11.0] * 6) is None
    assert told(ten, [11.0]) is None  # one image in eleven is so, if all is well
    assert told(ten, [11.0] * 8 + [3.0] * 4) is None
    assert told(ten, []) is None
    assert told([1.0], [2.0] * 12) is None  # the one image of calibration may be the best of all


def test_images_far_beyond_the_calibration_images() -> None:
    ten = [float(score) for score in range(10)]
    assert "5 of 10 images score far above all 10 calibration images" in (told(ten, [50.0] * 5 + [3.0] * 5) or "")
    assert told(ten, [50.0, *[3.0] * 9]) is None  # a defect
    assert told(ten, [50.0]) is None


def test_images_of_sub_folders_that_are_known_to_be_abnormal_do_not_count() -> None:
    ten = [float(score) for score in range(10)]
    assert told(ten, [50.0] * 12, ("other",)) is None
    assert told(ten, [50.0] * 12, ("good",)) is not None


@pytest.mark.parametrize(("subject", "where"), [("empty", "below"), ("brighter", "above"), ("good", None)])
def test_a_run_over_another_subject_says_so(trained, tmp_path: Path, subject: str, where: str | None) -> None:
    """With 18 calibration images, too few for the test of drift; the second has a calibration of darker images."""
    bundle, folder = tmp_path / "bundle", tmp_path / subject
    shutil.copytree(trained.bundle, bundle)
    calibration = json.loads((bundle / "calibration.json").read_text())
    assert len(calibration["scores"]) < 20
    if subject == "empty":
        folder.mkdir()
        for number in range(6):
            Image.fromarray(np.full((96, 80), 40 * number, np.uint8)).save(folder / f"{number}.png")
    else:
        shutil.copytree(MAGNETIC_TILE / "test" / "good", folder)
    if subject == "brighter":
        spread = max(calibration["scores"]) - min(calibration["scores"])
        calibration["scores"] = [score - 1.5 * spread for score in calibration["scores"]]
        (bundle / "calibration.json").write_text(json.dumps(calibration))
    score_folder(folder, bundle / "model.onnx", tmp_path / "out")
    told = json.loads((tmp_path / "out" / "run.json").read_text())["warnings"]
    page = (tmp_path / "out" / "report.html").read_text()
    found = [warning for warning in told if "seem to show another subject" in warning]
    assert len(found) == (where is not None)
    assert all(f"images score {where} all 18 calibration images" in warning for warning in found)
    assert ("seem to show another subject" in page) == (where is not None)
