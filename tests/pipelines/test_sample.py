"""Images that models make up: from their own prior, the same each time; and what makes none says so."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from pipelines.errors import FolderError, ModelError
from pipelines.models.model_file import Metadata, ModelFile
from pipelines.sample import sample_images, sheet_of
from vaecore.graphs.scoring import ScoringGraph
from vaecore.likelihoods import BernoulliLikelihood
from vaecore.networks import ConvVAE
from vaecore.priors import Autoencoder, MixturePrior
from vaecore.representations import Pixels
from vaecore.representations.image_format import ImageFormat


@pytest.fixture
def model_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Say which network the model is, without training it."""

    def model_is(wrapped: Callable[[nn.Module], nn.Module], *, drawable: bool = True, bit_depth: int = 8) -> None:
        torch.manual_seed(0)
        network = ConvVAE(channels=1, size=(16, 16), likelihood=BernoulliLikelihood(), latent_channels=3, stages=2)
        pixels = Pixels(channels=1, size=(16, 16), levels=1)
        pixels.drawable = drawable
        graph = ScoringGraph(wrapped(network), ImageFormat(channels=1, bit_depth=bit_depth), pixels).eval()
        file = ModelFile(path=tmp_path / "model.onnx", sha256="0" * 64, ref="bars/1")
        monkeypatch.setattr("pipelines.sample.find_model", lambda _: file)
        monkeypatch.setattr("pipelines.sample.kind_of", lambda _: Metadata)
        monkeypatch.setattr("pipelines.sample.load_network", lambda _: graph)

    return model_is


def pixels_of(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def test_samples_are_files_and_a_sheet_and_repeat(model_is: Callable[..., None], tmp_path: Path) -> None:
    model_is(lambda network: network)
    out = tmp_path / "samples"
    assert sample_images("bars@champion", 10, out) == out / "sheet.png"
    images = [pixels_of(out / f"{number:04}.png") for number in range(10)]
    assert all(image.shape == (16, 16) and image.dtype == np.uint8 for image in images)
    assert len({image.tobytes() for image in images}) == 10
    sheet = pixels_of(out / "sheet.png")
    assert sheet.shape == (3 * 18 - 2, 4 * 18 - 2)
    np.testing.assert_array_equal(sheet[18:34, 36:52], images[6])

    sample_images("bars@champion", 2, tmp_path / "again")
    assert (tmp_path / "again" / "0001.png").read_bytes() == (out / "0001.png").read_bytes()
    sample_images("bars@champion", 2, tmp_path / "others", seed=2**62)
    assert (tmp_path / "others" / "0001.png").read_bytes() != (out / "0001.png").read_bytes()


def test_a_folder_of_others_is_left_alone_and_an_own_one_emptied(model_is: Callable[..., None], tmp_path: Path) -> None:
    model_is(lambda network: network)
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "0000.png").write_bytes(b"a photograph")
    with pytest.raises(FolderError, match="holds other files"):
        sample_images("bars@champion", 2, tmp_path / "own")
    assert (tmp_path / "own" / "0000.png").read_bytes() == b"a photograph"
    sample_images("bars@champion", 5, tmp_path / "out")
    sample_images("bars@champion", 2, tmp_path / "out", seed=3)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "0000.png",
        "0001.png",
        "samples.json",
        "sheet.png",
    ]
    assert json.loads((tmp_path / "out" / "samples.json").read_text())["seed"] == 3


def test_images_of_another_model_are_not_replaced_silently(
    model_is: Callable[..., None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model_is(lambda network: network)
    sample_images("bars@champion", 2, tmp_path / "out")
    sample_images("bars@champion", 2, tmp_path / "out")
    assert not caplog.records
    account = tmp_path / "out" / "samples.json"
    account.write_text(account.read_text().replace("0" * 64, "1" * 64).replace("bars/1", "tiles/7"))
    sample_images("bars@champion", 2, tmp_path / "out")
    assert "holds results of tiles/7, which are replaced" in caplog.text
    account.write_text("[]")
    sample_images("bars@champion", 2, tmp_path / "out")


def test_a_model_that_mends_makes_up_nothing(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="builtin:denoise restores images: only anomaly models of pixels can draw"):
        sample_images("builtin:denoise", 2, tmp_path / "x")


def test_latents_are_drawn_from_the_model_s_own_prior(model_is: Callable[..., None], tmp_path: Path) -> None:
    """A mixture whose two narrow components decode to two images: nothing else is drawn."""

    def narrow(network: nn.Module) -> nn.Module:
        mixture = MixturePrior(network, components=1)
        with torch.no_grad():
            mixture.mean.fill_(3.0)
            mixture.log_scale.fill_(-5.0)
        return mixture

    model_is(narrow, bit_depth=16)
    sample_images("bars@champion", 3, tmp_path / "out")
    images = [pixels_of(tmp_path / "out" / f"{number:04}.png").astype(int) for number in range(3)]
    assert max(np.abs(image - images[0]).max() for image in images) < 0.02 * 65535
    assert images[0].max() > 255, "sixteen bits stay"


def test_what_makes_no_images_says_so(model_is: Callable[..., None], tmp_path: Path) -> None:
    model_is(Autoencoder)
    with pytest.raises(ModelError, match="bars/1 is an autoencoder: it has no prior"):
        sample_images("bars@champion", 2, tmp_path / "x")
    model_is(lambda network: network, drawable=False)
    with pytest.raises(ModelError, match="bars/1 is a model of features"):
        sample_images("bars@champion", 2, tmp_path / "x")
    assert not (tmp_path / "x").exists()
    model_is(lambda network: network)
    (tmp_path / "file").touch()
    with pytest.raises(FolderError, match="is a file"):
        sample_images("bars@champion", 2, tmp_path / "file")


def test_a_sheet_has_white_between_images_and_where_none_is() -> None:
    sheet = sheet_of([np.full((3, 5, 1), value, np.uint8) for value in (10, 20, 30)])
    assert sheet.shape == (8, 12, 1)
    assert sheet[:3, :5].max() == 10
    assert sheet[:3, 7:].max() == 20
    assert sheet[5:, :5].max() == 30
    assert (sheet[3:5] == 255).all()
    assert (sheet[5:, 7:] == 255).all()
