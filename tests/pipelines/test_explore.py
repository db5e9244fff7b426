"""What a model believes: which images and latents are shown, how they are laid out, and what cannot be shown."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from typer.testing import CliRunner

from flows.cli import app
from pipelines.anomaly.calibration import Calibration
from pipelines.errors import DataError, EmptyFolderError, FolderError, ModelError
from pipelines.explore import explore_model
from pipelines.images import ImageFile
from pipelines.latents import posteriors, sections
from pipelines.latents.posteriors import (
    Codes,
    choose_far_pairs,
    correlate,
    encode_folder,
    project_to_plane,
    rank_by_elbo,
)
from pipelines.latents.sheets import find_prior, make_sheet, make_sprite, standard_quantiles, traverse
from pipelines.models.model_file import Metadata, ModelFile
from pipelines.report.explore_page import COLOURS, lay_out_bars, lay_out_points
from vaecore.aggregate import AggregateKl, Estimate
from vaecore.bound import DiagonalGaussian
from vaecore.graphs.scoring import ScoringGraph
from vaecore.likelihoods import BernoulliLikelihood
from vaecore.networks import ClassPrior, ConvVAE, TwoLevelVAE
from vaecore.priors import MixturePrior
from vaecore.representations import Pixels
from vaecore.representations.image_format import ImageFormat


def graph_of(wrap: Callable[[nn.Module], nn.Module] = lambda network: network, *, vector: bool = True) -> ScoringGraph:
    torch.manual_seed(0)
    network = ConvVAE(
        channels=1, size=(16, 16), likelihood=BernoulliLikelihood(), latent_channels=2, stages=2, width=4,
        latent_grid=not vector,
    )  # fmt: skip
    return ScoringGraph(
        wrap(network), ImageFormat(channels=1, bit_depth=8), Pixels(channels=1, size=(16, 16), levels=1)
    )


def codes_of(means: np.ndarray, labels: Sequence[str] = (), elbo: Sequence[float] = ()) -> Codes:
    count = len(means)
    names = [f"{label}/{number}.png" for number, label in enumerate(labels or [""] * count)]
    mean = torch.tensor(means, dtype=torch.float32)[:, :, None, None]
    return Codes(
        [ImageFile(Path(name), name.lstrip("/"), 0, 0) for name in names], [], count,
        DiagonalGaussian(mean, torch.full_like(mean, -2.0)), np.array(elbo or range(count), float),
        np.zeros((means.shape[1], 1, 1)), [np.zeros((4, 4, 3), np.uint8)] * count,
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(12):
        (tmp_path / "images" / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        pixels = np.zeros((16, 16), np.uint8)
        pixels[number : number + 4, 4:12] = 255
        Image.fromarray(pixels).save(tmp_path / "images" / "ab"[number % 2] / f"{number}.png")
    return tmp_path / "images"


@pytest.fixture
def bars_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = ModelFile(path=tmp_path / "model.onnx", sha256="0" * 64, ref="bars/1", name="bars", version="1")
    (tmp_path / "job.toml").write_text('name = "bars"\ntask = "reconstruct"\n[data]\ntrain = "."\n')
    monkeypatch.setattr("pipelines.explore.find_model", lambda _: file)
    monkeypatch.setattr("pipelines.explore.kind_of", lambda _: Metadata)
    monkeypatch.setattr("pipelines.explore.load_network", lambda _: graph_of())


def test_what_cannot_be_explored_says_so(bars_model, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FolderError, match="is a file; give a folder"):
        explore_model("bars@champion", tmp_path / "file")
    with pytest.raises(FolderError, match="holds other files"):
        explore_model("bars@champion", folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(EmptyFolderError, match="no images under"):
        explore_model("bars@champion", tmp_path / "out", images=tmp_path / "empty")
    (tmp_path / "empty" / "x.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"none of 1 images under .* can be read; the first: "):
        explore_model("bars@champion", tmp_path / "out", images=tmp_path / "empty")
    assert not (tmp_path / "out").exists()


def test_a_model_that_mends_believes_nothing_of_this_kind(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="builtin:denoise restores images: only anomaly models can be explored"):
        explore_model("builtin:denoise", tmp_path / "out")


def test_the_command_names_the_page_and_ends_with_3_where_files_cannot_be_read(
    bars_model, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    done = CliRunner().invoke(app, ["explore", "bars@champion", "--out", str(out), "--images", str(folder)])
    assert (done.exit_code, done.stdout.splitlines()[-1]) == (0, f"page: {out / 'explore.html'}")
    (folder / "<b>x.png").write_bytes(b"")
    (folder / "<b>y.nef").write_bytes(b"x")
    done = CliRunner().invoke(app, ["explore", "bars@champion", "--out", str(out), "--images", str(folder)])
    assert done.exit_code == 3
    assert "1 of 13 files could not be read" in done.output
    page = (out / "explore.html").read_text()
    assert "<b>" not in page
    assert "<h2>Files left out</h2>" in page
    assert [row["suffix"] for row in json.loads((out / "explore.json").read_text())["left_out"]] == [".nef"]


@pytest.mark.parametrize(("bound", "strange"), [(-1e9, False), (1e9, True)])
def test_images_strange_to_the_model_are_told(
    bars_model, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, bound: float, *, strange: bool
) -> None:
    """Strange is what fits worse than what the model was calibrated on, here by far or not at all."""
    statistics = {"rate": (0.0,) * 30, "distortion": (-bound,) * 30}
    known = Calibration(model_sha256="0" * 64, scores=(1.0,) * 30, map_quantiles={}, statistics=statistics)
    (tmp_path / "calibration.json").write_text(known.model_dump_json())
    page = explore_model("bars@champion", tmp_path / "out", images=folder).page.read_text()
    assert ("These images are unlike the training images" in page) == strange
    assert ("100 % of the images fit bars/1 worse" in caplog.text) == strange
    told = json.loads((tmp_path / "out" / "explore.json").read_text())
    assert told["unlike_calibration"] == float(strange)


@pytest.mark.parametrize(("found", "even", "says"), [
    (2.0, 0.1, "more than chance"), (0.003, 0.012, "none"), (40.0, 39.0, "too few images"), (40.0, None, "unknown"),
])  # fmt: skip
def test_a_divergence_is_told_with_what_chance_makes_of_it(found: float, even: float | None, says: str) -> None:
    def both(value: float) -> AggregateKl:
        return AggregateKl(Estimate(value, 0.01), Estimate(value, 0.01))

    told = sections._compare(both(found), None if even is None else both(even), "forward")
    assert (told["says"], told["value"], told["even"]) == (says, found, even)


def test_each_class_has_a_row_of_images() -> None:
    graph = graph_of(lambda network: ClassPrior(network, 3))
    with torch.no_grad():
        graph.model.mean[2] = 5.0
    shown = sections.show_samples(graph, ("cat", "dog\x1b[2J", "eel"))
    assert shown["count"] == 36
    assert shown["classes"][0] == "cat"
    assert "\x1b" not in shown["classes"][1]
    assert shown["picture"].height < shown["picture"].width / 3.5
    assert sections.show_samples(graph_of(), ())["count"] == 60


@pytest.mark.parametrize("latents", [1, 3])
def test_images_that_are_all_the_same_are_one_point(latents: int) -> None:
    """t-SNE would end the process, or fail where there is one latent."""
    points, how = project_to_plane(codes_of(np.full((20, latents), 0.3)))
    assert how == "principal components"
    np.testing.assert_allclose(points, 0, atol=1e-6)
    spread, _ = project_to_plane(codes_of(np.arange(20.0 * latents).reshape(20, latents)))
    assert np.isfinite(spread).all()
    assert spread.shape == (20, 2)


def test_many_images_are_taken_evenly_and_the_page_says_so(
    bars_model, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(posteriors, "MOST_IMAGES", 5)
    codes = encode_folder(graph_of(), folder)
    assert (codes.found, len(codes.files)) == (12, 5)
    assert set(codes.labels) == {"a", "b"}
    page = explore_model("bars@champion", tmp_path / "out", images=folder).page.read_text()
    assert "The folder holds 12 images. This page uses 5 of them, spread evenly" in " ".join(page.split())


def test_latents_in_use_are_those_whose_mean_varies() -> None:
    generator = np.random.default_rng(0)
    codes = codes_of(generator.normal(size=(200, 3)) * [1.0, 0.2, 0.05])
    assert codes.active.ravel().tolist() == [True, True, False]
    np.testing.assert_allclose(codes.variances.ravel(), codes.means.var(axis=0), rtol=1e-5)
    found = correlate(codes, [0, 1])
    np.testing.assert_allclose(found, np.corrcoef(codes.means[:, :2].T), atol=1e-9)


def test_two_latents_are_shown_as_they_are_and_more_by_neighbours() -> None:
    generator = np.random.default_rng(0)
    two = codes_of(generator.normal(size=(30, 2)))
    np.testing.assert_array_equal(project_to_plane(two)[0], two.means)
    far = np.concatenate([generator.normal(size=(20, 5)), 50 + generator.normal(size=(20, 5))])
    placed, how = project_to_plane(codes_of(far))
    assert how == "t-SNE"
    within = np.linalg.norm(placed[:20] - placed[:20].mean(axis=0), axis=1).max()
    assert within < np.linalg.norm(placed[:20].mean(axis=0) - placed[20:].mean(axis=0))
    assert project_to_plane(codes_of(far[:3]))[1] == "principal components"
    assert project_to_plane(codes_of(far[:1]))[0].shape == (1, 2)


def test_pairs_are_of_labels_far_apart_or_of_the_farthest_images() -> None:
    line = np.array([[0.0, 0], [1, 0], [9, 0], [10, 0], [4, 0], [5, 0]])
    assert choose_far_pairs(codes_of(line), 2) == [(0, 3), (1, 2)]
    labels = ["x", "x", "y", "y", "z", "z"]
    (pair,) = choose_far_pairs(codes_of(line, labels), 4)
    assert {labels[i] for i in pair} == {"x", "y"}
    assert choose_far_pairs(codes_of(line[:1]), 4) == []


def test_no_image_is_both_among_the_best_and_the_worst() -> None:
    codes = codes_of(np.zeros((10, 2)), elbo=[5, 1, 9, 3, 7, 0, 8, 2, 6, 4])
    found = rank_by_elbo(codes, 8)
    assert found == {"best": [2, 6, 4], "median": [8, 0, 9], "worst": [5, 1, 7]}
    assert rank_by_elbo(codes_of(np.zeros((2, 2))), 8) == {"best": [1, 0]}


def test_one_latent_moves_and_the_others_stay() -> None:
    graph = graph_of()
    base = torch.tensor([0.5, -1.5])[None, :, None, None]
    z = traverse(graph, base, find_prior(graph, base, None), [1, 0], 7)[:, :, 0, 0]
    assert z[:7, 0].tolist() == [0.5] * 7
    torch.testing.assert_close(z[:7, 1], torch.linspace(-3, 3, 7))
    torch.testing.assert_close(z[7:, 0], torch.linspace(-3, 3, 7))
    shifted = graph_of(lambda network: MixturePrior(network, 1))
    with torch.no_grad():
        shifted.model.mean.fill_(5.0)
        shifted.model.log_scale.fill_(-1.0)
    prior = find_prior(shifted, base, None)
    torch.testing.assert_close(prior.mean.flatten(), torch.full((2,), 5.0), atol=0.02, rtol=0)
    torch.testing.assert_close(prior.log_scale.flatten(), torch.full((2,), -1.0), atol=0.02, rtol=0)


def test_what_moves_on_the_upper_level_shows_in_the_lower_one() -> None:
    graph = graph_of(TwoLevelVAE, vector=False)
    for parameter in graph.model.to_prior.parameters():
        nn.init.normal_(parameter, std=0.3)
    base = torch.zeros(1, *graph.network.latent_shape)
    upper = graph.model.lower_channels * 16
    z = traverse(graph, base, find_prior(graph, base, None), [0, upper], 5)
    assert z[:5, 1:].abs().max() == 0
    assert z[5:, : graph.model.lower_channels].std(dim=0).min() > 0


def test_sheets_are_clear_between_images_and_a_map_has_no_gaps() -> None:
    graph, images = graph_of(), torch.rand(5, 1, 6, 8)
    sheet = make_sheet(graph, images, 3)
    assert (sheet.width, sheet.height) == (3 * 8 + 4, 2 * 6 + 2)
    assert sheet.png.startswith(b"\x89PNG")
    assert (make_sheet(graph, images[:4], 2, gap=0).width, make_sheet(graph, images[:4], 2, gap=0).height) == (16, 12)
    assert make_sprite([np.zeros((4, 4, 3), np.uint8)] * 5, 3).startswith(b"\xff\xd8")
    steps = standard_quantiles(15)
    assert steps[7] == pytest.approx(0, abs=1e-12)
    assert steps[-1] == pytest.approx(1.8339, abs=1e-4)  # of 0.9667


def test_points_keep_their_shape_and_rare_labels_share_a_colour() -> None:
    points = np.array([[-1.0, -1.0], [1.0, 1.0], [0.0, 2.0]])
    drawn = lay_out_points(points, ["a", "b", "b"], "latents", standard=True)
    (ax, ay, _), (bx, by, _) = drawn.groups[0].points[0], drawn.groups[1].points[0]
    assert (bx - ax) == pytest.approx(ay - by, abs=0.2), "the second latent grows upwards, at the same scale"
    assert drawn.rings[0] == pytest.approx((bx - ax) / 2, abs=0.2)
    labels = [str(number) for number in range(30)] + ["10"] * 5
    many = lay_out_points(np.random.default_rng(0).normal(size=(35, 2)), labels, "t-SNE", standard=False)
    assert len(many.groups) == COLOURS
    assert many.groups[-1].name == "21 others"
    assert sum(len(group.points) for group in many.groups) == 35
    assert [group.name for group in many.groups[:-1]] == sorted((g.name for g in many.groups[:-1]), key=int)


def test_bars_fall_and_say_what_they_are() -> None:
    drawn = lay_out_bars([0.1, 2.0, -0.01], [False, True, False], ["1", "2", "3"], "nats")
    assert [bar.name for bar in drawn] == ["2", "1", "3"]
    assert drawn[0].tip == "latent 2: 2 nats, in use"
    assert drawn[0].height > drawn[1].height > drawn[2].height > 0


def test_the_page_without_a_script_shows_everything_but_the_names(bars_model, folder: Path, tmp_path: Path) -> None:
    page = explore_model("bars@champion", tmp_path / "out", images=folder).page.read_text()
    assert len(re.findall(r"<circle [^>]*data-i", page)) == 12
    assert "<noscript>" not in page
