"""The training job: what it leaves behind, going on after a kill, and the promotion rule at work."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file

from pipelines.base.software import software_version
from pipelines.data.examples import make_examples
from pipelines.errors import DigestError, EmptyFolderError, JobError, ModelError
from pipelines.jobfile.job import load_job
from pipelines.models.model_file import ModelFile, sha256_of
from pipelines.models.session import Session
from pipelines.registry.resolve import find_model
from pipelines.registry.store import Registry
from pipelines.score import score_folder
from pipelines.train import _work_key, prepare, train_model
from pipelines.training.bundle import check_parity, describe, write_job, write_model
from pipelines.training.fit import fit
from pipelines.training.loop import ema
from pipelines.training.options import find_task
from pipelines.training.registration import work_folder
from vaecore.tasks import scoring_tasks


@pytest.fixture(scope="module")
def generations(trained, tmp_path_factory: pytest.TempPathFactory):
    """A home with a champion and a second version that has learnt nothing: one step, otherwise the same job.

    The images are all the same but for a little noise, so that a model that has learnt them sees every defect.
    """
    folder = tmp_path_factory.mktemp("generations")
    generator = np.random.default_rng(0)
    y, x = np.mgrid[:48, :40]
    pattern = 128 + 50 * np.sin(x / 4) * np.cos(y / 6)
    (folder / "good").mkdir()
    for number in range(60):
        pixels = np.clip(pattern + generator.normal(0, 3, pattern.shape), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "good" / f"{number}.png")
    job = folder / "tiles.toml"
    job.write_text(trained.job.read_text())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KINTSUGI_HOME", str(folder / "home"))
        first = train_model(job, overrides=["train.steps=300", "train.learning_rate=4e-3"])
        second = train_model(job, overrides=["train.steps=1", "train.learning_rate=1e-9"])
    return folder / "home", first, second


@pytest.fixture
def at_home(generations, monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.setenv("KINTSUGI_HOME", str(generations[0]))
    return Registry()


def test_the_bundle_is_complete_and_without_pickles(trained) -> None:
    names = {path.name for path in trained.bundle.iterdir()}
    wanted = {
        "model.onnx",
        "calibration.json",
        "gallery.safetensors",
        "decoder.onnx",
        "card.md",
        "job.toml",
        "split.json",
    }
    assert wanted <= names
    assert not [
        path for path in trained.bundle.rglob("*") if path.suffix in {".pkl", ".pt", ".ckpt", ".bin", ".joblib"}
    ]


def test_the_gallery_shows_training_images_by_the_models_own_embedding(trained) -> None:
    gallery = load_file(trained.bundle / "gallery.safetensors")
    split = json.loads((trained.bundle / "split.json").read_text())
    assert len(gallery["embedding"]) == len(gallery["thumbnail"]) == len(split["train"])
    assert gallery["thumbnail"].dtype == np.uint8
    assert gallery["embedding"].std(axis=0).max() > 0


def test_calibration_images_were_not_trained_on(trained) -> None:
    split = {name: set(digests) for name, digests in json.loads((trained.bundle / "split.json").read_text()).items()}
    assert not split["train"] & split["calibrate"]
    assert not split["train"] & split["select"]
    assert not split["select"] & split["calibrate"]
    calibration = json.loads((trained.bundle / "calibration.json").read_text())
    assert len(calibration["scores"]) == len(split["calibrate"]) == 18
    files = {sha256_of(path): path for path in trained.images.iterdir()}
    session = Session(ModelFile(trained.model, sha256_of(trained.model), ref="x"), device="cpu")
    digest = sorted(split["calibrate"])[0]
    pixels = np.asarray(Image.open(files[digest]).convert("L"))[None, :, :, None]
    score = float(session.run(pixels, [digest], ("score",))["score"][0])
    assert min(abs(score - other) for other in calibration["scores"]) < 1e-6


def test_the_card_says_what_a_person_needs(trained) -> None:
    card = (trained.bundle / "card.md").read_text()
    for wanted in ("72 different images", "47 to train", "n = 18 good images", "5.27 %", "licence", "Promotion:"):
        assert wanted in card
    assert f"- exported by kintsugi {software_version()}; the job file lies in no git repository" in card
    assert "| promised false alarms | at most 5.27 % of good images, on average |" in card
    assert "challenger" not in card


def test_torch_and_the_exported_file_agree_on_real_files(trained) -> None:
    assert 0 <= trained.figures["parity"] <= 1e-4  # standard deviations of good images


def test_mlflow_knows_the_run(generations, at_home: Registry) -> None:
    import mlflow

    _, first, _ = generations
    client = mlflow.MlflowClient(at_home.address)
    run = client.get_run(first.version.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["task"] == "reconstruct"
    assert run.data.params["chosen.steps"] == "300"
    assert len(client.get_metric_history(run.info.run_id, "select_elbo")) >= 10
    artifacts = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert {"card.md", "model"} <= artifacts
    assert run.data.tags["data_digest"]


def test_the_first_version_is_champion_and_a_worse_one_is_not(generations, at_home: Registry) -> None:
    _, first, second = generations
    assert first.promoted
    assert not second.promoted
    assert second.figures["champion_synthetic_auroc"] > 0.9
    assert second.figures["challenger_synthetic_auroc"] < second.figures["champion_synthetic_auroc"] - 0.1
    assert second.reason.startswith(("worse: AUROC on synthetic defects", "it flags"))
    assert at_home.get("tiles", "champion").version == 1
    assert [at_home.get("tiles", number).tags.get("parent") for number in "12"] == [None, "tiles/1"]
    assert at_home.get("tiles", "challenger").version == 2


def test_rollback_returns_the_previous_champion(generations, at_home: Registry) -> None:
    at_home.promote("tiles", 2, reason="by hand", figures={})
    assert find_model("tiles@champion").version == "2"
    assert at_home.rollback("tiles", reason="it was worse").version == 1
    model = find_model("tiles@champion")
    assert (model.version, model.name) == ("1", "tiles")
    assert [entry.action for entry in at_home.trail("tiles")][-2:] == ["promote", "rollback"]


def test_one_changed_byte_is_refused(generations, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    monkeypatch.setenv("KINTSUGI_HOME", str(generations[0]))
    registry = Registry()
    source = next(path for path in (generations[0] / "artifacts").rglob("model.onnx"))
    version = next(v for v in registry.versions("tiles") if v.sha256 == sha256_of(source))
    content = source.read_bytes()
    position = len(content) // 2
    try:
        source.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
        shutil.rmtree(generations[0] / "models")
        with pytest.raises(DigestError, match=r"model\.onnx"):
            find_model(f"tiles/{version.version}")
        with pytest.raises(DigestError):
            registry.verify(version)
    finally:
        source.write_bytes(content)
    assert find_model(f"tiles/{version.version}").sha256 == version.sha256
    assert not home.exists()


def test_resuming_gives_the_same_weights(trained, tmp_path: Path) -> None:
    """Stop between two checks, go on, and compare with a run that was never stopped."""
    job = load_job(trained.job, ["train.steps=40"])

    def run(folder: Path, stop_after: int | None) -> dict[str, torch.Tensor]:
        prepared = prepare(job)
        examples = make_examples(prepared.data, prepared.plan.image_format, prepared.representation)
        checks = 0

        def on_check(step: int, figures: dict[str, float]) -> None:
            nonlocal checks
            checks += 1
            if checks == stop_after:
                raise StoppedError

        fit(prepared.model, examples, prepared.recipe, folder=folder, device="cpu", on_check=on_check)
        return prepared.model.state_dict()

    whole = run(tmp_path / "whole", None)
    with pytest.raises(StoppedError):
        run(tmp_path / "parts", 9)
    parts = run(tmp_path / "parts", None)
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=0, atol=0, msg=name)


class StoppedError(Exception):
    """Stands for a kill between two checkpoints."""


def test_a_killed_job_goes_on_and_registers_once(trained, tmp_path: Path) -> None:
    """SIGKILL the real command in the middle of training, then start it again."""
    home = tmp_path / "home"
    command = [sys.executable, "-m", "flows.cli", "train", str(trained.job), "--set", "train.steps=400"]
    environment = {"KINTSUGI_HOME": str(home), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    ends = time.monotonic() + 240
    while process.poll() is None and not list(home.glob("runs/tiles/*/last.ckpt")):
        assert time.monotonic() < ends
        time.sleep(0.05)
    assert process.poll() is None, "it ended before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    again = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert "going on from step" in again.stderr
    assert "registered tiles/1 as champion" in again.stdout


def test_average_of_weights_forgets_the_start() -> None:
    average = torch.zeros(3)
    for step in range(1, 301):
        average = ema(average, torch.ones(3), step)
    assert average.min() > 0.99
    assert torch.equal(ema(torch.tensor([2]), torch.tensor([5]), 3), torch.tensor([5]))


@pytest.mark.parametrize(("images", "steps"), [(10, 800), (500, 1500), (10**6, 4000)])
def test_default_steps(images: int, steps: int) -> None:
    assert scoring_tasks()["reconstruct"].targets["pixels"].steps_for(images) == steps


def test_mistakes_are_found_before_training_starts(trained, tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"'task' is 'denoyse': unknown task; the tasks are: colorize, dejpeg, den"):
        train_model(trained.job, overrides=["task=denoyse"])
    with pytest.raises(
        JobError, match=r"'model.likelihood' is 'gausian'; the task reconstruct on pixels knows gaussian"
    ):
        train_model(trained.job, overrides=["model.likelihood=gausian"])
    wrong = ["model.likelihood=gausian", "model.strides=[8]", "model.score=ratio", "model.vae=linear"]
    with pytest.raises(JobError) as told:
        train_model(trained.job, overrides=wrong)
    lines = [line.removeprefix(f"{trained.job}: ") for line in str(told.value).splitlines()]
    assert [line.split(" ")[0] for line in lines] == [
        "'model.vae'", "'model.strides'", "'model.score'", "'model.likelihood'",
    ]  # fmt: skip
    with pytest.raises(JobError, match=r"18 calibration images can promise 5.27 % at best: .*, or ask for 0.0527"):
        train_model(trained.job, overrides=["calibrate.false_alarms=0.01"])
    (tmp_path / "nothing").mkdir()
    with pytest.raises(EmptyFolderError):
        train_model(trained.job, overrides=[f"data.train={tmp_path / 'nothing'}"])


def test_the_decoder_beside_the_model_draws_normal_images(trained) -> None:
    session = onnxruntime.InferenceSession(trained.bundle / "decoder.onnx", providers=["CPUExecutionProvider"])
    shape = [2, *onnx.load(trained.bundle / "decoder.onnx").graph.input[0].type.tensor_type.shape.dim][1:]
    latent = np.zeros((2, *(dim.dim_value for dim in shape[1:])), dtype=np.float32)
    (image,) = session.run(None, {"latent": latent})
    assert image.shape == (2, 48, 40, 1)
    assert image.std() > 0


def test_the_rate_of_the_job_is_the_rate_of_the_verdicts(trained, tmp_path: Path, own_home: Path) -> None:
    result = train_model(trained.job, overrides=["train.steps=2", "calibrate.false_alarms=0.2", "name=promised"])
    model = find_model("promised@champion")
    calibration = model.calibration()
    assert calibration is not None
    assert calibration.default_false_alarms() == 0.2
    assert result.figures["challenger_promised_rate"] == 0.2
    assert "promised 20 %" in (model.card or "")
    summary = score_folder(trained.images, "promised@champion", tmp_path / "out")
    assert (summary.false_alarms, summary.threshold) == (0.2, calibration.threshold(0.2))
    kept = load_job(model.folder / "job.toml")
    assert (kept.train.steps, kept.calibrate.false_alarms, kept.name) == (2, 0.2, "promised")


def test_a_job_written_out_reads_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "job.toml"
    path.write_text('name = "a"\ntask = "reconstruct"\n[data]\ntrain = "fold\\"er \u00fc"\n')
    job = load_job(path, ["model.size=[64, 48]", "train.learning_rate=1e-5", "schedule.train=5s"])
    (tmp_path / "bundle").mkdir()
    write_job(tmp_path / "bundle", job)
    assert load_job(tmp_path / "bundle" / "job.toml").model_dump() == job.model_dump()


def test_a_checkpoint_belongs_to_its_split_and_settings(trained) -> None:
    def key(*overrides: str) -> str:
        return _work_key(prepare(load_job(trained.job, overrides)))

    assert key() == key("promote.rule=always", "calibrate.false_alarms=0.3")
    assert len({key(), key("calibrate.fraction=0.4"), key("train.seed=1"), key("model.width=8")}) == 4


def test_two_trainings_of_one_job_do_not_share_checkpoints(trained, tmp_path: Path) -> None:
    job = load_job(trained.job)
    with work_folder(job, "same"):
        with pytest.raises(JobError, match=r"another training of this job is running"), work_folder(job, "same"):
            pass
        with work_folder(job, "other"):
            pass


def test_parity_notices_one_weight_and_a_score_that_is_no_number(trained, tmp_path: Path) -> None:
    """Scale the decoder's last weights in the exported file by 1 %; then by infinity."""
    job = load_job(trained.job)
    prepared = prepare(job)
    for parameter in prepared.model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    graph = find_task(job).graph(prepared.model, prepared.plan.image_format, prepared.representation).eval()
    files = prepared.data.files_of("select")
    file = write_model(tmp_path, graph, describe(job, prepared.plan, prepared.data, graph, "none"))
    assert check_parity(file, graph, files) <= 1e-5
    for factor in (1.01, np.inf):
        proto = onnx.load(file.path)
        weight = next(tensor for tensor in proto.graph.initializer if list(tensor.dims) == [8, 4, 3, 3])  # the last
        values = onnx.numpy_helper.to_array(weight) * np.float32(factor)
        weight.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float32), weight.name))
        onnx.save(proto, tmp_path / "nudged.onnx")
        nudged = ModelFile(tmp_path / "nudged.onnx", sha256_of(tmp_path / "nudged.onnx"), ref="x")
        with pytest.raises(ModelError, match=r"does not agree with torch"):
            check_parity(nudged, graph, files)
