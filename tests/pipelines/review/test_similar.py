"""Images to compare with: the closest good ones, and what named defects hint at."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from starlette.testclient import TestClient

from pipelines.errors import ModelError
from pipelines.models.inner_outputs import add_output
from pipelines.report.folder import ModelFacts
from pipelines.review.answers import Answer, Answers
from pipelines.review.description import Description, average_highest, find_model_of
from pipelines.review.run import ReviewedRun
from pipelines.review.server import Desk, make_app
from pipelines.review.similar import FEWEST_NAMED, SimilarImages, find_hint

HOST = "127.0.0.1:8765"


def describe(file: Any, sha256: str) -> Description:
    """Images whose numbers are near are alike."""
    value = float(int(sha256, 16))
    return Description(np.array([value, 1.0]), np.array([value, 0.0]))


def make_similar(out: Path, home: Path) -> SimilarImages:
    return SimilarImages(ReviewedRun(out), Answers(home / "answers.sqlite3"), lambda: describe)


def look(similar: SimilarImages, number: int) -> dict[str, Any]:
    """Ask until there is an answer, as the page does."""
    if not similar._thread.is_alive():
        similar.start()
    while (found := similar.look(number))["state"] == "working":
        time.sleep(0.01)
    return found


def say(answers: Answers, run: ReviewedRun, number: int, verdict: Any, defect: str | None = None) -> None:
    answers.add(
        Answer(
            sha256=run.sha256(number), path=f"{number:03}.png", run=run.name, queue="teach", verdict=verdict,
            defect=defect, model="tiles",
        )
    )  # fmt: skip


def test_without_answers_the_closest_good_images_are_unflagged_ones(make_run, tmp_path: Path) -> None:
    found = look(make_similar(make_run(tmp_path), tmp_path / "home"), 20)
    assert (found["state"], found["kind"], found["among"], found["hint"]) == ("ready", "unflagged", 36, None)
    assert sorted(each["number"] for each in found["closest"])[:2] == [18, 19]  # 20 itself is flagged, as 10 and 30


def test_images_answered_good_take_the_place_of_those_that_were_not_flagged(make_run, tmp_path: Path) -> None:
    similar = make_similar(make_run(tmp_path), tmp_path / "home")
    for number in range(20):
        say(similar._answers, similar._run, number, "good")
    found = look(similar, 39)
    assert (found["kind"], found["among"]) == ("answered", 20)
    assert [each["number"] for each in found["closest"]] == [19, 18, 17]


def test_an_image_answered_defect_is_no_good_image(make_run, tmp_path: Path) -> None:
    similar = make_similar(make_run(tmp_path), tmp_path / "home")
    say(similar._answers, similar._run, 19, "defect")
    found = look(similar, 20)
    assert 19 not in [each["number"] for each in found["closest"]]


def test_named_defects_give_a_hint(make_run, tmp_path: Path) -> None:
    similar = make_similar(make_run(tmp_path, count=120), tmp_path / "home")
    for number in range(60):
        say(similar._answers, similar._run, number, "defect", "scratch" if number < 20 else "dent")
    expected = {"name": "scratch", "alike": 5, "of": 5, "share": pytest.approx(19 / 59)}
    found, ends = look(similar, 5), time.monotonic() + 30
    while found["hint"] != expected and time.monotonic() < ends:  # defects are described one by one, after good images
        time.sleep(0.01)
        found = similar.look(5)
    assert found["hint"] == expected


@pytest.mark.parametrize(
    ("count", "names", "own"), [(FEWEST_NAMED - 1, 2, 0.0), (FEWEST_NAMED, 1, 0.0), (FEWEST_NAMED, 2, 25.0)]
)
def test_no_hint_where_defects_are_few_or_of_one_name_or_do_not_agree(count: int, names: int, own: float) -> None:
    named = [("a" if at < 25 or names == 1 else "b", np.array([float(at)])) for at in range(count)]
    good = [np.array([0.0]), np.array([1.0])]
    assert find_hint(np.array([own]), named, good) is None
    enough = [("a" if at < 25 else "b", np.array([float(at)])) for at in range(FEWEST_NAMED)]
    assert find_hint(np.array([0.0]), enough, good) == {"name": "a", "alike": 5, "of": 5, "share": 0.5}


def test_in_an_audit_the_model_does_not_speak(make_run, tmp_path: Path) -> None:
    similar = make_similar(make_run(tmp_path), tmp_path / "home")
    look(similar, 20)
    desk = Desk(similar._run, similar._answers, similar)
    client = TestClient(make_app(desk, "secret", frozenset({HOST})), f"http://{HOST}")
    assert client.get("/secret/similar/20?queue=teach").json()["state"] == "ready"
    for queue in ("audit", "", "x"):
        assert client.get(f"/secret/similar/20?queue={queue}").json() == {"state": "off", "problem": ""}
    assert client.get("/secret/similar/99?queue=teach").status_code == 404


def test_the_end_of_the_page_waits_for_the_image_that_is_described(make_run, tmp_path: Path) -> None:
    similar = make_similar(make_run(tmp_path), tmp_path / "home")
    look(similar, 20)
    similar.stop()
    assert not similar._thread.is_alive()


def test_a_run_whose_model_is_gone_says_so(make_run, tmp_path: Path) -> None:
    run = ReviewedRun(make_run(tmp_path))

    def open_model() -> Any:
        return find_model_of(ModelFacts(ref=str(tmp_path / "gone.onnx"), sha256="0" * 64))

    found = look(SimilarImages(run, Answers(tmp_path / "home" / "answers.sqlite3"), open_model), 3)
    assert found["state"] == "off"
    assert "score the folder again" in found["problem"]
    with pytest.raises(ModelError, match="does not name it"):
        find_model_of(ModelFacts())


def test_features_are_averaged_where_the_map_is_highest() -> None:
    features = np.zeros((2, 4, 4))
    features[:, 3, 1] = (5.0, 7.0)
    heat = np.zeros((40, 40))
    heat[35, 15] = 1.0
    assert average_highest(features, heat).tolist() == [5.0, 7.0]


def test_a_value_inside_a_graph_becomes_an_output() -> None:
    onnx = pytest.importorskip("onnx")
    make = onnx.helper
    image = make.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [2])
    result = make.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [2])
    nodes = [make.make_node("Neg", ["x"], ["extracted"]), make.make_node("Neg", ["extracted"], ["y"])]
    graph = make.make_graph(nodes, "graph", [image], [result])
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 20)], ir_version=10)
    session = onnxruntime.InferenceSession(add_output(model.SerializeToString(), "extracted"))
    (found,) = session.run(["extracted"], {"x": np.array([1, 2], np.float32)})
    assert found.tolist() == [-1, -2]
    with pytest.raises(Exception, match="other"):
        onnxruntime.InferenceSession(add_output(model.SerializeToString(), "other"))
