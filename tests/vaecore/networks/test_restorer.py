"""The image-to-image network: its halo is enough, its scale costs nothing, it starts as the identity."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from vaecore.networks import Restorer

SHAPES = [((16, 24, 32), (1, 1, 2), 1), ((16, 24), (2, 1), 2), ((8, 8, 8, 8), (1, 1, 1, 1), 1), ((16, 24), (1, 2), 3)]


def restorer(widths: tuple[int, ...], blocks: tuple[int, ...], upscale: int) -> Restorer:
    torch.manual_seed(0)
    made = Restorer(channels=3, outputs=3, widths=widths, blocks=blocks, upscale=upscale).double()
    for parameter in made.parameters():  # away from the start near the identity
        torch.nn.init.normal_(parameter, std=0.1)
    return made.eval()


@pytest.mark.parametrize(("widths", "blocks", "upscale"), SHAPES)
def test_nothing_beyond_the_halo_matters_and_what_is_near_does(widths, blocks, upscale) -> None:
    made = restorer(widths, blocks, upscale)
    side = 2 * made.halo + 5 * made.multiple
    image = torch.rand(1, 3, side, side, dtype=torch.float64, requires_grad=True)
    middle = side // 2 // made.multiple * made.multiple  # a cell of the coarsest grid, and its last pixel
    for place in (middle, middle + made.multiple - 1):
        out = made(image)[0, :, place * upscale, place * upscale].sum()
        (gradient,) = torch.autograd.grad(out, image)
        rows = torch.nonzero(gradient.abs().sum(dim=(0, 1, 3))).flatten()
        assert rows.min() >= place - made.halo
        assert rows.max() <= place + made.halo
    assert int(max(place - rows.min(), rows.max() - place)) > made.halo - 3 * made.multiple  # not much too large


@pytest.mark.parametrize(("widths", "blocks", "upscale"), SHAPES)
def test_a_tile_with_its_halo_is_the_whole_image_s(widths, blocks, upscale) -> None:
    made = restorer(widths, blocks, upscale)
    step, halo = made.multiple, made.halo
    image = torch.rand(1, 3, 2 * halo + 9 * step, 2 * halo + 7 * step, dtype=torch.float64)
    top, left, size = halo + 3 * step, halo + 2 * step, 2 * step
    with torch.no_grad():
        whole = made(image)
        tile = made(image[:, :, top - halo : top + size + halo, left - halo : left + size + halo])
    cut = slice(halo * upscale, (halo + size) * upscale)
    rows, columns = (slice(start * upscale, (start + size) * upscale) for start in (top, left))
    torch.testing.assert_close(tile[:, :, cut, cut], whole[:, :, rows, columns], rtol=0, atol=1e-12)


def test_it_starts_as_the_identity_or_the_bicubic_image() -> None:
    image = torch.rand(2, 3, 16, 24)
    same = Restorer(channels=3, outputs=3)(image)
    assert same.shape == (2, 6, 16, 24)
    torch.testing.assert_close(same[:, :3], image)
    larger = Restorer(channels=3, outputs=3, upscale=3)(image)[:, :3]
    torch.testing.assert_close(
        larger, F.interpolate(image, scale_factor=3, mode="bicubic", align_corners=False, antialias=True)
    )


def test_the_scale_does_not_shape_the_features() -> None:
    made = Restorer(channels=1, outputs=1, widths=(8, 12), blocks=(1, 1))
    made(torch.rand(1, 1, 16, 16))[:, 1].sum().backward()
    touched = {name.split(".")[0] for name, each in made.named_parameters() if each.grad.any()}
    assert touched == {"scale"}
