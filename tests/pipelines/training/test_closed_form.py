"""A model in closed form: folds see nothing of the images that they score, and the file scores as they do."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file

from pipelines.anomaly.odd_scores import find_odd
from pipelines.data.examples import make_examples
from pipelines.errors import JobError
from pipelines.images import find_images
from pipelines.jobfile.job import Job, job_from_document
from pipelines.models.inputs import decode_for
from pipelines.models.model_file import METADATA_KEY, sha256_of
from pipelines.models.session import Session
from pipelines.registry.resolve import find_model
from pipelines.score import score_folder
from pipelines.train import prepare, train_model
from pipelines.training.closed_form import ClosedForm, train_closed_form
from pipelines.training.folds import make_folds
from vaecore.experts import EXPERTS
from vaecore.representations import Features

IMAGES = 70


def draw(folder: Path, count: int, seed: int, *, marked: bool = False) -> None:
    """A disc of some brightness on a brushed ground; marked: with a bright scratch."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:64, :64]
    for number in range(count):
        ground = 90 + 12 * np.sin(x / 3 + random.uniform(0, 6)) + random.normal(0, 4, (64, 64))
        pixels = np.where((x - 32) ** 2 + (y - 32) ** 2 < 18**2, 150 + random.uniform(-15, 15), ground)
        if marked:
            row = int(random.integers(8, 50))
            pixels[row : row + 4, 10:40] = 235
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{number:03}.png")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory):
    """A home with the extractor in it, which takes long to export: all tests share it."""
    folder = tmp_path_factory.mktemp("closed")
    draw(folder / "good", IMAGES, 0)
    draw(folder / "new", 20, 1)
    draw(folder / "marked", 20, 2, marked=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KINTSUGI_HOME", str(folder / "home"))
        yield folder


def job_of(home: Path, **tables: dict) -> Job:
    document = {"name": "discs", "task": "reconstruct", "data": {"train": str(home / "good")}, **tables}
    document["model"] = {"size": 64, **tables.get("model", {})}
    return job_from_document(document, home / "job.toml")


@pytest.fixture(scope="module")
def trained(home: Path):
    """The exported bundle, and what training made of the same images."""
    model = train_model(job_of(home))
    return model, find_model("discs@champion")


def fitted(home: Path, kind: str = "places", **model: object) -> tuple[ClosedForm, list[int]]:
    prepared = prepare(job_of(home, model=model))
    features = prepared.representation
    assert isinstance(features, Features)
    examples = make_examples(prepared.data, prepared.plan.image_format, features)
    return train_closed_form(examples, prepared.data, prepared.plan, features, kind), list(prepared.data.split["train"])


def test_defects_are_found_at_the_rate_that_was_asked(home: Path, trained, rows_of) -> None:
    for name in ("new", "marked"):
        score_folder(home / name, trained[1].path, home / f"out-{name}", false_alarms=0.05)
    good, bad = ([row["is_anomaly"] for row in rows_of(home / f"out-{name}")] for name in ("new", "marked"))
    assert sum(good) <= 4
    assert sum(bad) >= 18


def test_rows_and_the_report_say_what_an_image_is_flagged_for(home: Path, trained, rows_of) -> None:
    out = home / "out-flagged"
    score_folder(home / "marked", trained[1].path, out, false_alarms=0.05)
    weights = dict(Session(trained[1], device="cpu").metadata.experts)
    rows = rows_of(out)
    for row in rows:
        assert row["expert"] in weights
        assert row["expert_score"] > 0
        assert (row["place"] is None) == (row["regions"] in {None, 0})
        if row["place"] is not None:
            assert 4 <= row["highest_x"] <= 46  # the scratch is from 10 to 40; the map is coarser
    assert sum(row["place"] is not None for row in rows) >= 15
    page = (out / "report.html").read_text()
    assert "Most unusual " in page
    assert "What this score means" in page

    score_folder(home / "new", trained[1].path, home / "out-usual", false_alarms=0.05)
    rows = rows_of(home / "out-usual")
    assert {row["place"] for row in rows if not row["is_anomaly"]} == {None}


def test_a_file_without_scores_of_its_experts_scores_and_reports(home: Path, trained, rows_of) -> None:
    """As earlier versions wrote it; captions then name the place alone."""
    model = onnx.load(trained[1].path)
    del model.graph.output[[output.name for output in model.graph.output].index("expert_score")]
    (entry,) = (entry for entry in model.metadata_props if entry.key == METADATA_KEY)
    metadata = json.loads(entry.value)
    del metadata["outputs"]["expert_score"], metadata["aspects"]
    entry.value = json.dumps(metadata)
    older = home / "older"
    shutil.copytree(trained[1].folder, older, ignore=shutil.ignore_patterns("gallery.safetensors"))  # of another digest
    onnx.save(model, older / "model.onnx")
    calibration = json.loads((older / "calibration.json").read_text())
    calibration["model_sha256"] = sha256_of(older / "model.onnx")
    (older / "calibration.json").write_text(json.dumps(calibration))

    score_folder(home / "marked", older / "model.onnx", home / "out-older", false_alarms=0.05)
    score_folder(home / "marked", trained[1].path, home / "out-flagged", false_alarms=0.05)
    before, after = rows_of(home / "out-older"), rows_of(home / "out-flagged")
    assert [row["score"] for row in before] == [row["score"] for row in after]
    assert [row["place"] for row in before] == [row["place"] for row in after]
    assert {(row["expert"], row["expert_score"]) for row in before} == {(None, None)}
    assert "Most unusual " in (home / "out-older" / "report.html").read_text()


def test_the_card_says_what_the_score_is_made_of(trained) -> None:
    text = (trained[1].folder / "card.md").read_text().split("## What this score means")[1].split("##")[0]
    assert "no longer the ELBO itself" in text
    assert "`elbo`, `rate` and `distortion`" in text
    for name, kind in EXPERTS.items():
        assert (f"| `{name}` | {kind.summary} | {kind.aspect} |" in text) == (name != "memory")
    assert " of pairs |" in text
    assert "weight gaussian" not in (trained[1].folder / "card.md").read_text()


def test_calibration_says_that_it_is_crossed_and_what_was_measured(home: Path, trained) -> None:
    _, file = trained
    calibration, split = file.calibration(), json.loads((file.folder / "split.json").read_text())
    assert (calibration.kind, calibration.folds) == ("cross", 10)
    assert split["train"] == split["calibrate"]
    assert calibration.n == len(split["train"]) == IMAGES - len(split["select"])
    assert calibration.measured.images == len(split["select"]) >= 2
    assert not set(split["select"]) & set(split["train"])
    assert "promise" not in (file.folder / "card.md").read_text().split("## Calibration")[1].split("##")[0]


def test_the_file_names_its_experts_and_scores_as_torch_does(trained) -> None:
    model, file = trained
    session = Session(file, device="cpu")
    weights = dict(session.metadata.experts)
    assert list(weights) == ["linear_vae", "place_gaussian", "gaussian"]
    assert sum(weights.values()) == pytest.approx(1)
    assert model.figures["parity"] < 1e-4
    image = np.full((1, 64, 64, 1), 120, np.uint8)
    found = session.run(image, ["0" * 64], ("score", "expert_score"))
    assert found["score"][0] == pytest.approx(found["expert_score"][0] @ np.array(list(weights.values())), rel=1e-4)
    assert file.path.stat().st_size < 64 * 2**20


def test_the_gallery_has_the_embeddings_that_the_file_gives(home: Path, trained) -> None:
    file = trained[1]
    gallery = load_file(file.folder / "gallery.safetensors")["embedding"]
    session, files = Session(file, device="cpu"), find_images(home / "good")
    split = json.loads((file.folder / "split.json").read_text())
    kept = [image for image in decode_for(files, session.metadata) if image.sha256 in set(split["train"])]
    some = [session.run(image.pixels[None], [image.sha256], ("embedding",))["embedding"][0] for image in kept[:3]]
    np.testing.assert_allclose(gallery[:3], some, rtol=0, atol=0.02 * gallery.std())


def test_a_fold_knows_nothing_of_the_images_that_it_scores(home: Path, trained) -> None:
    """Other features of one image change what the folds that were fitted to it make of others, not its own fold."""
    prepared = prepare(job_of(home, model={"experts": ["gaussian"]}))
    features, data, plan = prepared.representation, prepared.data, prepared.plan
    examples = make_examples(data, plan.image_format, features)
    before = train_closed_form(examples, data, plan, features, "places").held_out
    array, changed = np.array(examples._array), before.indices[3]
    array[changed] += 3 * np.random.default_rng(0).standard_normal(array[changed].shape).astype(np.float16)
    examples._array = array
    after = train_closed_form(examples, data, plan, features, "places").held_out
    apart = (after.elbo.distortion - before.elbo.distortion).abs().numpy()
    fold = next(set(fold.tolist()) for fold in make_folds(np.array(before.indices), data, 0) if 3 in fold)
    assert apart[3] > 100
    assert max(apart[row] for row in fold - {3}) < 1
    assert min(apart[row] for row in set(range(len(apart))) - fold) > 1


def test_the_plain_bound_is_scored_by_itself(home: Path, trained) -> None:
    found, images = fitted(home, "elbo")
    held = found.held_out
    assert held.indices == tuple(images)
    dims = found.model.basis.shape[1]
    bound = (held.elbo.rate + held.elbo.distortion).numpy() / dims
    np.testing.assert_allclose(held.scores, bound, rtol=1e-5)
    np.testing.assert_allclose(held.maps.numpy().sum(axis=(1, 2)), -held.elbo.value.numpy(), rtol=1e-4)


def test_a_defective_image_among_the_good_ones_is_named(home: Path, trained) -> None:
    mixed = home / "mixed"
    shutil.copytree(home / "good", mixed)
    for number in (3, 8):
        shutil.copy(home / "marked" / f"{number:03}.png", mixed / f"odd{number}.png")
    prepared = prepare(job_of(home, data={"train": str(mixed)}))
    examples = make_examples(prepared.data, prepared.plan.image_format, prepared.representation)
    held = train_closed_form(examples, prepared.data, prepared.plan, prepared.representation, "places").held_out
    names = [prepared.data.files[index].relative for index in held.indices]
    odd = [names[position] for position in find_odd(held.scores)]
    assert set(odd[:2]) == {"odd3.png", "odd8.png"} & set(names)
    assert len(odd) <= 4


def test_every_expert_can_be_asked_for(home: Path, trained) -> None:
    found, _ = fitted(home, experts=list(EXPERTS))
    assert list(found.weights) == ["linear_vae", *EXPERTS]
    alone, _ = fitted(home, experts=[])
    assert alone.weights == {"linear_vae": 1.0}
    assert torch.isfinite(torch.tensor(alone.held_out.scores)).all()


def test_pieces_stay_in_one_fold(home: Path, trained) -> None:
    prepared = prepare(job_of(home))
    pieces = tuple(str(number // 5) for number in range(len(prepared.data.files)))
    data = replace(prepared.data, pieces=pieces)
    fitted_to = np.array(data.split["train"])
    folds = make_folds(fitted_to, data, 0)
    where = [{pieces[fitted_to[position]] for position in fold} for fold in folds]
    assert sum(map(len, folds)) == len(fitted_to)
    assert not any(one & other for number, one in enumerate(where) for other in where[number + 1 :])


def test_a_fold_of_one_large_piece_leaves_room_for_noise(home: Path, trained) -> None:
    """A fold that leaves as many images as there are latents would leave no noise: bounds without end."""
    prepared = prepare(job_of(home))
    count = len(prepared.data.files)
    bounds = {}
    for large in (count // 10, count // 2):
        pieces = tuple("large" if number < large else str(number) for number in range(count))
        data = replace(prepared.data, pieces=pieces)
        examples = make_examples(data, prepared.plan.image_format, prepared.representation)
        found = train_closed_form(examples, data, prepared.plan, prepared.representation, "elbo")
        bounds[large] = np.array(found.held_out.scores)
    small, large = bounds.values()
    assert np.median(large) < 2 * np.median(small)


def test_folds_of_uneven_pieces_are_as_even_as_can_be(home: Path, trained) -> None:
    prepared = prepare(job_of(home))
    fitted_to = np.array(prepared.data.split["train"])
    pieces = tuple(str(number % 7 if number % 2 else number) for number in range(len(prepared.data.files)))
    sizes = sorted(map(len, make_folds(fitted_to, replace(prepared.data, pieces=pieces), 0)))
    assert sum(sizes) == len(fitted_to)
    assert sizes[-1] - sizes[0] <= max(map(pieces.count, pieces))


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"model": {"experts": ["gausian"]}}, "names 'gausian'; there are: gaussian, place_gaussian"),
        ({"model": {"experts": ["memory", "memory"]}}, "names an expert twice"),
        ({"model": {"vae": "linear", "prior": "mixture"}}, "'model.prior' is only for a deep VAE"),
        ({"model": {"vae": "deep", "experts": ["memory"]}}, "are beside a linear VAE"),
        ({"model": {"target": "pixels", "experts": ["memory"]}}, "is of features by place, not of pixels"),
        ({"model": {"vae": "deep"}, "calibrate": {"kind": "cross"}}, "is of models in closed form, not of a deep VAE"),
    ],
)
def test_what_does_not_go_together_is_told(home: Path, tables: dict, message: str) -> None:
    with pytest.raises(JobError, match=message):
        prepare(job_of(home, **tables))


