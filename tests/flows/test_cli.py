"""The command line: exit codes, messages, help for everything, and what it does not import."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli import app
from flows.demo import next_commands
from pipelines.anomaly.rate_claim import Measured, RateClaim
from pipelines.demo_images import MAGNETIC_TILE
from pipelines.models.model_file import sha256_of
from pipelines.score import ScoreSummary


def test_score_ends_with_0_and_names_the_report(kintsugi, trained, tmp_path: Path) -> None:
    done = kintsugi("score", MAGNETIC_TILE / "test", "--model", trained.model, "--out", tmp_path / "out")
    assert done.returncode == 0
    (warning,) = done.stderr.splitlines()  # of a model with 18 calibration images
    assert warning.startswith("warning: Drift was not checked: it needs 20 calibration images")
    assert f"report: {tmp_path / 'out' / 'report.html'}" in done.stdout
    assert "images look abnormal (promised false-alarm rate 5.27 %" in done.stdout


@pytest.mark.parametrize(
    ("by_group", "unpromised", "told"),
    [
        (10, 0, "(by group)"),
        (4, 0, "(by group, threshold of all other images 1.5000)"),
        (0, 0, "(by group, threshold 1.5000)"),
        (7, 3, "(by group, no rate promised for 3 images of other sub-folders)"),
        (0, 10, "(no rate promised for their sub-folders)"),
    ],
)
def test_the_threshold_of_other_images_is_told_where_there_are_any(
    by_group: int, unpromised: int, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = ScoreSummary(
        out=tmp_path, report=tmp_path / "report.html", files=10, ok=10, failed=0, flagged=2, false_alarms=0.01,
        threshold=1.5, images_per_second=None, rule="by group", by_group=by_group, unpromised=unpromised,
    )  # fmt: skip
    monkeypatch.setattr("pipelines.score.score_folder", lambda *_, **__: summary)
    arguments = ["score", str(tmp_path), "--model", "x.onnx", "--out", str(tmp_path / "out"), "--groups"]
    assert f"2 of 10 images look abnormal {told}\n" in CliRunner().invoke(app, arguments).output


def test_of_a_cross_calibration_the_rate_is_asked_and_the_measured_one_has_a_line_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = Measured(rate=0.01, images=100, flagged=2)
    summary = ScoreSummary(
        out=tmp_path, report=tmp_path / "report.html", files=10, ok=10, failed=0, flagged=2, false_alarms=0.01,
        threshold=1.5, images_per_second=None, claim=RateClaim(kind="cross", folds=5, measured=measured),
    )  # fmt: skip
    monkeypatch.setattr("pipelines.score.score_folder", lambda *_, **__: summary)
    arguments = ["score", str(tmp_path), "--model", "x.onnx", "--out", str(tmp_path / "out")]
    first, proved, told, _ = CliRunner().invoke(app, arguments).output.splitlines()
    assert first == "2 of 10 images look abnormal (asked false-alarm rate 1 %, threshold 1.5000)"
    assert proved.startswith("proved: no rate, because this model has seen all good images: 5 other models")
    assert told == f"measured: {measured}"


def test_a_model_without_its_calibration_ends_with_a_warning(kintsugi, trained, tmp_path: Path) -> None:
    shutil.copy(trained.model, tmp_path / "model.onnx")
    done = kintsugi("score", MAGNETIC_TILE / "test" / "good", "--model", "model.onnx", "--out", "out")
    assert done.returncode == 0
    (warning,) = (line for line in done.stderr.splitlines() if line.startswith("warning: "))
    assert warning.startswith("warning: no image has a verdict or a p-value, since calibration.json")
    assert "12 of 12 images scored, no verdicts" in done.stdout


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--regret", "--out", "out"], "stopped; the same command keeps the regrets that were found"),
        (["--regret"], "stopped; the same command starts from the beginning"),
        (["--out", "out"], "stopped; the same command starts from the beginning"),
    ],
)
def test_an_evaluation_that_is_stopped_promises_what_it_keeps(
    options: list[str], says: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "test" / "good").mkdir(parents=True)

    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pipelines.evaluate.evaluate_model", stopped)
    done = CliRunner().invoke(app, ["evaluate", str(tmp_path), "--model", "x.onnx", *options])
    assert (done.exit_code, done.stderr) == (130, f"{says}\n")


def test_some_failed_files_end_with_3_and_are_listed(kintsugi, trained, tmp_path: Path) -> None:
    images = tmp_path / "images"
    shutil.copytree(MAGNETIC_TILE / "test" / "good", images)
    (images / "broken.jpg").write_bytes(b"")
    done = kintsugi("score", images, "--model", trained.model, "--out", tmp_path / "out")
    assert done.returncode == 3
    assert "1 of 13 files could not be scored" in done.stderr
    assert "broken.jpg" in (tmp_path / "out" / "results.csv").read_text("utf-8-sig")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["score", "nowhere", "--model", "MODEL", "--out", "out"], "nowhere"),
        (["score", "empty", "--model", "MODEL", "--out", "out"], "empty"),
        (["score", "empty", "--model", "nothing.onnx", "--out", "out"], "no image"),
        (["score", "images", "--model", "nothing.onnx", "--out", "out"], "the model file nothing.onnx does not exist"),
        (["score", "images", "--model", "a:b", "--out", "out"], "is not a model reference"),
        (["score", "images", "--model", "builtin:x", "--out", "out"], "there is no built-in model 'x'"),
        (["score", "images", "--model", "MODEL", "--out", "images/x.jpg"], "is a file"),
        (["score", "images", "--model", "MODEL", "--out", "out", "--calibration", "nope.json"], "nope.json"),
        (["score", "images", "--model", "MODEL", "--out", "out", "--false-alarms", "0.001"], "0.001"),
        (["train", "nothing.toml"], "the job file nothing.toml does not exist"),
        (["train", "images"], "images is a folder: give a job file"),
        (["train", "unscheduled.toml"], "'schedule.train' is 'x': neither a cron line nor an interval"),
        (["train", "misspelt.toml"], "'trian' is not a key of a job file; did you mean 'train'?"),
        (["report", "empty"], "empty"),
        (["serve", "nothing"], "nothing"),
        (["serve"], "the folder ./jobs does not exist: give job files, or folders with job files"),
        (["evaluate", "images", "--model", "MODEL"], "does not have the layout for evaluation"),
    ],
)
def test_wrong_usage_ends_with_2_and_one_message(
    kintsugi, trained, tmp_path: Path, arguments: list[str], message: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "images").mkdir()
    some = next(iter((MAGNETIC_TILE / "test" / "good").iterdir()))
    shutil.copy(some, tmp_path / "images" / "x.jpg")
    job = 'name = "x"\ntask = "reconstruct"\n[data]\ntrain = "images"\n'
    (tmp_path / "misspelt.toml").write_text(f"{job}[trian]\n")
    (tmp_path / "unscheduled.toml").write_text(f'{job}[schedule]\ntrain = "x"\n')
    done = kintsugi(*(str(trained.model) if word == "MODEL" else word for word in arguments))
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("error: ")
    assert not (tmp_path / "out" / "results.parquet").exists()


@pytest.mark.parametrize("rate", ["0", "1", "1.5", "-0.1", "nan"])
def test_every_impossible_rate_is_refused_in_the_same_words(kintsugi, trained, tmp_path: Path, rate: str) -> None:
    done = kintsugi("score", MAGNETIC_TILE, "--model", trained.model, "--out", "out", f"--false-alarms={rate}")
    fails_plainly(done, f"a false-alarm rate of {float(rate)!r} is not between 0 and 1: 0.01 means 1 %")
    assert not (tmp_path / "out").exists()


def test_when_every_file_failed_nothing_is_said_of_images(kintsugi, trained, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").touch()
    done = kintsugi("score", tmp_path, "--model", trained.model, "--out", tmp_path / "out")
    assert done.returncode == 3
    assert done.stdout.splitlines()[0] == "no image could be scored"


WITHOUT = """
import sys
MISSING = {missing!r}
class Missing:
    def find_spec(self, name, path=None, target=None):
        top = name.split(".")[0]
        if top in MISSING:
            raise ModuleNotFoundError(f"No module named {{top!r}}", name=top)
