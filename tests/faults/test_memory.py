"""Memory that a batch, a tile or a picture does not fit into, and whatever else the runtime raises."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from pipelines.anomaly import findings
from pipelines.models.session import Session

SAID = (
    "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Non-zero status code returned while running Conv node. "
    "Available memory of 1048576 is smaller than requested bytes of 8388608"
)
REFUSED = "[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Got invalid dimensions for input: image"


class Scarce:
    """A session of ONNX Runtime that fails as it does, for what is above a limit of the first axes."""

    def __init__(self, session: onnxruntime.InferenceSession, limit: int, said: str, *, axes: int = 1) -> None:
        self._session, self._limit, self._said, self._axes = session, limit, said, axes
        self.asked: list[int] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self._session, name)

    def run(self, outputs, feeds, options):
        size = int(np.prod(feeds["image"].shape[: self._axes]))
        self.asked.append(size)
        if size > self._limit:
            raise RuntimeError(self._said)
        return self._session.run(outputs, feeds, options)


@pytest.fixture
def scarce(monkeypatch: pytest.MonkeyPatch):
    """Make every session that is opened from now on a scarce one."""
    made: list[Scarce] = []

    def limit(to: int, said: str = SAID, *, axes: int = 1) -> list[Scarce]:
        opened = onnxruntime.InferenceSession

        def open_scarce(*arguments: object, **options: object) -> Scarce:
            made.append(Scarce(opened(*arguments, **options), to, said, axes=axes))
            return made[-1]

        monkeypatch.setattr(onnxruntime, "InferenceSession", open_scarce)
        return made

    return limit


@pytest.mark.parametrize("said", [SAID, REFUSED])
def test_a_batch_that_does_not_fit_goes_through_in_halves(
    scarce, score, rows_of, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    score.run(images, tmp_path / "whole")
    monkeypatch.setattr(Session, "batch_size", property(lambda _: 8))
    monkeypatch.setenv("KINTSUGI_WORKERS", "1")
    (session,) = (scarce(3, said),)
    assert score.run(images, tmp_path / "out").code == 0
    asked = [size for each in session for size in each.asked]
    assert asked[:4] == [8, 4, 2, 2]
    assert max(asked[2:]) <= 4
    whole, halved = rows_of(tmp_path / "whole"), rows_of(tmp_path / "out")
    for path, row in whole.items():
        assert halved[path]["score"] == pytest.approx(row["score"], rel=1e-5)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (SAID, "does not fit into memory"),
        (REFUSED, f"cannot be scored: {REFUSED}"),
        ("", "cannot be scored: RuntimeError"),
    ],
)
def test_an_image_that_does_not_fit_is_a_failed_row(
    scarce, score, rows_of, images: Path, tmp_path: Path, said: str, reason: str
) -> None:
    scarce(0, said)
    ended = score.run(images, tmp_path / "out")
    assert ended.code == 3
    assert {row["error"] for row in rows_of(tmp_path / "out").values()} == {reason}
    assert "10 of 10 files could not be scored" in ended.lines[-1]


@pytest.mark.parametrize(
    ("said", "reason"),
    [(SAID, "does not fit into memory, not even in tiles of"), (REFUSED, "cannot be restored: [ONNXRuntimeError] : 2")],
)
def test_an_image_that_cannot_be_mended_is_a_failed_row(
    scarce, restore, rows_of, images: Path, tmp_path: Path, said: str, reason: str
) -> None:
    scarce(0, said)
    assert restore.run(images, tmp_path / "out").code == 3
    assert all(row["error"].startswith(reason) for row in rows_of(tmp_path / "out").values())
    assert not list((tmp_path / "out").glob("restored/**/*.png"))


def test_a_picture_that_does_not_fit_fails_its_row_alone(
    score, rows_of, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[int] = []
    overlay = findings.overlay

    def scarce(*arguments: object) -> object:
        drawn.append(1)
        if len(drawn) == 1:
            raise MemoryError
        return overlay(*arguments)

    monkeypatch.setattr(findings, "overlay", scarce)
    monkeypatch.setenv("KINTSUGI_WORKERS", "1")
    assert score.run(images, tmp_path / "out").code == 3
    (failed,) = [row for row in rows_of(tmp_path / "out").values() if row["status"] == "failed"]
    assert (failed["error"], failed["score"]) == ("its heat map does not fit into memory", None)
    assert score.run(images, tmp_path / "out").code == 0  # there is room again


def test_decoding_that_does_not_fit_is_a_failed_row(
    verb, rows_of, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import imagecodecs

    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(imagecodecs, "png_decode", fail)
    assert verb.run(images, tmp_path / "out").code == 3
    reasons = {row["error"] for row in rows_of(tmp_path / "out").values()}
    assert reasons == {"does not fit into memory: lower KINTSUGI_WORKERS or KINTSUGI_MAX_PIXELS"}
