"""The paired bootstrap: figures against scikit-learn's, intervals against closed forms."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from pipelines.bench.false_alarm_rates import recall_at
from pipelines.bench.paired_bootstrap import DRAWS, compare, sample_figures


def scored(good: Sequence[float], bad: Sequence[float]) -> dict[str, float]:
    named = {f"good/{index:04}.png": float(score) for index, score in enumerate(good)}
    return named | {f"crack/{index:04}.png": float(score) for index, score in enumerate(bad)}


def draw(seed: int, good: int = 40, bad: int = 30, shift: float = 1.0) -> dict[str, float]:
    generator = np.random.default_rng(seed)
    return scored(generator.normal(size=good).round(1), generator.normal(shift, size=bad).round(1))  # with ties


def test_figures_on_the_images_themselves() -> None:
    row = draw(0)
    found = sample_figures("tiles", {"a": [row]})["a"]
    good, bad = ([score for path, score in row.items() if path.startswith(label)] for label in ("good", "crack"))
    assert found["image_auroc"][0] == pytest.approx(roc_auc_score([0] * len(good) + [1] * len(bad), [*good, *bad]))
    assert found["recall"][0] == pytest.approx(recall_at(good, bad, 0.05))
    assert found["recall"].shape == found["image_auroc"].shape == (1 + DRAWS,)


def test_figures_of_a_draw_are_those_of_the_images_in_it() -> None:
    """A draw is undone by its counts: the same images, written out as often as they were drawn."""
    row = draw(1, good=12, bad=9)
    found = sample_figures("tiles", {"a": [row]})["a"]
    generator = np.random.default_rng([0, *b"tiles"])
    counts = [generator.multinomial(n, np.full(n, 1 / n), size=DRAWS) for n in (12, 9)]
    good, bad = (np.array([row[path] for path in sorted(row) if path.startswith(label)]) for label in ("good", "crack"))
    for index in (0, 1, 2, DRAWS - 1):
        drawn = np.repeat(good, counts[0][index]), np.repeat(bad, counts[1][index])
        labels = [0] * 12 + [1] * 9
        assert found["image_auroc"][1 + index] == pytest.approx(roc_auc_score(labels, np.concatenate(drawn)))
        assert found["recall"][1 + index] == pytest.approx(recall_at(*drawn, 0.05))


def test_the_interval_of_a_difference_of_shares_has_the_binomials_width() -> None:
    """One row finds every defect, the other 60 of 100: the difference is a share, whose error is known."""
    rows = {
        "ours": [scored([0.0] * 50, [1.0] * 100)],
        "other": [scored([0.0] * 50, [1.0] * 60 + [-1.0] * 40)],
    }
    found = compare({"tiles": sample_figures("tiles", rows)})
    assert found is not None
    assert (found["subject"], found["draws"], found["rate"]) == ("ours", 2000, 0.05)
    figure = found["rows"]["other"]["sets"]["tiles"]["image_auroc"]
    assert figure["difference"] == pytest.approx(0.4)
    reach = 1.96 * math.sqrt(0.4 * 0.6 / 100)
    assert figure["low"] == pytest.approx(0.4 - reach, abs=0.015)
    assert figure["high"] == pytest.approx(0.4 + reach, abs=0.015)


def test_the_mean_over_sets_has_the_error_of_independent_sets() -> None:
    rows = {
        "ours": [scored([0.0] * 50, [1.0] * 100)],
        "other": [scored([0.0] * 50, [1.0] * 60 + [-1.0] * 40)],
    }
    names = ("a", "b", "c", "d")
    found = compare({name: sample_figures(name, rows) for name in names})
    assert found is not None
    mean = found["rows"]["other"]["mean"]["image_auroc"]
    single = found["rows"]["other"]["sets"]["a"]["image_auroc"]
    assert mean["difference"] == pytest.approx(0.4)
    assert mean["high"] - mean["low"] == pytest.approx((single["high"] - single["low"]) / 2, rel=0.1)


def test_rows_that_rank_alike_do_not_differ_in_any_draw() -> None:
    row = draw(2)
    other = {path: math.exp(score) for path, score in row.items()}
    found = compare({"tiles": sample_figures("tiles", {"ours": [row], "same": [other]})})
    assert found is not None
    figures = found["rows"]["same"]["sets"]["tiles"]
    assert figures["image_auroc"] == figures["recall"] == {"difference": 0.0, "low": 0.0, "high": 0.0}


def test_the_figure_of_several_seeds_is_their_mean() -> None:
    seeds = [draw(seed) for seed in range(3)]
    together = sample_figures("tiles", {"a": seeds})["a"]
    apart = [sample_figures("tiles", {"a": [each]})["a"] for each in seeds]
    np.testing.assert_allclose(together["image_auroc"], np.mean([each["image_auroc"] for each in apart], axis=0))


def test_rows_are_compared_on_the_images_that_all_have() -> None:
    row = draw(3)
    less = {path: score for path, score in row.items() if not path.endswith("0001.png")}
    found = sample_figures("tiles", {"ours": [row], "less": [less]})
    assert found["ours"]["image_auroc"].tolist() == found["less"]["image_auroc"].tolist()


def test_without_two_rows_or_two_labels_there_is_nothing_to_compare() -> None:
    assert compare({"tiles": sample_figures("tiles", {"ours": [draw(0)], "failed": []})}) is None
    assert sample_figures("tiles", {"ours": [{"good/1.png": 0.0}]}) == {}
    assert sample_figures("tiles", {"failed": []}) == {}


def test_without_ours_the_first_row_is_the_subject_and_a_row_counts_where_it_is() -> None:
    sets = {
        "a": sample_figures("a", {"knn": [draw(0)], "padim": [draw(1)]}),
        "b": sample_figures("b", {"knn": [draw(2)], "padim": []}),
    }
    found = compare(sets)
    assert found is not None
    assert found["subject"] == "knn"
    assert set(found["rows"]["padim"]["sets"]) == {"a"}
    assert found["rows"]["padim"]["mean"] == found["rows"]["padim"]["sets"]["a"]
