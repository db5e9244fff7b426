"""PSNR and SSIM: the same as scikit-image's and torchmetrics'."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio
from torchmetrics.functional.image import structural_similarity_index_measure

from pipelines.restoration import quality
from pipelines.restoration.quality import compare


def pair(kind: type, channels: int = 3) -> tuple[np.ndarray, np.ndarray]:
    largest = np.iinfo(kind).max
    rows, columns = np.mgrid[0:70, 0:90] / 9
    clean = (0.5 + 0.4 * np.sin(rows) * np.cos(columns))[..., None] * largest * np.ones(channels)
    noisy = clean + np.random.default_rng(0).normal(0, 0.08 * largest, clean.shape)
    return clean.astype(kind), np.clip(noisy, 0, largest).astype(kind)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
def test_figures_are_those_of_other_libraries(kind: type, channels: int) -> None:
    clean, noisy = pair(kind, channels)
    found = compare(noisy, clean)
    assert found["psnr"] == pytest.approx(
        peak_signal_noise_ratio(clean, noisy, data_range=np.iinfo(kind).max), abs=1e-3
    )
    stacked = [torch.from_numpy(each / np.iinfo(kind).max).permute(2, 0, 1)[None] for each in (noisy, clean)]
    _, places = structural_similarity_index_measure(*stacked, data_range=1.0, return_full_image=True)
    inside = places[..., 5:-5, 5:-5]  # torchmetrics mirrors beyond the border, the paper leaves the window inside
    assert found["ssim"] == pytest.approx(float(inside.mean()), abs=1e-3)


@pytest.mark.parametrize("rows", [13, 33, 60])
@pytest.mark.parametrize("border", [0, 3])
def test_bands_make_no_difference(rows: int, border: int, monkeypatch: pytest.MonkeyPatch) -> None:
    clean, noisy = pair(np.uint8)
    whole = compare(noisy, clean, border=border)
    monkeypatch.setattr(quality, "_BAND", rows)
    assert compare(noisy, clean, border=border) == pytest.approx(whole, rel=1e-12)


def test_the_luma_without_a_border() -> None:
    clean, noisy = pair(np.uint8)
    inner = compare(noisy[4:-4, 4:-4], clean[4:-4, 4:-4], luma=True)
    assert compare(noisy, clean, luma=True, border=4) == inner
    damaged = clean.copy()
    damaged[..., 2] += 1  # blue counts a tenth in the luma
    assert compare(damaged, clean, luma=True)["psnr"] > compare(damaged, clean)["psnr"] + 10


def test_what_cannot_be_compared() -> None:
    clean, noisy = pair(np.uint8)
    assert compare(noisy[:-1], clean) == {"psnr": None, "ssim": None}
    assert compare(noisy[:5, :5], clean[:5, :5])["ssim"] is None
    assert compare(clean, clean)["psnr"] == 100
    assert compare(clean[:6, :6], clean[:6, :6], luma=True, border=3)["psnr"] is None
    assert compare(clean.mean(axis=2, keepdims=True).astype(np.uint8), clean)["psnr"] > 40


def test_grey_and_colour_have_one_luma() -> None:
    clean, noisy = (each[..., :1] for each in pair(np.uint8))
    colours = [np.repeat(each, 3, axis=2) for each in (noisy, clean)]
    assert compare(noisy, clean, luma=True)["psnr"] == pytest.approx(compare(*colours, luma=True)["psnr"], abs=1e-6)
    assert compare(clean, colours[1], luma=True)["psnr"] == 100
