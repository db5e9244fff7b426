"""The autoencoder: SSIM against scikit-image, shapes, and that it learns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from pipelines.bench.autoencoder import (
    Autoencoder,
    AutoencoderScorer,
    load_autoencoder,
    residual,
    save_autoencoder,
    ssim,
    train_autoencoder,
)
from pipelines.data.examples import Examples
from pipelines.training.fit import Recipe


def test_ssim_agrees_with_scikit_image() -> None:
    generator = np.random.default_rng(0)
    image = generator.random((48, 40))
    other = np.clip(image + generator.normal(0, 0.1, image.shape), 0, 1)
    _, wanted = structural_similarity(
        image, other, data_range=1.0, win_size=11, gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
        full=True,
    )  # fmt: skip
    found = ssim(*(torch.from_numpy(each)[None, None] for each in (image, other)))[0, 0].numpy()
    inside = (slice(5, -5), slice(5, -5))  # at the border, the two continue the image differently
    np.testing.assert_allclose(found[inside], wanted[inside], atol=1e-9)


def test_equal_images_differ_by_nothing() -> None:
    image = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for loss in ("l2", "ssim"):
        assert residual(loss)(image, image).abs().max() < 1e-5


@pytest.mark.parametrize("size", [(64, 64), (256, 224), (48, 80)])
def test_it_gives_images_back_at_their_size(size: tuple[int, int]) -> None:
    model = Autoencoder(1, size)
    with torch.no_grad():
        assert model(torch.zeros(1, 1, *size)).shape == (1, 1, *size)
        assert model.encoder(torch.zeros(1, 1, *size)).shape == (1, 100, 1, 1)


def test_a_size_that_cannot_be_halved_is_refused() -> None:
    with pytest.raises(ValueError, match=r"64 x 40 is not a multiple of 16"):
        Autoencoder(1, (64, 40))


@pytest.mark.parametrize("loss", ["l2", "ssim"])
def test_it_learns_and_is_kept(loss: str, tmp_path: Path) -> None:
    y, x = np.mgrid[:32, :32]
    images = np.stack([0.5 + 0.4 * np.sin((x + shift) / 4) * np.cos(y / 5) for shift in range(8)])[:, None]
    examples = Examples(
        images.astype(np.float32),
        lambda rows: rows,
        {"train": tuple(range(8)), "select": (), "calibrate": ()},
        (32, 32),
    )

    def train(steps: int) -> Autoencoder:
        return train_autoencoder(examples, Recipe(steps=steps, batch=8, learning_rate=3e-3), loss, "cpu")

    image = torch.from_numpy(images.astype(np.float32))
    untrained, trained = train(1), train(30)
    with torch.no_grad():
        before, after = (AutoencoderScorer(model, loss)(image) for model in (untrained, trained))
    assert after.maps.mean() < 0.5 * before.maps.mean()
    assert torch.equal(after.scores, after.maps.amax(dim=(1, 2)))
    save_autoencoder(tmp_path / "weights.safetensors", trained)
    kept = load_autoencoder(tmp_path / "weights.safetensors", 1, (32, 32), "cpu")
    with torch.no_grad():
        torch.testing.assert_close(kept(image), trained(image))
