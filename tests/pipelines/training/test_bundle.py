"""What the exported file says of itself."""

from __future__ import annotations

import pytest

from pipelines.models.model_file import ModelFile, sha256_of
from pipelines.models.session import Session
from pipelines.training.bundle import grid_of
from pipelines.training.calibrate import places_in
from vaecore.graphs.scoring import ScoringGraph
from vaecore.likelihoods import GaussianLikelihood
from vaecore.networks import BottleneckVAE, ConvVAE
from vaecore.representations import Features, Pixels, Representation
from vaecore.representations.backbones import Backbone
from vaecore.representations.image_format import ImageFormat


@pytest.mark.parametrize(
    ("representation", "grid"),
    [
        (Features(Backbone(strides=(8, 16)), input_size=(64, 96)), (8, 12)),
        (Pixels(channels=3, size=(10, 20)), (10, 20)),
    ],
    ids=["features", "pixels"],
)
def test_places_are_those_of_the_maps_own_grid(representation: Representation, grid: tuple[int, int], trained) -> None:
    network = ConvVAE if isinstance(representation, Pixels) else BottleneckVAE
    model = network(
        channels=representation.channels, size=representation.size, likelihood=GaussianLikelihood(), stages=1
    )
    assert grid_of(ScoringGraph(model, ImageFormat(channels=3, bit_depth=8), representation)) == grid
    metadata = Session(ModelFile(path=trained.model, sha256=sha256_of(trained.model), ref="x"), device="cpu").metadata
    assert metadata.places == metadata.size == (48, 40)
    assert places_in(metadata.model_copy(update={"places": grid})) == grid[0] * grid[1]
    older = metadata.model_copy(update={"places": None, "size": (64, 96), "strides": (8, 16)})
    assert places_in(older) == 8 * 12
