"""The limit on gradients, which follows from the gradients before."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from pipelines.training.loop import Trainable


class One(Trainable):
    """A single weight."""


@pytest.fixture
def module() -> One:
    return One(nn.Conv2d(1, 1, 1, bias=False), steps=10, learning_rate=0.1)


def clip(module: One, norm: float) -> float:
    """The gradient's norm after one of that norm was met; not a number: the step is left out."""
    weight = module.model.weight
    weight.grad = torch.full_like(weight, norm)
    module.configure_gradient_clipping(torch.optim.AdamW([weight], lr=0.1))
    return math.nan if weight.grad is None else float(weight.grad.abs().sum())


def test_a_rare_large_gradient_counts_as_much_as_the_others(module: One) -> None:
    assert [clip(module, 0.01) for _ in range(50)] == pytest.approx([0.01] * 50, rel=1e-3)
    assert clip(module, 1e6) == pytest.approx(0.01, rel=1e-3)
    assert clip(module, 1e-4) == pytest.approx(1e-4, rel=0.02)  # a small one stays


def test_a_step_without_a_number_is_left_out(module: One) -> None:
    clip(module, 1.0)
    assert math.isnan(clip(module, math.inf))
    assert math.isnan(clip(module, math.nan))
    assert clip(module, 5.0) == pytest.approx(1.4, abs=0.5)


def test_a_run_that_goes_on_has_the_same_limit(module: One) -> None:
    for norm in (1.0, 2.0, 3.0):
        clip(module, norm)
    kept: dict[str, object] = {}
    module.on_save_checkpoint(kept)
    other = One(nn.Conv2d(1, 1, 1, bias=False), steps=10, learning_rate=0.1)
    other.on_load_checkpoint(kept)
    assert clip(other, 50.0) == clip(module, 50.0)
