"""The plan cuts large images into windows and resizes small ones; the job file overrides it, and the reasons say so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipelines.data.plan import Plan, Survey, make_plan, survey
from pipelines.errors import JobError
from pipelines.jobfile.job import job_from_document
from pipelines.training.options import check_network_options, find_task
from vaecore.representations.image_format import ImageFormat

GREY = ImageFormat(channels=1, bit_depth=8)


def plan_of(height: float, width: float, **model: object) -> Plan:
    document = {"name": "parts", "task": "reconstruct", "data": {"train": "good"}, "model": model}
    job = job_from_document(document, Path("job.toml"))
    plan = make_plan(job, find_task(job), Survey(GREY, height, width))
    check_network_options(job, plan)
    return plan


@pytest.mark.parametrize(
    ("sides", "model", "size", "overlap"),
    [
        ((2000, 2560), {}, (256, 256), 64),  # resized, they would be a quarter as large
        ((2000, 2559), {}, (496, 640), None),
        ((1000, 1279), {}, (496, 640), None),
        ((320, 272), {}, (320, 272), None),
        ((160, 3000), {}, (160, 256), 40),  # no window is larger than the images
        ((3000, 4000), {"windows": False}, (480, 640), None),
        ((3000, 4000), {"size": 512}, (384, 512), None),  # as job files of before meant it
        ((3000, 4000), {"size": 512, "windows": True}, (512, 512), 128),
        ((320, 272), {"size": 128, "windows": True}, (128, 128), 32),
        ((3000, 4000), {"vae": "deep"}, (512, 640), None),
    ],
)
def test_windows_are_for_images_that_would_be_quartered(
    sides: tuple[int, int], model: dict[str, object], size: tuple[int, int], overlap: int | None
) -> None:
    plan = plan_of(*sides, **model)
    assert (plan.size, plan.overlap) == (size, overlap)
    assert any("windows at full resolution (" in reason for reason in plan.reasons) == (overlap is not None)
    shrunk = overlap is None and max(sides) >= 1280
    assert any("small defects vanish" in reason for reason in plan.reasons) == shrunk


@pytest.mark.parametrize("model", [{"vae": "deep"}, {"target": "pixels"}, {"target": "whole"}, {"levels": 2}])
def test_windows_of_what_has_none_are_refused(model: dict[str, object]) -> None:
    with pytest.raises(JobError, match=r"'model.windows' are of a linear VAE on features"):
        plan_of(3000, 4000, windows=True, **model)


def test_files_of_12_bits_are_worked_on_in_16(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    (tmp_path / "good").mkdir()
    for number in range(3):
        values = random.integers(0, 4096, (16, 16)).astype(">u2")
        (tmp_path / "good" / f"{number}.pgm").write_bytes(b"P5\n16 16\n4095\n" + values.tobytes())
    document = {"name": "parts", "task": "reconstruct", "data": {"train": "good"}}
    found = survey(job_from_document(document, tmp_path / "job.toml"))
    assert (found.image_format.bit_depth, found.bits) == (16, 16)
