"""What a run is judged against: calibration while its images are alike, else where most images of the folder lie."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipelines.anomaly.against import Against, Judgement, judge_run
from pipelines.anomaly.calibration import Calibration
from pipelines.anomaly.drift import STATISTICS
from pipelines.anomaly.verdicts import Verdicts

Columns = dict[str, np.ndarray]


def good_images(generator: np.random.Generator, count: int) -> Columns:
    return {name: generator.normal(size=count) for name in STATISTICS}


def calibration_of(columns: Columns, groups: dict[str, np.ndarray] | None = None) -> Calibration:
    return Calibration(
        model_sha256="", scores=tuple(columns["score"]), map_quantiles={},
        statistics={name: tuple(values) for name, values in columns.items()},
        groups={name: tuple(scores) for name, scores in (groups or {}).items()},
    )  # fmt: skip


def names_of(columns: Columns) -> list[str]:
    return [f"{number}.png" for number in range(len(columns["score"]))]


def judge(verdicts: Verdicts, columns: Columns, paths: list[str] | None = None, against: Against = "auto") -> Judgement:
    count = len(columns["score"])
    table = pa.table({"status": ["ok"] * count, "path": paths or names_of(columns), **columns})
    return judge_run(verdicts, lambda: [table[: count // 2], table[count // 2 :]], against=against)


def rows_of(judgement: Judgement, columns: Columns, paths: list[str] | None = None) -> list[dict[str, Any]]:
    names = paths or names_of(columns)
    rows: list[dict[str, Any]] = [
        {"path": name, "status": "ok", "score": float(score)}
        for name, score in zip(names, columns["score"], strict=True)
    ]
    judgement.fill(rows)
    return rows


@pytest.fixture
def generator() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def verdicts(generator: np.random.Generator) -> Verdicts:
    return Verdicts.of(calibration_of(good_images(generator, 400)), 0.05)


def drifted(generator: np.random.Generator, count: int, defects: int) -> Columns:
    """Images that are darker, and score higher: good ones, then defects."""
    columns = good_images(generator, count)
    columns["score"] = 2 * columns["score"] + 10
    columns["score"][count - defects :] += 20
    columns["brightness"] = columns["brightness"] - 3
    return columns


def test_good_images_whose_tail_alone_grows_are_judged_against_their_folder(generator: np.random.Generator) -> None:
    """Ranks hardly tell, but calibration would flag three times as many as were asked."""
    usual = good_images(generator, 400)
    usual["score"] = generator.gamma(3.0, 1.0, 400)
    columns = good_images(generator, 300)
    columns["score"] = 1.5 * generator.gamma(3.0, 1.0, 300) - 0.4
    verdicts = Verdicts.of(calibration_of(usual), 0.05)
    judgement = judge(verdicts, columns)
    assert judgement.drift is not None
    assert judgement.drift.p_value > 0.01
    assert judgement.drift.flagged_good == pytest.approx(0.16, abs=0.06)
    assert judgement.against == "folder"
    assert "flags about" in str(judgement.drift)
    flagged = {name: (columns["score"] > rule.threshold).mean() for name, rule in
               (("calibration", judgement.calibration), ("folder", judgement.run)) if rule.threshold}  # fmt: skip
    assert flagged["calibration"] > 0.1
    assert flagged["folder"] < 0.08
    assert judge(Verdicts.of(calibration_of(usual), None, false_discoveries=0.1), columns).drift is not None


def test_images_like_those_of_calibration_are_judged_by_it(verdicts: Verdicts, generator: np.random.Generator) -> None:
    columns = good_images(generator, 200)
    judgement = judge(verdicts, columns)
    assert (judgement.against, judgement.why) == ("calibration", "")
    rows = rows_of(judgement, columns)
    assert {row["against"] for row in rows} == {"calibration"}
    assert [row["is_anomaly"] for row in rows] == [row["calibration_is_anomaly"] for row in rows]
    assert [row["p_value"] for row in rows] == [row["calibration_p_value"] for row in rows]
    assert all(row["promised"] for row in rows)
    assert 0 < sum(row["folder_is_anomaly"] for row in rows) < 30


def test_a_folder_that_has_drifted_is_sorted_by_itself(verdicts: Verdicts, generator: np.random.Generator) -> None:
    columns = drifted(generator, 200, defects=10)
    judgement = judge(verdicts, columns)
    assert judgement.drift is not None
    assert [each.name for each in judgement.drift.changed] == ["brightness"]
    assert judgement.against == "folder"
    assert "judged against each other" in judgement.why
    rows = rows_of(judgement, columns)
    assert all(row["calibration_is_anomaly"] for row in rows)
    assert all(row["is_anomaly"] for row in rows[190:])
    assert sum(row["is_anomaly"] for row in rows[:190]) < 19
    assert not any(row["promised"] for row in rows)
    assert {row["against"] for row in rows} == {"folder"}
    claim = judgement.run.calibration.claim if judgement.run.calibration else None
    assert claim is not None
    assert not claim.is_proved
    assert "most of the images are good" in claim.describe_proof(0.05)


@pytest.mark.parametrize("asked", ["calibration", "folder"])
def test_either_can_be_asked_for(verdicts: Verdicts, generator: np.random.Generator, asked: Against) -> None:
    assert judge(verdicts, good_images(generator, 200), against=asked).against == asked
    assert judge(verdicts, drifted(generator, 200, 5), against=asked).against == asked


def test_no_promise_stands_where_the_run_has_refuted_it(verdicts: Verdicts, generator: np.random.Generator) -> None:
    columns = drifted(generator, 30, defects=0)  # too few to show where good images lie
    judgement = judge(verdicts, columns)
    assert judgement.against == "calibration"
    assert "it takes 50 images" in judgement.why
    rows = rows_of(judgement, columns)
    assert not any(row["promised"] for row in rows)
    assert all(row["folder_is_anomaly"] is None for row in rows)
    assert judgement.run.calibration is not None
    assert not judgement.run.calibration.claim.holds


def test_many_defects_are_not_called_normal_in_silence(verdicts: Verdicts, generator: np.random.Generator) -> None:
    columns = good_images(generator, 200)
    columns["score"][80:] += 3 + 8 * generator.random(120)
    judgement = judge(verdicts, columns)
    assert judgement.against == "calibration"  # good images score as ever, so that nothing has drifted
    assert sum(row["is_anomaly"] for row in rows_of(judgement, columns)) > 110


@pytest.mark.parametrize("rule", [{"budget": 4}, {"false_discoveries": 0.2}])
def test_other_rules_follow_the_folder_too(
    verdicts: Verdicts, generator: np.random.Generator, rule: dict[str, Any]
) -> None:
    assert verdicts.calibration is not None
    columns = drifted(generator, 200, defects=10)
    judgement = judge(Verdicts.of(verdicts.calibration, None, **rule), columns)
    assert judgement.against == "folder"
    flagged = [number for number, row in enumerate(rows_of(judgement, columns)) if row["is_anomaly"]]
    assert len(flagged) <= (4 if "budget" in rule else 25)
    assert sum(number >= 190 for number in flagged) >= (4 if "budget" in rule else 8)


def test_sub_folders_are_judged_by_themselves(generator: np.random.Generator) -> None:
    columns = good_images(generator, 400)
    scores = columns["score"]
    calibration = calibration_of(columns, {"left": scores[:200], "right": scores[200:]})
    verdicts = Verdicts.of(calibration, 0.05, groups=True)
    here = good_images(generator, 200)
    here["brightness"] += 3
    here["score"][:100] += 30
    paths = [f"{'left' if number < 100 else 'right'}/{number}.png" for number in range(200)]
    judgement = judge(verdicts, here, paths)
    assert judgement.against == "folder"
    assert sorted(judgement.own) == ["left", "right"]
    rows = rows_of(judgement, here, paths)
    for part in (rows[:100], rows[100:]):
        assert sum(bool(row["is_anomaly"]) for row in part) <= 12
    assert rows[0]["threshold"] > 25 > rows[150]["threshold"]


def test_without_calibration_there_is_no_verdict(generator: np.random.Generator) -> None:
    columns = good_images(generator, 60)
    judgement = judge(Verdicts.of(None, None), columns)
    assert judgement.against == "calibration"
    assert {row["against"] for row in rows_of(judgement, columns)} == {None}


def test_images_that_look_otherwise_and_score_as_ever_keep_their_verdicts_and_the_promise(
    verdicts: Verdicts, generator: np.random.Generator
) -> None:
    columns = good_images(generator, 200)
    columns["brightness"] -= 3
    judgement = judge(verdicts, columns)
    assert judgement.drift is not None
    assert (judgement.drift.drifted, judgement.drift.moves_verdicts) == (True, False)
    assert (judgement.against, judgement.why) == ("calibration", "")
    assert all(row["promised"] for row in rows_of(judgement, columns))


def test_a_sub_folder_that_has_moved_spoils_no_other(generator: np.random.Generator) -> None:
    columns = good_images(generator, 600)
    scores = columns["score"]
    groups = {"left": scores[:200], "middle": scores[200:400], "right": scores[400:]}
    verdicts = Verdicts.of(calibration_of(columns, groups), 0.05, groups=True)
    here = good_images(generator, 250)
    here["score"][:100] += 100
    paths = [f"{'left' if at < 100 else 'middle' if at < 220 else 'right'}/{at}.png" for at in range(250)]
    judgement = judge(verdicts, here, paths)
    assert judgement.against == "folder"
    assert sorted(judgement.own) == ["left", "middle"]
    rows = rows_of(judgement, here, paths)
    assert rows[0]["threshold"] > 95
    assert rows[249]["threshold"] < 5  # thirty images do not show where they lie: calibration's own
    assert sum(bool(row["is_anomaly"]) for row in rows) < 25


def test_images_that_were_trained_on_are_no_drift(verdicts: Verdicts, generator: np.random.Generator) -> None:
    # A first try is often the whole folder, the training images among the rest: these score lower than any new image.
    seen, new = good_images(generator, 200), good_images(generator, 200)
    columns = {name: [*(seen[name] - 5 * (name == "score")), *new[name]] for name in seen}
    digests = [f"{number:064x}" for number in range(400)]
    table = pa.table({"status": ["ok"] * 400, "path": names_of(columns), "sha256": digests, **columns})

    unaware = judge_run(verdicts, lambda: [table])
    aware = judge_run(verdicts, lambda: [table], trained_on=frozenset(digests[:200]))

    assert unaware.scores_moved
    assert not aware.scores_moved
    assert (aware.against, aware.trained_on) == ("calibration", 200)
    only_known = judge_run(verdicts, lambda: [table], trained_on=frozenset(digests))
    assert (only_known.drift, only_known.against) == (None, "calibration")


def test_blank_images_are_told_of(verdicts: Verdicts, generator: np.random.Generator) -> None:
    """A dead lamp: to a model of textures, nothing may look more normal than anything."""
    assert verdicts.calibration is not None
    contrast = 0.2 + 0.02 * generator.random(200)
    known = verdicts.calibration.statistics | {"contrast": tuple(contrast)}
    aware = verdicts.with_calibration(verdicts.calibration.model_copy(update={"statistics": known}))
    columns = good_images(generator, 100) | {"contrast": 0.2 + 0.02 * generator.random(100)}
    assert judge(aware, columns).blank == ""
    columns["contrast"][[3, 50, 70, 71, 99]] = 0.001
    told = judge(aware, columns).blank
    assert told.startswith("5 images are blank, or nearly so (3.png, 50.png, 70.png, ...)")
