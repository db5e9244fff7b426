"""What the exported file says of itself."""

from __future__ import annotations

import pytest

from pipelines.models.model_file import ModelFile, sha256_of
from pipelines.models.session import Session
from pipelines.training.bundle import grid_of, places_in
from vaecore.representations import Features, Pixels, Representation
from vaecore.representations.backbones import Backbone


@pytest.mark.parametrize(
    ("representation", "grid"),
    [
        (Features(Backbone(strides=(8, 16)), input_size=(64, 96)), (8, 12)),
        (Features(Backbone(strides=(8, 16)), input_size=(64, 96), whiten=True), (4, 6)),
        (Pixels(channels=3, size=(10, 20)), (10, 20)),
    ],
    ids=["features", "details", "pixels"],
)
def test_places_are_those_of_the_maps_own_grid(representation: Representation, grid: tuple[int, int], trained) -> None:
    """Whitened features have one place for each of the coarsest stride: more would be claimed than were seen."""
    assert grid_of(representation) == grid
    metadata = Session(ModelFile(path=trained.model, sha256=sha256_of(trained.model), ref="x"), device="cpu").metadata
    assert metadata.places == metadata.size == (48, 40)
    assert places_in(metadata.model_copy(update={"places": grid})) == grid[0] * grid[1]
    older = metadata.model_copy(update={"places": None, "size": (64, 96), "strides": (8, 16)})
    assert places_in(older) == 8 * 12
