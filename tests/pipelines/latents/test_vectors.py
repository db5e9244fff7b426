"""Vectors on disk: the same numbers as in memory, wherever a file begins to hold them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipelines.latents import vectors as module
from pipelines.latents.vectors import StoredVectors, first_of_equals, mean_of, mean_square_of


@pytest.mark.parametrize("limit", [0, 300, 10_000])
def test_rows_are_those_that_were_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    monkeypatch.setattr(module, "IN_MEMORY", limit)
    monkeypatch.setattr(module, "ROWS", 4)
    random = np.random.default_rng(0)
    rows = random.normal(size=(37, 5)).astype(np.float32)
    with StoredVectors(5, tmp_path) as stored:
        assert (len(stored), stored[:].shape) == (0, (0, 5))
        for start in range(0, 37, 6):
            stored.add(rows[start : start + 6])
            np.testing.assert_array_equal(stored[start : start + 3], rows[start : start + 3])
        assert stored.shape == (37, 5)
        np.testing.assert_array_equal(stored[30:99], rows[30:])
        np.testing.assert_array_equal(stored[50:99], rows[50:])
        np.testing.assert_array_equal(stored[np.array([36, 0, 7, 7])], rows[[36, 0, 7, 7]])
        np.testing.assert_allclose(mean_of(stored), rows.mean(axis=0), rtol=1e-5)
        np.testing.assert_allclose(mean_square_of(stored, mean_of(stored)), rows.var(axis=0), rtol=1e-5)
    assert list(tmp_path.iterdir()) == []


def test_of_equal_vectors_the_first_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROWS", 7)
    random = np.random.default_rng(0)
    rows = random.integers(-1, 2, (500, 4)).astype(np.float32)
    rows[3], rows[400] = [0.0, 1.0, 0.0, 1.0], [-0.0, 1.0, 0.0, 1.0]
    expected = np.sort(np.unique(rows + 0.0, axis=0, return_index=True)[1])
    np.testing.assert_array_equal(first_of_equals(rows), expected)
    near = np.float32(1) + np.arange(4096, dtype=np.float32)[:, None] * np.float32(2**-23)
    assert len(first_of_equals(near)) == 4096
