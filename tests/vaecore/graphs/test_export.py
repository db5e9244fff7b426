"""Every task and likelihood, exported: torch and ONNX Runtime agree, at any size, and the file holds what it should."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from vaecore.experts import EXPERTS, Batches, ClosedFormLinearVAE, Combination
from vaecore.graphs.export import METADATA_KEY, export_decoder, export_extractor, export_scoring
from vaecore.graphs.scoring import DecoderGraph, ScoringGraph
from vaecore.likelihoods import IMAGE_LIKELIHOODS, DiscretisedLogisticLikelihood
from vaecore.networks import TwoLevelVAE
from vaecore.priors import MixturePrior
from vaecore.representations import WIDE, Features, Pixels, Representation, View
from vaecore.representations.backbones import Backbone
from vaecore.representations.complexity import Typicality
from vaecore.representations.image_format import ImageFormat
from vaecore.tasks import Task, scoring_tasks

SIZE = (32, 24)
CASES = [
    ("pixels", "gaussian", 1, 8, {}),
    ("pixels", "laplace", 3, 8, {}),
    ("pixels", "shared_gaussian", 3, 16, {"latent_grid": False}),
    ("pixels", "discretised_logistic", 1, 16, {}),
    ("pixels", "bernoulli", 1, 8, {"latent_grid": False}),
    ("features", "gaussian", 1, 8, {}),
    ("features", "laplace", 3, 16, {}),
    ("experts", "known_scale", 1, 8, {}),  # features, a linear VAE and all experts
    ("two levels", "gaussian", 1, 8, {}),  # features, scored by the ratio between levels
    ("mixture", "bernoulli", 1, 8, {"latent_grid": False}),  # pixels, with a mixture as prior
    ("exposed", "gaussian", 1, 8, {"latent_grid": False}),  # pixels, of the same brightness and contrast
]


def graph_of(
    task: Task, target: str, name: str, channels: int, bit_depth: int, options: dict[str, bool]
) -> ScoringGraph:
    torch.manual_seed(0)
    image_format = ImageFormat(channels=channels, bit_depth=bit_depth)
    if target == "experts":
        return graph_of_experts(image_format)
    kind = IMAGE_LIKELIHOODS[name]
    discretised = kind is DiscretisedLogisticLikelihood
    likelihood = DiscretisedLogisticLikelihood(levels=image_format.maximum + 1) if discretised else kind()
    representation: Representation
    exposed, levels = target == "exposed", target == "two levels"
    mixture = target == "mixture"
    target = "pixels" if exposed or mixture else "features" if levels else target
    if target == "pixels":
        levels_of_y = {"discretised_logistic": image_format.maximum, "bernoulli": 1}.get(name)
        representation = Pixels(channels=channels, size=SIZE, levels=levels_of_y, standardise=exposed)
    else:
        representation = Features(Backbone(strides=(8, 16)), input_size=(64, 96))
        representation.standardise([representation.extract(torch.rand(4, channels, 64, 96))])
    model = task.targets[target].network(
        channels=representation.channels,
        size=representation.size,
        likelihood=likelihood,
        latent_channels=4,
        width=8,
        stages=2 if target == "pixels" else 1,
        **options,
    )
    model = TwoLevelVAE(model) if levels else MixturePrior(model, 3) if mixture else model
    for parameter in model.parameters():  # away from the zero start of the residual blocks
        # (between levels less so: their ratio is a difference of two bounds, which 32 bits keep only if these are sane)
        torch.nn.init.normal_(parameter, std=0.05 if levels else 0.1)
    if name == "bernoulli":  # as sure as trained networks are of an image's border
        last = [part for part in model.modules() if isinstance(part, torch.nn.Conv2d)][-1]
        last.bias.data += 150 * torch.tensor([1.0, -1.0]).repeat(len(last.bias) // 2)
    kind = "ratio" if levels else "iwae" if name == "shared_gaussian" else "places" if bit_depth == 16 else "elbo"
    typicality = Typicality(torch.rand(20, 2)) if target == "pixels" and name == "laplace" else None
    combination = None
    if kind == "places":
        finest = (8, 12) if target == "features" else SIZE
        combination = Combination([finest], [(0.01, 0.1)], images=5, dims=representation.channels)
        combination.fit([1000 + torch.randn(5, *finest)], torch.randn(5, representation.channels))
    kind = "complexity" if typicality is not None else kind
    return ScoringGraph(
        model, image_format, representation, kind=kind, combination=combination, typicality=typicality
    ).eval()


def graph_of_experts(image_format: ImageFormat) -> ScoringGraph:
    """A linear VAE and every expert, fitted to noise."""
    features = Features(Backbone(strides=(4, 8, 16)), input_size=(64, 96), recentre=True)
    images = torch.rand(12, 1, 64, 96, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        extracted = features.extract(images)
    features.standardise([extracted])

    def looked(view: View) -> Batches:
        return lambda: [features.look(extracted, view)]

    model = ClosedFormLinearVAE(channels=features.channels, size=features.size, latents=4)
    model.fit(looked(WIDE))
    experts = []
    for kind in EXPERTS.values():
        channels, size = features.shape_of(kind.view)
        experts.append(kind(channels=channels, size=size))
        experts[-1].fit(looked(kind.view))
    sizes = [(8, 12), *(features.shape_of(expert.view)[1] for expert in experts)]
    combination = Combination(sizes, [e.areas for e in [experts[0], *experts]], images=12, dims=features.channels)
    graph = ScoringGraph(model, image_format, features, kind="places", experts=experts, combination=combination).eval()
    with torch.no_grad():
        y = features.normalise(extracted)
        maps = graph.maps_by_place(extracted, graph.bound(y, torch.zeros(12, 1, *model.latent_shape)))
        combination.fit(maps, features.summarise(extracted))
    combination.weigh([0.9, 0.8, 0.85, 0.9], 100)
    return graph


def run(path: Path, **inputs: np.ndarray) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, inputs), strict=True))


@pytest.mark.parametrize(
    ("target", "name", "channels", "bit_depth", "options"), CASES, ids=[f"{case[0]}-{case[1]}" for case in CASES]
)
@pytest.mark.parametrize("task_name", scoring_tasks())
def test_torch_and_onnx_runtime_agree(
    task_name: str,
    target: str,
    name: str,
    channels: int,
    bit_depth: int,
    options: dict[str, bool],
    tmp_path: Path,
) -> None:
    task = scoring_tasks()[task_name]
    graph = graph_of(task, target, name, channels, bit_depth, options)
    path = tmp_path / "model.onnx"
    export_scoring(graph, path, {"task": task_name})
    generator = np.random.default_rng(0)
    tolerance = 1e-5 if target == "pixels" else 1e-4
    for count, height, width, samples in ((1, *SIZE, 1), (3, 71, 50, 4), (2, 20, 90, 2), (1, 1, 1, 1)):
        dtype = np.uint8 if bit_depth == 8 else np.uint16
        image = generator.integers(0, graph.image_format.maximum + 1, (count, height, width, channels), dtype=dtype)
        noise = generator.standard_normal((count, samples, *graph.model.latent_shape), dtype=np.float32)
        with torch.no_grad():
            expected = graph(torch.from_numpy(image), torch.from_numpy(noise))
        found = run(path, image=image, noise=noise)
        assert list(found) == list(expected) == list(graph.outputs)
        for output in ("score", "elbo", "rate", "distortion"):
            np.testing.assert_allclose(
                found[output], expected[output].numpy(), rtol=tolerance, atol=1e-6, err_msg=output
            )
        map_tolerance = 1e-3 * max(1.0, float(expected["anomaly_map"].abs().max()))
        np.testing.assert_allclose(found["anomaly_map"], expected["anomaly_map"].numpy(), rtol=1e-3, atol=map_tolerance)
        for output in ("embedding", "embedding_scale"):
            assert found[output].shape == (count, graph.model.latent_shape[0])
            np.testing.assert_allclose(found[output], expected[output].numpy(), rtol=1e-4, atol=1e-4, err_msg=output)
        assert found["anomaly_map"].shape == (count, height, width)
        if target == "pixels":
            assert np.abs(found["restored"].astype(int) - expected["restored"].numpy().astype(int)).max() <= 1
            assert found["restored"].shape == image.shape
            assert found["restored"].dtype == image.dtype


def test_the_scale_of_an_embedding_is_that_of_the_latents_mean() -> None:
    graph = graph_of(scoring_tasks()["reconstruct"], "pixels", "gaussian", 1, 8, {})
    image = torch.randint(0, 256, (2, *SIZE, 1), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        posterior = graph.network.posterior(graph.to_y(image))
        z = posterior.sample(torch.randn((2, 20_000, *graph.network.latent_shape)))
        found = graph(image, torch.zeros(2, 1, *graph.network.latent_shape))
    pooled = z.mean(dim=(3, 4))
    torch.testing.assert_close(found["embedding_scale"], pooled.std(dim=1), rtol=0.03, atol=0)
    torch.testing.assert_close(found["embedding"], pooled.mean(dim=1), rtol=0, atol=0.05)


def test_a_file_made_of_two_parts_gives_the_same_as_one_made_whole(tmp_path: Path) -> None:
    graph = graph_of_experts(ImageFormat(channels=3, bit_depth=8))
    whole, parts, extractor = (tmp_path / f"{name}.onnx" for name in ("whole", "parts", "extractor"))
    export_scoring(graph, whole, {})
    export_extractor(graph.representation, graph.image_format, extractor)
    export_scoring(graph, parts, {}, extractor)
    image = np.random.default_rng(0).integers(0, 256, (2, 70, 50, 3), dtype=np.uint8)
    noise = np.zeros((2, 1, *graph.model.latent_shape), np.float32)
    one, other = run(whole, image=image, noise=noise), run(parts, image=image, noise=noise)
    assert list(one) == list(other) == list(graph.outputs)
    for name, values in one.items():
        np.testing.assert_allclose(values, other[name], rtol=1e-4, atol=1e-4, err_msg=name)
    assert abs(parts.stat().st_size - whole.stat().st_size) < 0.1 * whole.stat().st_size


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[ScoringGraph, Path]:
    graph = graph_of(scoring_tasks()["reconstruct"], "pixels", "gaussian", 1, 8, {})
    path = tmp_path_factory.mktemp("export") / "model.onnx"
    export_scoring(graph, path, {"name": "x", "b": 1, "a": [2]})
    return graph, path


def test_at_the_working_size_the_map_sums_to_minus_the_elbo(exported: tuple[ScoringGraph, Path]) -> None:
    graph, path = exported
    image = np.random.default_rng(1).integers(0, 256, (2, *SIZE, 1), dtype=np.uint8)
    noise = np.random.default_rng(2).standard_normal((2, 3, *graph.model.latent_shape), dtype=np.float32)
    found = run(path, image=image, noise=noise)
    np.testing.assert_allclose(found["anomaly_map"].sum(axis=(1, 2)), -found["elbo"], rtol=1e-5)
    np.testing.assert_allclose(found["distortion"] + found["rate"], -found["elbo"], rtol=1e-6)
    np.testing.assert_allclose(found["score"], -found["elbo"] / graph.representation.dims, rtol=1e-6)


def test_a_score_does_not_depend_on_its_batch(exported: tuple[ScoringGraph, Path]) -> None:
    graph, path = exported
    image = np.random.default_rng(1).integers(0, 256, (5, 40, 40, 1), dtype=np.uint8)
    noise = np.random.default_rng(2).standard_normal((5, 2, *graph.model.latent_shape), dtype=np.float32)
    together = run(path, image=image, noise=noise)["score"]
    alone = [run(path, image=image[i : i + 1], noise=noise[i : i + 1])["score"][0] for i in range(5)]
    np.testing.assert_allclose(together, alone, rtol=1e-6)


def test_the_file_holds_its_metadata_and_nothing_of_the_machine(exported: tuple[ScoringGraph, Path]) -> None:
    _, path = exported
    proto = onnx.load(path)
    stored = {item.key: item.value for item in proto.metadata_props}
    assert json.loads(stored[METADATA_KEY]) == {"name": "x", "b": 1, "a": [2]}
    content = path.read_bytes()
    assert str(Path(__file__).parents[3]).encode() not in content
    assert b".py" not in content
    assert not any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in proto.graph.initializer)


def test_exporting_twice_gives_the_same_bytes(exported: tuple[ScoringGraph, Path], tmp_path: Path) -> None:
    graph, path = exported
    export_scoring(graph, tmp_path / "again.onnx", {"a": [2], "name": "x", "b": 1})
    assert (tmp_path / "again.onnx").read_bytes() == path.read_bytes()


def test_the_decoder_alone_decodes(exported: tuple[ScoringGraph, Path], tmp_path: Path) -> None:
    graph, _ = exported
    decoder = DecoderGraph(graph.model, graph.image_format).eval()
    export_decoder(decoder, tmp_path / "decoder.onnx", {})
    latent = np.random.default_rng(0).standard_normal((3, *graph.model.latent_shape), dtype=np.float32)
    found = run(tmp_path / "decoder.onnx", latent=latent)["image"]
    with torch.no_grad():
        expected = decoder(torch.from_numpy(latent)).numpy()
    assert found.shape == (3, *SIZE, 1)
    assert np.abs(found.astype(int) - expected.astype(int)).max() <= 1


@pytest.mark.parametrize("task", scoring_tasks().values(), ids=scoring_tasks())
def test_every_task_states_its_facts(task: Task) -> None:
    assert task.summary.endswith(".")
    assert task.targets
    for target in task.targets.values():
        assert set(target.likelihoods) <= set(IMAGE_LIKELIHOODS)
        assert target.steps_for(1) <= target.steps_for(500) <= target.steps_for(10**9)
