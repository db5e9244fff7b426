"""Contract of every task that mends images: what it makes of clean images is what a network can be trained on."""

from __future__ import annotations

import pytest
import torch

from pipelines.jobfile.job import SCORING
from vaecore import tasks
from vaecore.tasks import Restoration, all_tasks, restorations, scoring_tasks

CASES = [(name, kind) for name, task in restorations().items() for kind in task.damages]
OF_ONE_SIZE = [(name, kind) for name, kind in CASES if restorations()[name].scales == (1,)]


def at(task: Restoration, kind: str, level: float, scale: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rows, columns = torch.meshgrid(torch.linspace(0, 6, 48), torch.linspace(0, 9, 72), indexing="ij")
    contrast = torch.tensor([0.4, -0.3, 0.2])[:, None, None]  # in colour, for damage to colours alone
    y = (0.5 + contrast * torch.sin(3 * rows) * torch.cos(2 * columns)).expand(2, -1, -1, -1)
    strengths = torch.full((2,), float(scale) if scale > 1 else level)
    return y, task.damages[kind](y, strengths, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_damage_has_the_size_that_the_scale_says_and_repeats(name: str, kind: str) -> None:
    task = restorations()[name]
    for scale in task.scales:
        y, c = at(task, kind, task.levels[0], scale)
        assert c.shape == (2, 3, 48 // scale, 72 // scale)
        assert c.dtype == torch.float32
        assert torch.isfinite(c).all()
        assert torch.equal(c, at(task, kind, task.levels[0], scale)[1])
        if scale == 1:
            assert not torch.equal(c, y)


@pytest.mark.parametrize(("name", "kind"), OF_ONE_SIZE)
def test_levels_are_of_different_strength(name: str, kind: str) -> None:
    task = restorations()[name]
    errors = []
    for level in task.levels:
        found = [at(task, kind, level, 1, seed) for seed in range(5)]
        errors.append(sum(float((c - y).square().mean()) for y, c in found))
    assert errors in (sorted(errors), sorted(errors, reverse=True))
    assert max(errors) > 1.2 * min(errors)


@pytest.mark.parametrize("task", restorations().values(), ids=restorations())
def test_every_task_states_its_facts(task: Restoration) -> None:
    assert task.summary.endswith(".")
    assert task.strengths[0] <= min(task.levels) <= max(task.levels) <= task.strengths[1]


def test_which_tasks_score_is_known_without_torch() -> None:
    assert tuple(scoring_tasks()) == SCORING


def test_no_name_of_the_package_is_a_module_of_a_task() -> None:
    """Python puts an imported module in the place of a function of the same name."""
    names = set(all_tasks())
    assert names.isdisjoint(tasks.__all__)
    assert all(callable(getattr(tasks, name)) for name in tasks.__all__)
