"""One map and one score of several experts: standardised on good images, small and large areas alike."""

import pytest
import torch
from torch import Tensor

from vaecore.experts.combination import Combination, ExpertScore, LikeImages, PlaceStatistics

SIZE = (20, 20)


def draw_maps(count: int, seed: int) -> Tensor:
    """Maps whose places have means and spreads of their own."""
    generator = torch.Generator().manual_seed(seed)
    shape = torch.Generator().manual_seed(99)
    means, scales = 5 * torch.randn(SIZE, generator=shape), 0.5 + torch.rand(SIZE, generator=shape)
    return means + scales * torch.randn(count, *SIZE, generator=generator)


def combination_of(sizes: list[tuple[int, int]], areas: tuple[float, ...], maps: list[Tensor]) -> Combination:
    """Fitted to good images, none of which is more like one than like another."""
    images = len(maps[0])
    combination = Combination(sizes, [areas] * len(sizes), images=images, dims=1)
    combination.fit(maps, torch.zeros(images, 1))
    return combination


def test_good_images_have_mean_zero_and_spread_one_whatever_the_units() -> None:
    combination = combination_of([SIZE, SIZE], (0.01, 0.1), [draw_maps(500, 0), 100 * draw_maps(500, 1)])
    shown, score, each = combination([draw_maps(500, 2), 100 * draw_maps(500, 3)], torch.zeros(500, 1))
    assert abs(float(shown.mean())) < 0.05
    assert 0.6 < float(shown.std()) < 0.8  # the mean of two that are independent
    assert (each.mean(dim=0).abs() < 0.15).all()
    assert ((each.std(dim=0) - 1).abs() < 0.2).all()
    torch.testing.assert_close(score, each.mean(dim=1))


def test_who_misses_less_weighs_more_and_nobody_is_perfect() -> None:
    combination = Combination([SIZE] * 3, [(0.1,)] * 3, images=2, dims=1)
    combination.weigh([0.9, 0.8, 0.5], 100)
    expected = torch.tensor([0.1, 0.2, 0.5]) ** -8
    torch.testing.assert_close(combination.weights, expected / expected.sum())
    combination.weigh([1.0, 0.999, 0.5], 100)
    assert float(combination.weights[0]) == float(combination.weights[1])


def test_the_first_is_in_every_score() -> None:
    combination = Combination([SIZE] * 3, [(0.1,)] * 3, images=2, dims=1)
    combination.weigh([0.5, 0.9, 0.8], 100)
    missed = torch.tensor([0.1, 0.2]) ** -8
    torch.testing.assert_close(combination.weights[1:], 0.9 * missed / missed.sum())
    assert float(combination.weights[0]) == pytest.approx(0.1)


def test_with_few_images_nobody_weighs_nearly_all() -> None:
    combination = Combination([SIZE] * 3, [(0.1,)] * 3, images=2, dims=1)
    combination.weigh([0.71, 0.65, 0.76], 8)
    assert combination.weights.min() > 0.25
    assert combination.weights.argmax() == 2


def test_maps_of_several_grids_are_shown_on_the_finest() -> None:
    combination = combination_of([(5, 5), SIZE], (0.1,), [torch.randn(50, 5, 5), draw_maps(50, 0)])
    shown, score, each = combination([torch.randn(3, 5, 5), draw_maps(3, 1)], torch.zeros(3, 1))
    assert shown.shape == (3, *SIZE)
    assert score.shape == (3,)
    assert each.shape == (3, 2)


def test_images_of_a_kind_that_always_scores_high_are_not_held_against_it() -> None:
    generator = torch.Generator().manual_seed(0)
    kind = torch.arange(200) % 2  # every second image is of a kind whose maps are higher
    summaries = torch.randn(200, 8, generator=generator) + 6 * kind[:, None]
    maps = draw_maps(200, 0) + 3 * kind[:, None, None]
    combination = Combination([SIZE], [(0.1,)], images=200, dims=8)
    found = combination.fit([maps], summaries)[:, 0]
    without = combination_of([SIZE], (0.1,), [maps])([maps], torch.zeros(200, 1))[1]

    def apart(scores: Tensor) -> float:
        return float(scores[kind == 1].mean() - scores[kind == 0].mean()) / float(scores[kind == 0].std())

    assert apart(found) < 0.6 * apart(without)


def test_what_is_expected_of_a_good_image_is_told_by_the_others() -> None:
    summaries, scores = torch.tensor([[0.0], [1.0], [5.0]]), torch.tensor([[1.0], [2.0], [3.0]])
    like = LikeImages(3, 1, 1)
    told = like.fit(summaries, scores)
    near, far = 1.0**-4, 5.0**-4  # by distance
    torch.testing.assert_close(told[0, 0], torch.tensor((2 * near + 3 * far) / (near + far)), rtol=1e-2, atol=0)
    again = like(summaries)  # the same image once more is like itself
    torch.testing.assert_close(again, scores, rtol=1e-3, atol=0)


def test_a_defect_among_the_good_images_excuses_no_other() -> None:
    generator = torch.Generator().manual_seed(0)
    summaries, scores = torch.randn(100, 4, generator=generator), torch.randn(100, 1, generator=generator)
    scores[17] = 50.0
    like = LikeImages(100, 4, 1)
    like.fit(summaries, scores)
    assert 2.0 < float(like(summaries[17:18])) < 4.0


def test_a_small_strong_and_a_large_weak_defect_are_both_found() -> None:
    combination = ExpertScore(SIZE, (0.01, 0.1))
    combination.fit(draw_maps(300, 0))
    highest_good = float(combination(draw_maps(200, 1))[1].max())
    small, large = draw_maps(20, 2), draw_maps(20, 3)
    small[:, 4, 4:7] += 8.0
    large[:, :12, :12] += 1.2
    assert (combination(small)[1] > highest_good).float().mean() > 0.9
    assert (combination(large)[1] > highest_good).float().mean() > 0.9


def test_few_images_of_a_texture_have_the_same_statistics_everywhere() -> None:
    statistics = PlaceStatistics(SIZE)
    statistics.fit(torch.randn(5, *SIZE, generator=torch.Generator().manual_seed(0)))
    assert float(statistics.mean.std()) < 0.1  # by chance: 0.45
    assert float(statistics.scale.std()) < 0.1


def test_maps_that_never_change_divide_by_nothing() -> None:
    expert = ExpertScore(SIZE, (0.1,))
    expert.fit(torch.ones(10, *SIZE))
    shown, score = expert(torch.ones(3, *SIZE))
    assert shown.abs().max() < 1e-3
    assert score.abs().max() < 1e-3