def test_changes_that_are_declared_as_normal_raise_no_alarm(home: Path, trained, rows_of, caplog) -> None:
    random = np.random.default_rng(3)
    darker = home / "darker"
    darker.mkdir()
    for number in range(2):
        draw(home / f"drawn{number}", 20, 20 + number, marked=number == 1)
        for path in (home / f"drawn{number}").iterdir():
            pixels = np.asarray(Image.open(path)) * 1.25 ** random.uniform(-1, 1)
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(darker / f"{number}{path.name}")
    with caplog.at_level("INFO"):
        train_model(job_of(home, name="varied", data={"train": str(home / "good"), "normal_changes": ["exposure"]}))
    assert "normal changes: " in caplog.text
    varied = find_model("varied@champion")
    assert "Normal changes of good images, which raise no alarm: exposure." in str(varied.card)
    counts = {}
    for name, model in (("plain", trained[1].path), ("varied", varied.path)):
        score_folder(darker, model, home / f"darker-{name}", false_alarms=0.05, against="calibration")
        flagged = [row["is_anomaly"] for row in rows_of(home / f"darker-{name}")]
        counts[name] = (sum(flagged[:20]), sum(flagged[20:]))
    assert counts["varied"][0] <= 4
    assert counts["varied"][0] < counts["plain"][0]
    assert counts["varied"][1] >= 14


@pytest.mark.parametrize(
    "tables", [{"model": {"vae": "deep"}}, {"model": {"windows": True}}, {"model": {"target": "pixels"}}]
)
def test_normal_changes_are_of_models_in_closed_form(home: Path, tables: dict) -> None:
    job = job_of(home, data={"train": str(home / "good"), "normal_changes": ["noise"]}, **tables)
    with pytest.raises(JobError, match=r"'data\.normal_changes' are of models in closed form"):
        prepare(job)
