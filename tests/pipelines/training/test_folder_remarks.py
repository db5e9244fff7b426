"""A person is told of images that are not like the others, and of several products in one folder; else of nothing."""

import numpy as np

from pipelines.anomaly.odd_scores import find_odd
from pipelines.training.folder_remarks import find_kinds, remark_on


def test_a_few_defects_among_good_images_are_named_highest_first() -> None:
    generator = np.random.default_rng(0)
    scores = generator.normal(size=200)
    scores[[7, 90]] = 8.0, 20.0
    names = [f"{number:03}.png" for number in range(200)]
    assert find_odd(scores) == [90, 7]
    (told,) = remark_on(names, scores, None, 0.05)
    assert told.startswith("2 of 200 good images look unlike the others: 090.png, 007.png. Look at them")
    assert "set the threshold" not in told


def test_it_is_said_where_odd_images_set_the_threshold() -> None:
    scores = np.random.default_rng(0).normal(size=200)
    scores[:30] = 20 - 0.1 * np.arange(30)
    (told,) = remark_on([f"{number:03}.png" for number in range(200)], scores, None, 0.05)
    assert "018.png, 019.png and 10 more. Look at them" in told
    assert "With 5 % of good images allowed to be flagged, such images set the threshold" in told


def test_good_images_alone_are_not_remarked_on_and_too_few_say_nothing() -> None:
    generator = np.random.default_rng(1)
    for count in (5, 50, 1000):
        assert remark_on(["x"] * count, generator.normal(size=count), generator.normal(size=(count, 40)), 0.01) == []
    assert find_odd([0.0] * 10 + [50.0]) == []


def test_two_products_in_one_folder_are_noticed_and_a_continuum_is_not() -> None:
    generator = np.random.default_rng(2)
    common = generator.normal(size=(120, 40))
    two = common + 4 * (np.arange(120) % 3 == 0)[:, None]
    kinds = find_kinds(two)
    assert kinds is not None
    assert kinds.tolist() == [1 if number % 3 == 0 else 0 for number in range(120)]
    (told,) = remark_on([f"{number}.png" for number in range(120)], generator.normal(size=120), two, 0.01)
    assert "2 products: 80 like 1.png; 40 like 0.png" in told
    assert find_kinds(common + 4 * np.linspace(0, 1, 120)[:, None]) is None
    assert find_kinds(np.ones((60, 40))) is None
