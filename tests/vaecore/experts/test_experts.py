"""The other experts: each map is what a second way of computing the same density says."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from scipy.stats import multivariate_normal
from torch import Tensor

from vaecore.experts import EXPERTS, ClosedFormLinearVAE, InClosedForm, Memory, PlaceGaussian, SharedGaussian, add
from vaecore.experts.place_gaussian import PRIOR_IMAGES

CHANNELS, SIZE = 4, (3, 2)


def draw_images(count: int, seed: int, spread: float = 1.0) -> Tensor:
    """Places with means of their own, and channels that depend on each other."""
    generator = torch.Generator().manual_seed(seed)
    means = torch.randn(CHANNELS, *SIZE, generator=torch.Generator().manual_seed(99)) * 3 * spread
    mixing = torch.randn(CHANNELS, CHANNELS, generator=torch.Generator().manual_seed(98))
    noise = torch.randn(count, *SIZE, CHANNELS, generator=generator) @ mixing.T
    return means + noise.permute(0, 3, 1, 2)


@pytest.mark.parametrize("name", EXPERTS)
def test_one_pass_and_many_batches_fit_the_same_and_a_foreign_place_stands_out(name: str) -> None:
    images = draw_images(200, 0)
    expert, other = (EXPERTS[name](channels=CHANNELS, size=SIZE) for _ in range(2))
    expert.fit(lambda: [images])
    other.fit(lambda: images.split(33))
    odd = draw_images(10, 1)
    odd[:, :, 1, 1] += 40.0
    places = expert(odd)
    assert places.shape == (10, *SIZE)
    assert (places.flatten(1).argmax(dim=1) == 3).all()
    if name != "memory":  # which draws places batch by batch
        torch.testing.assert_close(places, other(odd), rtol=1e-3, atol=1e-3)


def test_shared_gaussian_differs_from_the_log_density_by_a_constant() -> None:
    images, new = draw_images(300, 0), draw_images(7, 1)
    expert = SharedGaussian(channels=CHANNELS, size=SIZE)
    expert.fit(lambda: [images])
    rows = images.permute(0, 2, 3, 1).reshape(-1, CHANNELS).double().numpy()
    dense = multivariate_normal(rows.mean(axis=0), np.cov(rows.T, bias=True))
    expected = -dense.logpdf(new.permute(0, 2, 3, 1).reshape(-1, CHANNELS).numpy())
    difference = expert(new).flatten().numpy() - expected
    assert np.ptp(difference) < 0.05  # of tens of nats: the ridge


def test_place_gaussian_differs_from_each_places_log_density_by_a_constant() -> None:
    """With many images the shrinkage is nothing, and each place has the mean and covariance of its own rows."""
    images, new = draw_images(40_000, 0), draw_images(50, 1)
    expert = PlaceGaussian(channels=CHANNELS, size=SIZE)
    expert.fit(lambda: images.split(5000))
    for row, column in ((0, 0), (2, 1)):
        rows = images[:, :, row, column].double().numpy()
        dense = multivariate_normal(rows.mean(axis=0), np.cov(rows.T))
        difference = expert(new)[:, row, column].numpy() - -dense.logpdf(new[:, :, row, column].numpy())
        assert np.ptp(difference) < 0.1


def test_place_gaussian_of_few_images_is_nearly_one_gaussian() -> None:
    """Where places do not differ, ten images say little of each: means and covariances are those of all places."""
    images, new = draw_images(10, 0, spread=0.0), draw_images(40, 1, spread=0.0)
    own, shared = PlaceGaussian(channels=CHANNELS, size=SIZE), SharedGaussian(channels=CHANNELS, size=SIZE)
    own.fit(lambda: [images])
    shared.fit(lambda: [images])
    together = np.corrcoef(own(new).flatten().numpy(), shared(new).flatten().numpy())[0, 1]
    assert PRIOR_IMAGES > 10
    assert together > 0.9


def test_memory_is_the_distance_to_the_nearest_kept_place() -> None:
    images, new = draw_images(5, 0), draw_images(3, 1)
    expert = Memory(channels=CHANNELS, size=SIZE, places=12)
    expert.fit(lambda: [images])
    seen = images.permute(0, 2, 3, 1).reshape(-1, CHANNELS).numpy()
    kept = expert.places.numpy()
    scale = images.std(dim=(0, 2, 3), correction=0).numpy()
    assert (cdist(kept, seen / scale).min(axis=1) < 2e-2).all()  # every one is a place of an image, in half precision
    nearest = cdist(new.permute(0, 2, 3, 1).reshape(-1, CHANNELS).numpy() / scale, kept).min(axis=1)
    np.testing.assert_allclose(expert(new).flatten().numpy(), nearest**2 / (2 * CHANNELS), rtol=1e-4, atol=1e-4)


def test_memory_of_fewer_places_than_it_keeps_repeats_them() -> None:
    expert = Memory(channels=CHANNELS, size=SIZE, places=50)
    expert.fit(lambda: [draw_images(2, 0)])
    assert len(expert.places.unique(dim=0)) == 12


@pytest.mark.parametrize("name", EXPERTS)
def test_channels_that_never_change_divide_by_nothing(name: str) -> None:
    images = draw_images(30, 0)
    images[:, 1] = 0.5
    expert = EXPERTS[name](channels=CHANNELS, size=SIZE)
    expert.fit(lambda: [images])
    assert expert(images).isfinite().all()


@pytest.mark.parametrize("name", EXPERTS)
def test_the_scale_and_the_offset_of_a_channel_say_nothing(name: str) -> None:
    """So that statistics of channels over all images tell a fold nothing of those that it has not seen."""
    images, new = draw_images(60, 0), draw_images(9, 1)
    scale, offset = (
        torch.tensor([0.1, 1.0, 7.0, 30.0])[:, None, None],
        torch.tensor([5.0, 0.0, -2.0, 9.0])[:, None, None],
    )
    one, other = (EXPERTS[name](channels=CHANNELS, size=SIZE) for _ in range(2))
    one.fit(lambda: [images])
    other.fit(lambda: [images * scale + offset])
    torch.testing.assert_close(one(new), other(new * scale + offset), rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("kind", [*EXPERTS.values(), ClosedFormLinearVAE])
def test_the_sums_of_all_images_less_some_are_those_of_the_others(kind: type[InClosedForm]) -> None:
    images, options = draw_images(12, 0), {"latents": 3} if kind is ClosedFormLinearVAE else {}
    directly, by_sums = (kind(channels=CHANNELS, size=SIZE, **options) for _ in range(2))
    directly.fit(lambda: images[:8].split(4))
    total, left_out = add(by_sums.gather(y) for y in images.split(4)), by_sums.gather(images[8:])
    others = tuple(one - other for one, other in zip(total, left_out, strict=True))
    by_sums.fit_to(others, lambda: images[:8].split(4))
    found = dict(by_sums.named_buffers())
    for name, buffer in directly.named_buffers():  # a component may point either way
        torch.testing.assert_close(found[name].abs(), buffer.abs(), rtol=2e-3, atol=2e-3)
