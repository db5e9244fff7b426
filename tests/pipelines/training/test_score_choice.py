"""The score is chosen from good images: aligned or not, and the pooling that finds what was put into them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines.data.examples import Examples, make_examples
from pipelines.errors import JobError
from pipelines.jobfile.job import load_job
from pipelines.train import prepare
from pipelines.training.score_choice import aligned_share, choose_score
from vaecore.graphs.scoring import ScoringGraph
from vaecore.representations.pooling import Pooling


def examples_of(y: np.ndarray) -> Examples:
    everything = tuple(range(len(y)))
    return Examples(y, torch.Tensor.float, {"train": everything, "select": everything, "calibrate": ()}, (8, 8))


@pytest.mark.parametrize("count", [8, 200])
def test_a_texture_is_not_aligned(count: int) -> None:
    y = np.random.default_rng(0).standard_normal((count, 3, 8, 8), dtype=np.float32)
    assert aligned_share(examples_of(y)) < 0.05


def test_one_object_in_one_place_is_aligned() -> None:
    generator = np.random.default_rng(0)
    y = 2 * generator.standard_normal((3, 8, 8)) + generator.standard_normal((100, 3, 8, 8))
    assert aligned_share(examples_of(y.astype(np.float32))) == pytest.approx(0.8, abs=0.05)


@pytest.fixture(scope="module")
def graph_and_more(trained):
    job = load_job(trained.job)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KINTSUGI_HOME", str(trained.folder / "choose-home"))
        prepared = prepare(job)
        examples = make_examples(prepared.data, prepared.plan.image_format, prepared.representation, "cpu")
    graph = ScoringGraph(prepared.model, prepared.plan.image_format, prepared.representation).eval()
    return graph, examples, prepared, job


def test_every_pooling_is_tried_and_the_choice_repeats(graph_and_more, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    graph, examples, prepared, job = graph_and_more
    one, two = (choose_score(graph, examples, prepared.data, prepared.plan, job.model) for _ in range(2))
    assert len(one.synthetic_auroc) >= 5
    assert one.synthetic_auroc == two.synthetic_auroc
    assert one.pooling == two.pooling
    best = max(one.synthetic_auroc.values())
    assert one.synthetic_auroc[str(one.pooling)] >= best - 0.04
    told = [record.getMessage() for record in caplog.records]
    assert any(line.startswith("the best on synthetic defects: ") for line in told)
    assert max(map(len, told)) <= 200


def test_the_job_has_the_last_word(graph_and_more) -> None:
    graph, examples, prepared, job = graph_and_more
    table = job.model.model_copy(update={"pooling": "top:0.05", "aligned": True})
    choice = choose_score(graph, examples, prepared.data, prepared.plan, table)
    assert choice.pooling == Pooling("top", 0.05)
    assert choice.statistics.used
    assert choice.statistics.mean.shape == prepared.representation.size
    with pytest.raises(JobError, match=r"'model.pooling' is 'top:7': pooling 'top' cannot have 7"):
        choose_score(graph, examples, prepared.data, prepared.plan, table.model_copy(update={"pooling": "top:7"}))


def test_a_pooling_that_cannot_be_is_refused_before_training(graph_and_more, own_home: Path) -> None:
    *_, job = graph_and_more
    with pytest.raises(JobError, match=r"'model.pooling' is 'soft:0': pooling 'soft' cannot have 0"):
        prepare(job.model_copy(update={"model": job.model.model_copy(update={"pooling": "soft:0"})}))
    assert not (own_home / "cache").exists()


def test_statistics_standardise_good_images(graph_and_more) -> None:
    graph, examples, prepared, job = graph_and_more
    table = job.model.model_copy(update={"pooling": "mean", "aligned": True})
    statistics = choose_score(graph, examples, prepared.data, prepared.plan, table).statistics
    y = examples.batch(examples.split["train"])
    noise = torch.randn((len(y), 1, *graph.model.latent_shape), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        places = statistics(graph.standardise_places(graph.places(graph.bound(y, noise))))
    assert places.mean(dim=0).abs().mean() < 0.2
    assert 0.8 < float(places.std(dim=0).median()) < 1.2