sys.meta_path.insert(0, Missing())
from flows.cli import main
sys.argv = {words!r}
main()
"""


@pytest.mark.parametrize(
    ("words", "missing", "says"),
    [
        (["train", "JOB"], "torch lightning", "torch and lightning are not installed: this machine can score, but not"),
        (["train", "JOB"], "torchvision", "torchvision is not installed: this machine can score, but not train"),
        (["serve", "JOB"], "prefect", "prefect is not installed: schedules cannot run here (make setup in a checkout"),
        (["serve", "JOB"], "torch", "pip install 'kintsugi-images[train]'"),
        (["demo", "--out", "out"], "torch mlflow prefect", "pip install 'kintsugi-images[train,registry,flows]'"),
    ],
)
def test_a_verb_whose_packages_are_missing_names_the_extra(
    trained, tmp_path: Path, words: list[str], missing: str, says: str
) -> None:
    job = tmp_path / "job.toml"
    job.write_text(f'{trained.job.read_text()}\n[schedule]\ntrain = "1d"\n'.replace('"good"', f'"{trained.images}"'))
    words = ["kintsugi", *(str(job) if word == "JOB" else word for word in words)]
    code = WITHOUT.format(missing=set(missing.split()), words=words)
    environment = os.environ | {"KINTSUGI_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    fails_plainly(done, says)
    assert not (tmp_path / "out").exists()


def test_a_missing_module_of_our_own_is_a_bug_and_shows_where(tmp_path: Path) -> None:
    code = WITHOUT.format(missing={"pipelines"}, words=["kintsugi", "doctor"]).replace(
        "from flows.cli import main", "MISSING.clear(); from flows.cli import main; MISSING.add('pipelines')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1
    assert "Traceback" in done.stderr


@pytest.mark.parametrize(
    ("data", "task", "says"),
    [
        ('train = "nowhere"', "reconstruct", "nowhere does not exist"),
        ('train = "empty"', "reconstruct", "it holds no files"),
        ('train = "few"', "reconstruct", "few; training needs at least 5, 400 to promise 1 %"),
        ('train = "images"\ngroup = "part-{piece}"', "reconstruct", "images do not fit it ("),
        ('train = "images"', "sing", "'task' is 'sing': unknown task; the tasks are: colorize, dejpeg, denoise"),
    ],
)
def test_cheap_mistakes_are_told_before_torch_is_imported(
    trained, tmp_path: Path, data: str, task: str, says: str
) -> None:
    (tmp_path / "empty").mkdir()
    shutil.copytree(trained.images, tmp_path / "images")
    shutil.copytree(MAGNETIC_TILE / "test" / "crack", tmp_path / "few")
    (tmp_path / "job.toml").write_text(f'name = "x"\ntask = "{task}"\n[data]\n{data}\n')
    code = (
        "import sys\nfrom flows.cli import app\ntry:\n    app(['train', 'job.toml'])\n"
        "finally:\n    print(sorted({'torch', 'mlflow', 'lightning'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    fails_plainly(done, says)
    assert done.stdout == "[]\n"


def fails_plainly(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    for word in words:
        assert word in last


def test_a_disk_that_takes_no_more_is_one_message(kintsugi, trained, tmp_path: Path) -> None:
    arguments = ("score", MAGNETIC_TILE / "test", "--model", trained.model, "--out", tmp_path / "out")
    fails_plainly(kintsugi(*arguments, largest_file=4096), "File too large")
    assert kintsugi(*arguments).returncode == 0  # as the message says


def test_a_file_where_a_folder_is_needed_is_one_message(kintsugi, trained, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    figures = tmp_path / "file" / "figures.json"
    done = kintsugi("evaluate", MAGNETIC_TILE, "--model", trained.model, "--json", figures)
    fails_plainly(done, f"error: the folder {tmp_path / 'file'} cannot be written: File exists; give another one")


def test_a_home_that_is_a_file_is_one_message(kintsugi, trained, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    fails_plainly(kintsugi("train", trained.job, home=tmp_path / "file"), f"error: {tmp_path / 'file'}")


def test_a_wrong_variable_is_one_message(kintsugi, trained) -> None:
    arguments = ("score", MAGNETIC_TILE / "test", "--model", trained.model, "--out", "out")
    fails_plainly(kintsugi(*arguments, KINTSUGI_WORKERS="0"), "KINTSUGI_WORKERS=0: ", "greater than or equal to 1")


def test_a_model_file_can_be_verified_by_its_path(kintsugi, trained, tmp_path: Path) -> None:
    shutil.copytree(trained.bundle, tmp_path / "m")
    done = kintsugi("models", "verify", "m/model.onnx")
    assert (done.returncode, done.stderr) == (0, "")
    digest = sha256_of(trained.model)
    assert done.stdout == f"m/model.onnx: sha256 {digest}; its calibration.json belongs to it\n"
    calibration = json.loads((tmp_path / "m" / "calibration.json").read_text())
    (tmp_path / "m" / "calibration.json").write_text(json.dumps(calibration | {"model_sha256": "0" * 64}))
    fails_plainly(kintsugi("models", "verify", "m/model.onnx"), "belongs to the model file 000000000000", digest[:12])
    (tmp_path / "m" / "calibration.json").unlink()
    assert "its calibration.json is missing" in kintsugi("models", "verify", "m").stdout


def test_the_demo_uses_nobodys_servers(tmp_path: Path) -> None:
    servers = dict.fromkeys(("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "PREFECT_API_URL"), "http://team.invalid")
    code = (
        "import os, sys, flows.cli, flows.demo\n"
        "assert 'prefect' not in sys.modules\n"  # it is imported while the server starts
        f"flows.demo.run_demo = lambda out: str(sorted({set(servers)!r} & os.environ.keys()))\n"
        "flows.cli.app(['demo', '--out', 'x'])"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | servers, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")


def test_the_demos_commands_survive_an_odd_folder() -> None:
    out = Path("/a folder/it's $HOME")
    show, score, train = (shlex.split(line) for line in next_commands(out, out / "tiles.toml", "tiles/1"))
    assert show[:2] == score[:2] == train[:2] == [f"KINTSUGI_HOME={out}/home", ".venv/bin/kintsugi"]
    assert score[-1] == f"{out}/yours"
    assert train[3] == f"{out}/tiles.toml"


def test_an_unknown_model_in_an_empty_registry_says_how_to_train_one(kintsugi, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    shutil.copy(next(iter((MAGNETIC_TILE / "test" / "good").iterdir())), tmp_path / "images")
    done = kintsugi("score", "images", "--model", "tiles@champion", "--out", "out")
    assert done.returncode == 2
    assert "kintsugi train" in done.stderr
    listed = kintsugi("models")
    assert listed.returncode == 0
    first, ships = listed.stdout.splitlines()
    assert first == "no models yet: train one with `kintsugi train JOB.toml`"
    assert "builtin:denoise" in ships


def test_models_can_be_looked_up(kintsugi, trained) -> None:
    listed = kintsugi("models", home=trained.home)
    assert "tiles" in listed.stdout
    assert "champion 1" in listed.stdout
    shown = kintsugi("models", "show", "tiles", home=trained.home)
    assert "tiles/1 [champion]" in shown.stdout
    assert "at most 5.27 % of good images" in shown.stdout
    assert "UTC  version 1 became champion, by " in shown.stdout
    assert not any(key in shown.stdout for key in ("synthetic_auroc", "data_digest", "parity"))  # words, not keys
    assert "model.onnx" not in shown.stdout
    one = kintsugi("models", "show", "tiles@champion", home=trained.home).stdout
    copied = next(Path(line.split()[-1]) for line in one.splitlines() if line.startswith("    where it is "))
    assert sha256_of(copied) == sha256_of(trained.model)
    assert (copied.parent / "calibration.json").is_file()
    assert "every file is as registered" in kintsugi("models", "verify", "tiles@champion", home=trained.home).stdout
    found = kintsugi("models", "search", "alias=champion", "model.target=pixels", home=trained.home).stdout
    assert found.startswith("tiles/1 [champion]")
    assert "no version meets all conditions" in kintsugi("models", "search", "steps>40", home=trained.home).stdout
    assert "training: 40 steps" in kintsugi("models", "compare", "tiles/1", "tiles@champion", home=trained.home).stdout


def test_the_doctor_reports_and_does_not_alarm(kintsugi) -> None:
    done = kintsugi("doctor")
    assert done.returncode == 0, done.stdout
    assert done.stderr == ""
    for subject in ("packages", "training", "GPU", "home", "registry", "orchestrator"):
        assert subject in done.stdout


def test_a_path_that_no_shell_has_expanded_is_below_the_home(kintsugi, trained, tmp_path: Path) -> None:
    home = tmp_path / "user"
    shutil.copytree(trained.model.parent, home / "model")
    shutil.copytree(MAGNETIC_TILE / "test" / "crack", home / "images")
    done = kintsugi("score", "~/images", f"--model=~/model/{trained.model.name}", "--out=~/out", HOME=str(home))
    assert done.returncode == 0, done.stderr
    assert (home / "out" / "report.html").is_file()
    assert not (tmp_path / "~").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["", "--out", "o"], "an argument is empty"),
        (["images", "--out", ""], "--out is empty"),
        (["images", "--out="], "--out is empty"),
        (["images", "--out", "s3://bucket/o"], "s3:/bucket/o: this is an address, not a local path"),
        (["images", "--out", "file:///o"], "file:/o: this is an address, not"),
        (["https://host/images", "--out", "o"], "https:/host/images: this is an address, not"),
    ],
)
def test_a_path_that_is_empty_or_an_address_is_refused(kintsugi, trained, words: list[str], says: str) -> None:
    done = kintsugi("score", *words, "--model", trained.model)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_the_home_of_everything_is_no_folder_called_tilde(kintsugi, tmp_path: Path) -> None:
    done = kintsugi("doctor", KINTSUGI_HOME="~/kept", HOME=str(tmp_path))
    assert f"{tmp_path / 'kept'} is writable" in done.stdout
    assert not (tmp_path / "~").exists()
