"""The split of images that standardise the score of a deep VAE: others judge it."""

from __future__ import annotations

from pipelines.data.splits import choose_scale

DIGESTS = [f"{number:064x}" for number in range(200)]


def test_half_of_the_select_split_standardises() -> None:
    select = range(10, 110)
    scale = choose_scale(select, DIGESTS)
    assert set(scale) < set(select)
    assert 35 <= len(scale) <= 65


def test_an_image_keeps_its_part_as_the_folder_grows() -> None:
    before, after = choose_scale(range(50), DIGESTS), choose_scale(range(120), DIGESTS)
    assert set(before) == set(after) & set(range(50))


def test_few_images_leave_some_to_judge() -> None:
    for first in range(0, 190, 4):
        assert len(choose_scale(range(first, first + 4), DIGESTS)) in {2, 3}


def test_pieces_stay_together() -> None:
    pieces = [str(number // 5) for number in range(200)]
    scale = choose_scale(range(100), DIGESTS, pieces)
    assert 0 < len(scale) < 100
    assert not {pieces[index] for index in scale} & {pieces[index] for index in set(range(100)) - set(scale)}


def test_a_single_piece_is_divided_all_the_same() -> None:
    assert 2 <= len(choose_scale(range(8), DIGESTS, ["one"] * 200)) < 8
