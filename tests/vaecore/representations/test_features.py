"""Features as y: standardised, nothing lost on the way to one grid, and every nat back at its place."""

from __future__ import annotations

import pytest
import torch

from vaecore.representations import FINE, PLACES, WIDE, Features, View
from vaecore.representations.backbones import Backbone

IMAGES = torch.rand(6, 3, 64, 96, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def features() -> Features:
    made = Features(Backbone(strides=(8, 16)), input_size=(64, 96), view=View((0, 1), smooth=False))
    made.standardise(made.extract(part) for part in IMAGES.split(2))
    return made


def test_every_channel_is_standardised_over_images_and_places(features: Features) -> None:
    y = features(IMAGES)
    assert y.shape == (6, 40 * 4 + 112, 4, 6) == (6, features.channels, *features.size)
    fine = torch.pixel_shuffle(y[:, :160], 2)
    for part in (fine, y[:, 160:]):
        torch.testing.assert_close(part.mean(dim=(0, 2, 3)), torch.zeros(part.shape[1]), rtol=0, atol=1e-4)
        torch.testing.assert_close(part.std(dim=(0, 2, 3), correction=0), torch.ones(part.shape[1]), rtol=0, atol=1e-3)


@pytest.fixture(scope="module")
def three() -> Features:
    """Three strides, their statistics left at zero and one."""
    return Features(Backbone(strides=(4, 8, 16)), input_size=(64, 96))


def test_maps_are_averaged_over_three_by_three_places(three: Features) -> None:
    image = IMAGES[:1]
    plain = three.backbone(image)[2]
    found = three(image)[:, 160:]
    assert three.view == WIDE
    torch.testing.assert_close(found[0, :, 1, 1], plain[0, :, :3, :3].mean(dim=(1, 2)))
    torch.testing.assert_close(found[0, :, 0, 0], plain[0, :, :2, :2].mean(dim=(1, 2)))


def test_every_view_is_made_of_what_is_extracted(three: Features) -> None:
    image = IMAGES[:2]
    four, eight, sixteen = three.backbone(image)
    extracted = three.extract(image)
    assert extracted.shape == (2, 24 * 16 + 40 * 4 + 112, 4, 6)
    fine, places = (three.look(extracted, view) for view in (FINE, PLACES))
    torch.testing.assert_close(fine, torch.cat([torch.pixel_unshuffle(four, 2), eight], dim=1))
    averaged = [torch.nn.functional.avg_pool2d(m, 3, 1, 1, count_include_pad=False) for m in (eight, sixteen)]
    torch.testing.assert_close(places[:, :40], averaged[0])
    torch.testing.assert_close(
        places[:, 40:], torch.nn.functional.interpolate(averaged[1], size=(8, 12), mode="bilinear")
    )
    for view, found in ((FINE, fine), (PLACES, places)):
        assert (found.shape[1], tuple(found.shape[2:])) == three.shape_of(view)


def test_a_backbone_of_one_stride_has_it_in_every_view() -> None:
    made = Features(Backbone(strides=(16,)), input_size=(64, 96))
    extracted = made.extract(IMAGES[:1])
    torch.testing.assert_close(made.look(extracted, FINE), extracted)
    assert made.shape_of(PLACES) == (112, (4, 6))


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


def test_grey_images_are_shown_as_three_equal_channels() -> None:
    made = Features(Backbone(), input_size=(64, 64))
    grey = torch.rand(2, 1, 80, 50)
    torch.testing.assert_close(made(grey), made(grey.expand(-1, 3, -1, -1)))


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"size 72 x 64 is not a multiple of the backbone's stride 16"):
        Features(Backbone(), input_size=(72, 64))
    with pytest.raises(ValueError, match=r"strides are given from fine to coarse, not as \(16, 8\)"):
        Features(Backbone(strides=(16, 8)), input_size=(64, 64))


def test_a_constant_channel_is_not_divided_by_nothing() -> None:
    made = Features(Backbone(), input_size=(64, 64))
    made.standardise([torch.zeros(3, made.channels, *made.size)])
    assert torch.isfinite(made.normalise(torch.ones(1, made.channels, *made.size))).all()


def test_features_can_be_blind_to_exposure() -> None:
    image = torch.rand(2, 1, 64, 64)
    backbone = Backbone()
    plain, blind = (Features(backbone, input_size=(64, 64), standardise=choice) for choice in (False, True))
    torch.testing.assert_close(blind(0.3 * image + 0.1), blind(image), rtol=1e-3, atol=1e-4)
    assert (plain(0.3 * image + 0.1) - plain(image)).abs().max() > 0.1


def test_recentred_features_do_not_see_what_changes_the_whole_image_alike() -> None:
    backbone = Backbone(strides=(4, 8, 16))
    plain, recentred = (Features(backbone, input_size=(64, 96), recentre=choice) for choice in (False, True))
    extracted = plain.extract(IMAGES[:3])
    moved = extracted + torch.randn(1, extracted.shape[1], 1, 1, generator=torch.Generator().manual_seed(1))
    groups = [c * f**2 for c, f in zip(backbone.channels, (4, 2, 1), strict=True)]
    alike = torch.cat(
        [part.mean(dim=1, keepdim=True) + torch.zeros_like(part) for part in extracted.split(groups, 1)], 1
    )
    for view in (WIDE, PLACES, FINE):
        everywhere = recentred.look(extracted + alike.mean(dim=(2, 3), keepdim=True), view)
        torch.testing.assert_close(everywhere, recentred.look(extracted, view), rtol=1e-3, atol=1e-4)
        assert (plain.look(moved, view) - plain.look(extracted, view)).abs().max() > 0.1
    torch.testing.assert_close(recentred.summarise(extracted), plain.summarise(extracted))
    torch.testing.assert_close(plain.summarise(extracted), plain.normalise(extracted).mean(dim=(2, 3)))


def test_features_of_the_whole_image_have_one_place() -> None:
    made = Features(Backbone(strides=(8, 16)), input_size=(64, 96), whole=True)
    fine, coarse = made.backbone(IMAGES[:2])
    extracted = made.extract(IMAGES[:2])
    assert extracted.shape == (2, 40 + 112, 1, 1) == (2, made.channels, *made.size)
    torch.testing.assert_close(extracted[:, :40, 0, 0], fine.mean(dim=(2, 3)))
    torch.testing.assert_close(extracted[:, 40:, 0, 0], coarse.mean(dim=(2, 3)))
    assert made.sum_by_place(torch.ones(2, 152, 1, 1)).tolist() == [[[152.0]], [[152.0]]]
