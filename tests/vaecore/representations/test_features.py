"""Features as y: standardised, nothing lost on the way to one grid, and every nat back at its place."""

from __future__ import annotations

import pytest
import torch

from vaecore.representations import Features
from vaecore.representations.backbones import Backbone

IMAGES = torch.rand(6, 3, 64, 96, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def features() -> Features:
    made = Features(Backbone(strides=(8, 16)), input_size=(64, 96), weights=(3, 1))
    made.standardise(made.extract(part) for part in IMAGES.split(2))
    return made


def test_every_channel_is_standardised_over_images_and_places(features: Features) -> None:
    y = features(IMAGES)
    assert y.shape == (6, 40 * 4 + 112, 4, 6) == (6, features.channels, *features.size)
    fine = torch.pixel_shuffle(y[:, :160], 2)
    for part in (fine, y[:, 160:]):
        torch.testing.assert_close(part.mean(dim=(0, 2, 3)), torch.zeros(part.shape[1]), rtol=0, atol=1e-4)
        torch.testing.assert_close(part.std(dim=(0, 2, 3), correction=0), torch.ones(part.shape[1]), rtol=0, atol=1e-3)


def test_maps_are_averaged_over_three_by_three_places(features: Features) -> None:
    image = torch.rand(1, 3, 64, 96)
    plain = features.backbone(image)[1]
    found = features.extract(image)[:, 160:]
    torch.testing.assert_close(found[0, :, 1, 1], plain[0, :, :3, :3].mean(dim=(1, 2)))
    torch.testing.assert_close(found[0, :, 0, 0], plain[0, :, :2, :2].mean(dim=(1, 2)))


def test_a_value_goes_back_to_the_place_it_came_from(features: Features) -> None:
    fine = torch.zeros(1, 40, 8, 12)
    fine[0, 5, 3, 7] = 2.0
    coarse = torch.zeros(1, 112, 4, 6)
    coarse[0, 9, 2, 1] = 8.0
    places = features.sum_by_place(torch.cat([torch.pixel_unshuffle(fine, 2), coarse], dim=1))[0]
    assert places.shape == (8, 12)
    assert places[3, 7] == 2
    assert (places[4:6, 2:4] == 2).all()
    assert places.sum() == 10


def test_weights_keep_the_scale_of_figures_per_dimension(features: Features) -> None:
    assert features.weight is not None
    assert features.weight.mean() == pytest.approx(1, abs=1e-5)
    assert float(features.weight[0] / features.weight[-1]) == pytest.approx(3)
    assert Features(Backbone(), input_size=(64, 64)).weight is None


def test_both_averaged_maps_and_maps_as_they_are() -> None:
    made = Features(Backbone(strides=(8, 16)), input_size=(64, 96), smooth="both", weights=(3, 1))
    backbone = made.backbone
    averaged, plain = (Features(backbone, input_size=(64, 96), smooth=choice) for choice in (True, False))
    image = IMAGES[:1]
    torch.testing.assert_close(made.extract(image), torch.cat([averaged.extract(image), plain.extract(image)], dim=1))
    assert made.sum_by_place(made.extract(image)).shape == (1, 8, 12)
    for weight, of_averaged in ((made.weight, 3.0), (made.local_weight, 1 / 3)):
        fine, coarse, sharp, sharp_coarse = (float(weight[i]) for i in (0, 160, 272, -1))
        assert weight.mean() == pytest.approx(1, abs=1e-5)
        assert (fine / coarse, sharp / sharp_coarse) == (pytest.approx(3), pytest.approx(3))
        assert fine / sharp == pytest.approx(of_averaged)
    assert torch.equal(averaged.weight, averaged.local_weight)
    only = Features(Backbone(), input_size=(64, 96))
    assert only.weight is only.local_weight is None


def test_grey_images_are_shown_as_three_equal_channels() -> None:
    made = Features(Backbone(), input_size=(64, 64))
    grey = torch.rand(2, 1, 80, 50)
    torch.testing.assert_close(made(grey), made(grey.expand(-1, 3, -1, -1)))


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"size 72 x 64 is not a multiple of the backbone's stride 16"):
        Features(Backbone(), input_size=(72, 64))
    with pytest.raises(ValueError, match=r"1 strides need as many weights above 0, not \[1, 2\]"):
        Features(Backbone(), input_size=(64, 64), weights=[1, 2])


def test_a_constant_channel_is_not_divided_by_nothing() -> None:
    made = Features(Backbone(), input_size=(64, 64))
    made.standardise([torch.zeros(3, made.channels, *made.size)])
    assert torch.isfinite(made.normalise(torch.ones(1, made.channels, *made.size))).all()


def test_whitened_channels_are_uncorrelated_and_of_unit_variance() -> None:
    made = Features(Backbone(strides=(8, 16)), input_size=(64, 96), smooth=False, whiten=True)
    images = torch.rand(60, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    extracted = [made.extract(part) for part in images.split(20)]
    made.standardise(iter(extracted))
    y = made.normalise(torch.cat(extracted))
    assert y.shape == (60, 272, 4, 6)
    found = torch.cov(y.transpose(0, 1).flatten(1).double(), correction=0)
    torch.testing.assert_close(found - torch.diag(found.diagonal()), torch.zeros(272, 272).double(), rtol=0, atol=1e-3)
    assert found.diagonal().min() > 0.5  # the rarest are held back a little
    assert found.diagonal().max() < 1.001
    assert made.weight is None  # one joint density, not a composite
    places = made.sum_by_place(y.square())
    assert places.shape == (60, 4, 6)
    torch.testing.assert_close(places.sum(), y.square().sum())


def test_whitened_features_take_no_weights_of_strides() -> None:
    with pytest.raises(ValueError, match="whitened features are of all strides together"):
        Features(Backbone(strides=(8, 16)), input_size=(64, 64), whiten=True, weights=(1, 2))
    with pytest.raises(ValueError, match="averaged or not, but not both"):
        Features(Backbone(strides=(8, 16)), input_size=(64, 64), whiten=True, smooth="both")


def test_features_can_be_blind_to_exposure() -> None:
    image = torch.rand(2, 1, 64, 64)
    backbone = Backbone()
    plain, blind = (Features(backbone, input_size=(64, 64), standardise=choice) for choice in (False, True))
    torch.testing.assert_close(blind(0.3 * image + 0.1), blind(image), rtol=1e-3, atol=1e-4)
    assert (plain(0.3 * image + 0.1) - plain(image)).abs().max() > 0.1


def test_features_of_the_whole_image_have_one_place() -> None:
    made = Features(Backbone(strides=(8, 16)), input_size=(64, 96), smooth=False, whole=True)
    fine, coarse = made.backbone(IMAGES[:2])
    extracted = made.extract(IMAGES[:2])
    assert extracted.shape == (2, 40 + 112, 1, 1) == (2, made.channels, *made.size)
    torch.testing.assert_close(extracted[:, :40, 0, 0], fine.mean(dim=(2, 3)))
    torch.testing.assert_close(extracted[:, 40:, 0, 0], coarse.mean(dim=(2, 3)))
    assert made.sum_by_place(torch.ones(2, 152, 1, 1)).tolist() == [[[152.0]], [[152.0]]]
    with pytest.raises(ValueError, match="averaged over the whole image are not smoothed"):
        Features(Backbone(), input_size=(64, 64), whole=True)
