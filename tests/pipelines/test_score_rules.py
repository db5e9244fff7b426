"""A whole folder's verdicts: a budget, false discoveries, and drift of the light."""

from __future__ import annotations

import errno
import json
import os
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.demo_images import MAGNETIC_TILE
from pipelines.errors import CalibrationError, KintsugiError
from pipelines.models.model_file import ModelFile, sha256_of
from pipelines.score import ScoreSummary, score_folder, work_key


def test_a_budget_flags_and_draws_the_worst_alone(trained, images: Path, rows_of, tmp_path: Path) -> None:
    everything = score_folder(images, trained.model, tmp_path / "all", false_alarms=0.9)
    few = score_folder(images, trained.model, tmp_path / "few", false_alarms=0.9, budget=3)
    assert everything.flagged > 3
    assert few.flagged == 3
    rows = sorted(rows_of(tmp_path / "few"), key=lambda row: -row["score"])
    assert [row["is_anomaly"] for row in rows] == 3 * [True] + (len(rows) - 3) * [False]
    assert len(list((tmp_path / "few" / "maps").rglob("*.png"))) == 3
    run = json.loads((tmp_path / "few" / "run.json").read_text())
    assert run["calibration"]["rule"] == "at most the 3 worst images are flagged"
    assert "--budget 3" in run["command"]


def test_maps_of_all_images_are_written_when_asked_and_go_again(trained, images: Path, tmp_path: Path) -> None:
    out, seen = tmp_path / "out", list[str]()

    def score(*, all_maps: bool) -> int:
        summary = score_folder(
            images,
            trained.model,
            out,
            false_alarms=0.6,
            all_maps=all_maps,
            observer=lambda row, _: seen.append(row["path"]),
        )
        assert ("--all-maps" in json.loads((out / "run.json").read_text())["command"]) == all_maps
        return summary.flagged

    flagged = score(all_maps=False)
    assert 0 < flagged < 16
    assert len(list((out / "maps").rglob("*.png"))) == flagged
    score(all_maps=True)
    assert len(seen) == 16 + 16 - flagged  # those that had one are not done again
    assert len(list((out / "maps").rglob("*.png"))) == 16
    score(all_maps=False)
    assert len(list((out / "maps").rglob("*.png"))) == flagged


def test_false_discoveries_are_a_rule_of_their_own(trained, images: Path, tmp_path: Path) -> None:
    summary = score_folder(images, trained.model, tmp_path / "out", false_discoveries=0.5)
    assert "Benjamini-Hochberg" in (summary.rule or "")
    assert "--false-discoveries 0.5" in json.loads((tmp_path / "out" / "run.json").read_text())["command"]
    with pytest.raises(CalibrationError, match="is a rule of its own"):
        score_folder(images, trained.model, tmp_path / "out", false_discoveries=0.5, budget=2)


@pytest.mark.parametrize("rule", [{"false_alarms": 0.9, "budget": 3}, {"false_discoveries": 0.9}])
def test_a_finished_run_does_nothing_again_whatever_its_rule(
    trained, images: Path, stable_bytes, tmp_path: Path, rule: dict[str, Any]
) -> None:
    """Images that could be flagged before all scores were known have no map at the end, and need none."""
    out, seen = tmp_path / "out", list[str]()
    (images / "broken.png").write_bytes(b"no image")  # is tried again, and changes nothing

    def score() -> int:
        seen.clear()
        return score_folder(
            images, trained.model, out, observer=lambda row, _: seen.append(row["path"]), **rule
        ).flagged

    first = score()
    assert len(seen) == 16
    before = stable_bytes(out)
    assert score() == first
    assert seen == []
    assert stable_bytes(out) == before


