"""Damage to y: repeatable, of a known extent, and made of what the batch holds."""

from __future__ import annotations

import pytest
import torch

from vaecore.damage.corruptions import CORRUPTIONS, cut_paste, hide, noise, perlin

Y = torch.randn(6, 3, 20, 24, generator=torch.Generator().manual_seed(0))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_an_equal_generator_gives_equal_damage(name: str) -> None:
    before = Y.clone()
    one, two, other = (CORRUPTIONS[name](Y, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(Y, before)
    assert one.shape == Y.shape
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert not torch.equal(one, Y)


def test_noise_is_as_strong_as_the_batch_varies() -> None:
    assert float((noise(5 * Y, generator()) - 5 * Y).std()) == pytest.approx(5, rel=0.1)


def test_a_quarter_of_the_cells_is_hidden_behind_the_mean() -> None:
    many = Y.repeat(40, 1, 1, 1)
    hidden = hide(many, generator())
    changed = (hidden != many).all(dim=1)
    assert float(changed.float().mean()) == pytest.approx(0.25, abs=0.03)
    cells = changed.unflatten(2, (4, 6)).unflatten(1, (4, 5))  # B, 4, 5, 4, 6
    assert (cells.all(dim=4).all(dim=2) == cells.any(dim=4).any(dim=2)).all()
    number, row, column = (int(i) for i in changed.nonzero()[0])
    torch.testing.assert_close(hidden[number, :, row, column], many[number].mean(dim=(1, 2)))


def test_a_patch_comes_from_the_image_before() -> None:
    numbered = torch.arange(4.0)[:, None, None, None].expand(4, 1, 20, 24).contiguous()
    for seed in range(20):
        pasted = cut_paste(numbered, generator(seed))
        inside = pasted != numbered
        assert torch.equal(pasted[inside], numbered.roll(1, dims=0)[inside])
        rows, columns = inside[0, 0].any(dim=1), inside[0, 0].any(dim=0)
        assert int(inside[0].sum()) == int(rows.sum()) * int(columns.sum())  # a rectangle
        assert 0.01 < float(inside.float().mean()) < 0.3


def test_blobs_cover_a_fifth_and_are_smooth() -> None:
    numbered = torch.arange(4.0)[:, None, None, None].expand(4, 2, 40, 48).contiguous()
    blobs = perlin(numbered, generator()) != numbered
    torch.testing.assert_close(blobs.float().mean(dim=(1, 2, 3)), torch.full((4,), 0.2), rtol=0, atol=0.01)
    edges = (blobs[..., 1:] != blobs[..., :-1]).float().mean()
    assert float(edges) < 0.12  # independent places would give 0.32