def test_a_run_that_is_judged_against_its_folder_has_its_maps_and_does_nothing_again(
    trained, rows_of, stable_bytes, tmp_path: Path
) -> None:
    """Dark copies, which calibration would nearly all flag; the folder flags few, and only these have maps."""
    dark, out, seen = tmp_path / "dark", tmp_path / "out", list[str]()
    dark.mkdir()
    good = sorted((MAGNETIC_TILE / "train" / "good").iterdir())[:32]
    for path in good:
        pixels = np.asarray(Image.open(path).convert("L")).astype(float)
        for number in range(2):  # not quite alike
            darker = pixels * (0.3 + 0.01 * number) + number
            Image.fromarray(darker.round().astype(np.uint8)).save(dark / f"{number}{path.stem}.png")

    def score(**options: Any) -> ScoreSummary:
        seen.clear()
        return score_folder(dark, trained.model, out, observer=lambda row, _: seen.append(row["path"]), **options)

    first = score(against="folder", false_alarms=0.2)
    run, rows = json.loads((out / "run.json").read_text()), rows_of(out)
    assert run["against"]["refused"] is None
    assert first.against == run["against"]["used"] == "folder"
    assert "--against folder" in run["command"]
    flagged = {row["path"] for row in rows if row["is_anomaly"]}
    assert len(flagged) == first.flagged == run["against"]["flagged"]["folder"]
    assert first.by_calibration == sum(row["calibration_is_anomaly"] for row in rows)
    assert len(list((out / "maps").rglob("*.png"))) == len(flagged)
    before = stable_bytes(out)
    assert score(against="folder", false_alarms=0.2).flagged == first.flagged
    assert seen == []
    assert stable_bytes(out) == before
    report = (out / "report.html").read_text()
    assert f"{first.flagged} of 64 images stand out from this folder" in report
    other = score(against="calibration", false_alarms=0.2)
    assert other.flagged == other.by_calibration == first.by_calibration
    assert len(list((out / "maps").rglob("*.png"))) == other.flagged


def test_more_images_can_lower_a_threshold_of_false_discoveries_and_maps_follow(
    trained, images: Path, rows_of, stable_bytes, tmp_path: Path
) -> None:
    """What few images were no discovery becomes one beside many: its map was tidied away, and is drawn again."""
    whole, out, late = tmp_path / "whole", tmp_path / "out", tmp_path / "late"
    score_folder(images, trained.model, whole)
    ranked = sorted(rows_of(whole), key=lambda row: -row["score"])
    scores = [row["score"] for row in ranked]
    document = json.loads((trained.bundle / "calibration.json").read_text())
    good = [(scores[3] + scores[4]) / 2, *18 * [(scores[5] + scores[6]) / 2]]  # p: 4 times 0.05, twice 0.1, 1
    calibration = tmp_path / "other.json"
    document.pop("groups", None)
    calibration.write_text(json.dumps(document | {"scores": good}))
    rule: dict[str, Any] = {"false_discoveries": 0.4, "calibration": calibration}

    late.mkdir()
    for row in ranked[:4]:
        (images / row["path"]).rename(late / Path(row["path"]).name)
    assert score_folder(images, trained.model, out, **rule).flagged == 0
    for row in ranked[:4]:
        (late / Path(row["path"]).name).rename(images / row["path"])
    assert score_folder(images, trained.model, out, **rule).flagged == 6
    assert len(list((out / "maps").rglob("*.png"))) == 6
    score_folder(images, trained.model, whole, fresh=True, **rule)
    assert stable_bytes(out) == stable_bytes(whole)


def test_an_image_that_moves_up_in_a_budget_has_its_map(
    trained, images: Path, rows_of, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worst image is done again, since its map is gone, and cannot be read any more."""
    out, rule = tmp_path / "out", {"false_alarms": 0.9, "budget": 1}
    score_folder(images, trained.model, out, **rule)
    worst, second = sorted(rows_of(out), key=lambda row: -row["score"])[:2]
    (out / "maps" / f"{worst['path']}.png").unlink()
    read = Path.read_bytes

    def read_or_fail(path: Path) -> bytes:
        if path == images / worst["path"]:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", read_or_fail)
    summary = score_folder(images, trained.model, out, **rule)
    assert (summary.failed, summary.flagged) == (1, 1)
    (drawn,) = (out / "maps").rglob("*.png")
    assert drawn == out / "maps" / f"{second['path']}.png"


def test_a_rule_that_needs_many_abnormal_images_is_cautioned_against_everywhere(
    trained, images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caution = "at least 2 of these 16 images must be flagged together, or none is: 18 calibration images"
    score_folder(images, trained.model, tmp_path / "out", false_discoveries=0.5)
    warning, no_drift = json.loads((tmp_path / "out" / "run.json").read_text())["warnings"]
    assert warning.startswith(caution)
    assert "needs 20 calibration images and this model has 18" in no_drift
    assert warning in caplog.messages
    assert caution in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"false_discoveries": 0.5, "budget": 2}, "is a rule of its own"),
        ({"groups": True, "budget": 2}, "thresholds by group follow from a false-alarm rate"),
        ({"false_alarms": 2.0}, "a false-alarm rate of 2.0 is not between 0 and 1"),
        ({"false_discoveries": 0.0}, "is not between 0 and 1"),
        ({"calibration": Path("nowhere.json")}, "the calibration file nowhere.json does not exist"),
        ({"out": Path(__file__).parent}, "holds other files; give an empty or a new folder"),
        ({"out": Path(__file__)}, "is a file; give a folder"),
        ({"folder": Path("nowhere")}, "nowhere does not exist"),
    ],
)
def test_what_is_wrong_with_the_call_is_told_before_a_model_is_looked_for(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: dict[str, Any], says: str
) -> None:
    looked_for: list[str] = []
    monkeypatch.setattr("pipelines.score.find_model", looked_for.append)
    call = {"folder": images, "model": "tiles@champion", "out": tmp_path / "out"} | wrong
    with pytest.raises(KintsugiError, match=says):
        score_folder(**call)
    assert looked_for == []


def test_darker_images_are_reported_as_drift_and_unchanged_ones_are_not(trained, tmp_path: Path) -> None:
    """The light goes down by half; the calibration set of this small model is made larger by repeating it."""
    bundle = tmp_path / "bundle"
    shutil.copytree(trained.bundle, bundle)
    document = json.loads((bundle / "calibration.json").read_text())
    document["statistics"] = {name: 2 * values for name, values in document["statistics"].items()}
    (bundle / "calibration.json").write_text(json.dumps(document))
    (tmp_path / "dark").mkdir()
    for path in trained.images.iterdir():
        pixels = np.asarray(Image.open(path).convert("L"))
        Image.fromarray((pixels * 0.5).astype(np.uint8)).save(tmp_path / "dark" / f"{path.stem}.png")
    same = score_folder(trained.images, bundle / "model.onnx", tmp_path / "same-out")
    assert same.drift is not None
    assert not same.drift.drifted
    dark = score_folder(tmp_path / "dark", bundle / "model.onnx", tmp_path / "dark-out")
    assert dark.drift is not None
    assert dark.drift.drifted
    run = json.loads((tmp_path / "dark-out" / "run.json").read_text())
    assert run["drift"]["drifted"] is True
    assert any("not like the calibration images" in warning for warning in run["warnings"])
    assert "not like the calibration images" in (tmp_path / "dark-out" / "report.html").read_text()


def test_the_command_names_another_calibration_file(trained, images: Path, tmp_path: Path) -> None:
    other = tmp_path / "other calibration.json"
    shutil.copy(trained.bundle / "calibration.json", other)
    score_folder(images, trained.model, tmp_path / "out", calibration=other)
    words = shlex.split(json.loads((tmp_path / "out" / "run.json").read_text())["command"])
    assert words[words.index("--calibration") + 1] == str(other)


def test_rows_are_made_again_for_another_gallery_or_other_shares(trained, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(trained.bundle, bundle)
    file = ModelFile(path=bundle / "model.onnx", sha256=sha256_of(bundle / "model.onnx"), ref="x")
    calibration = file.calibration()
    assert calibration is not None
    assert calibration.places is not None
    places = calibration.places.model_copy(update={"shares": tuple(share / 2 for share in calibration.places.shares)})
    keys = [work_key(file, calibration), work_key(file, calibration.model_copy(update={"places": places}))]
    (bundle / "gallery.safetensors").rename(bundle / "elsewhere")
    keys.append(work_key(file, calibration))
    assert len(set(keys)) == 3
    (bundle / "elsewhere").rename(bundle / "gallery.safetensors")
    assert work_key(file, calibration) == keys[0]


def test_regions_that_cannot_be_told_are_null_not_none_found(trained, images: Path, rows_of, tmp_path: Path) -> None:
    """A calibration without values of maps gives verdicts, but no level for a place."""
    document = json.loads((trained.bundle / "calibration.json").read_text())
    document |= {"map_quantiles": {}}
    del document["places"]
    (tmp_path / "plain.json").write_text(json.dumps(document))
    score_folder(images, trained.model, tmp_path / "out", false_alarms=0.9, calibration=tmp_path / "plain.json")
    flagged = [row for row in rows_of(tmp_path / "out") if row["is_anomaly"]]
    assert flagged
    assert {(row["regions"], row["regions_percent"], row["local_p_value"]) for row in flagged} == {(None, None, None)}
