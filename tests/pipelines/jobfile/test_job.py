"""The job file: what the least one means, and what every kind of mistake says."""

from __future__ import annotations

import codecs
from pathlib import Path

import pytest

from pipelines.errors import JobError
from pipelines.jobfile.job import Job, load_job, task_names
from vaecore.tasks import all_tasks

LEAST = 'name = "tiles"\ntask = "reconstruct"\n[data]\ntrain = "images/good"\n'


@pytest.fixture
def write(tmp_path: Path) -> object:
    def write(text: str) -> Path:
        path = tmp_path / "job.toml"
        path.write_text(text)
        return path

    return write


def test_the_least_job_has_defaults_and_paths_from_its_own_folder(write, tmp_path: Path) -> None:
    job = load_job(write(LEAST))
    assert job.data.train == tmp_path / "images" / "good"
    assert job.train.beta == 1.0
    assert job.schedule.overlap == "skip"


def test_absolute_paths_stay(write) -> None:
    assert load_job(write(LEAST.replace("images/good", "/data/good"))).data.train == Path("/data/good")


def test_overrides_are_toml_values_or_text(write) -> None:
    job = load_job(write(LEAST), ["train.steps=500", "model.likelihood=laplace", "model.size=[64, 48]"])
    assert (job.train.steps, job.model.likelihood, job.model.size) == (500, "laplace", (64, 48))


def test_a_job_cannot_be_changed_by_mistake(write) -> None:
    job = load_job(write(LEAST))
    with pytest.raises(ValueError, match="frozen"):
        job.name = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LEAST + "[train]\nstpes = 5\n", r"'train.stpes' is not a key of a job file; did you mean 'steps'\?"),
        (LEAST + "[trian]\nsteps = 5\n", r"'trian' is not a key of a job file; did you mean 'train'\?"),
        (
            LEAST + "[model]\nzzz = 5\n",
            r"'model.zzz' is not a key of a job file; known keys: target, vae, experts, backbone",
        ),
        (LEAST + '[model]\npooling = "mean"\n', r"'model.pooling' is no longer a key of a job file: scores are pooled"),
        (LEAST + "[train]\nsteps = -5\n", r"'train.steps' is -5: Input should be greater than 0"),
        (LEAST + '[train]\nsteps = "many"\n', r"'train.steps' is 'many': Input should be a valid integer"),
        (LEAST.replace('"tiles"', '"a/b c"'), r"'name' is 'a/b c': 'a/b c' is not a model name"),
        (LEAST.replace('"tiles"', '"../../x"'), r"'name' is '../../x': '../../x' is not a model name"),
        (LEAST.replace('"tiles"', '"tiles\\n"'), r"'name' is 'tiles\\n': 'tiles\\n' is not a model name: use letters"),
        (
            LEAST + '[schedule]\nout = "a\\u0000"\n',
            r"'schedule.out' is 'a\\x00': paths and names cannot contain a zero",
        ),
        ("x = " + "[" * 5000, r"is not TOML: its brackets are nested too deeply"),
        (LEAST + f"[train]\nsteps = {'9' * 5000}\n", r"is not TOML: Exceeds the limit \(4300 digits\)"),
        (LEAST + f"[train]\nseed = -0x{'f' * 9000}\n", r"not TOML: "),
        (LEAST + f"[model]\nlevels = 0x{'f' * 9000}\n", r"'model.levels' is a number of thousands of digits: "),
        ('name = "x"\ntask = "reconstruct"\n', r"'data' is missing, and it is required"),
        ('path = "/etc"\n' + LEAST, r"'path' is not a key of a job file"),
        ("name = \n", r"is not TOML: .*Put text in quotes: train = "),
        ('name = "C:\\images"\n', r"is not TOML: .*write / instead of"),
        ("false_alarms = 0.05\n" + LEAST, r"'false_alarms' is not a key of a job file; it belongs below \[calibrate\]"),
        (LEAST + "[calibrate]\nfalse_alarms = 5\n", r"'calibrate.false_alarms' is 5: .*less than 1. 0.05 means 5 %"),
        (
            LEAST + '[schedule]\ntrain = "x"\n',
            r"'schedule.train' is 'x': neither a cron line nor an interval; write a cron line",
        ),
        (LEAST + '[schedule]\nscore = "0 25 * * *"\n', r"'schedule.score' is '0 25 \* \* \*': neither a cron line nor"),
        (LEAST + '[model]\nvae = "Deep"\n', r"'model.vae' is 'Deep': Input should be 'linear' or 'deep'$"),
        (
            LEAST + '[model]\nsize = "big"\n',
            r"'model.size' is 'big': give the longest side or \[height, width\], in pixels",
        ),
        (LEAST + "[model]\nsize = [256, 0]\n", r"'model.size' is \[256, 0\]: give the longest side or"),
        (
            LEAST.replace("reconstruct", "sing"),
            r"'task' is 'sing': unknown task; the tasks are: colorize, dejpeg, denoise, ",
        ),
        (
            LEAST + '[schedule]\ntrain = "1d"\nbudget = 9\n',
            r"'schedule.budget' is a rule for scheduled scoring, and 'schedule.score'",
        ),
        (
            LEAST + '[schedule]\nscore = "1d"\nbudget = 9\ngroups = true\n',
            r"toml: 'schedule.budget' and 'schedule.groups' exclude each",
        ),
        (LEAST + '[schedule]\nscore = "1h"\nout = "o"\n', r"'schedule.score' needs 'schedule.folder': give the"),
        (LEAST + '[schedule]\nscore = "1h"\nfolder = "f"\n', r"'schedule.score' needs 'schedule.out': give the"),
        (LEAST + '[schedule]\ntrain = "1h"\ntimezone = "../etc"\n', r"'../etc' is not a time zone: use a name such as"),
        (
            'name = "x"\ntask = "reconstruct"\n[data]\ntrain = ""\n',
            r"'data.train' is '': a path is empty: name a folder",
        ),
        (
            LEAST + '[schedule]\nout = "s3://b/o"\n',
            r"'schedule.out' is 's3://b/o': this is an address, not a local path: mount",
        ),
        (LEAST + '[calibrate]\nkind = "folds"\n', r"'calibrate.kind' is 'folds': Input should be 'split' or 'cross'"),
        (
            LEAST + '[calibrate]\nkind = "cross"\nfraction = 0.2\n',
            r"'calibrate.fraction' is 0.2, but 'calibrate.kind' is \"cross\", .*: leave one of the two keys out",
        ),
        (LEAST + "[calibrate]\nfalse_alarms = 1.5\n", r"'calibrate.false_alarms' is 1.5: Input should be less than 1"),
    ],
)
def test_mistakes_are_named(write, text: str, message: str) -> None:
    with pytest.raises(JobError, match=message):
        load_job(write(text))


@pytest.mark.parametrize(
    ("keys", "kind"),
    [
        ("", None),
        ("fraction = 0.2", "split"),
        ('kind = "split"', "split"),
        ('kind = "split"\nfraction = 0.2', "split"),
        ('kind = "cross"', "cross"),
    ],
)
def test_a_fraction_kept_for_calibration_is_a_split(write, keys: str, kind: str | None) -> None:
    assert load_job(write(f"{LEAST}[calibrate]\n{keys}\n")).calibrate.kind_asked == kind


@pytest.mark.parametrize("override", ["train.steps=" + "[" * 5000, "train.steps=" + "9" * 5000, "name=caf\udce9"])
def test_odd_overrides_are_mistakes_too(write, override: str) -> None:
    with pytest.raises(JobError, match=r"'train.steps' is '|is not UTF-8 text"):
        load_job(write(LEAST), [override])


def test_all_mistakes_are_told_at_once(write) -> None:
    path = write(
        'path = "x"\nname = "a b"\ntask = "sing"\n[trian]\nsteps = 1\n[model]\nvae = "Deep"\nsize = "big"\n'
        '[train]\nsteps = 0\n[schedule]\nscore = "1d"\nbudget = 3\ngroups = true\n'
    )
    with pytest.raises(JobError) as told:
        load_job(path)
    lines = [line.removeprefix(f"{path}: ") for line in str(told.value).splitlines()]
    said = [line.split(" is ")[0].split(" are ")[0].split(" needs ")[0].split(" exclude ")[0] for line in lines]
    assert sorted(said) == [
        "'data'", "'model.size'", "'model.vae'", "'name'", "'path'", "'schedule.budget' and 'schedule.groups'",
        "'schedule.score'", "'schedule.score'", "'task'", "'train.steps'", "'trian'",
    ]  # fmt: skip


def test_tasks_are_known_without_their_import() -> None:
    assert task_names() == list(all_tasks())


def test_a_missing_job_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"the job file .*nothing\.toml does not exist: write one"):
        load_job(tmp_path / "nothing.toml")


def test_a_folder_or_a_picture_is_not_a_job_file(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"is a folder: give a job file, such as .*/job\.toml"):
        load_job(tmp_path)
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\xff")
    with pytest.raises(JobError, match=r"the job file .*a\.png is not UTF-8 text: "):
        load_job(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("steps", r"--set takes key=value"),
        ("name.first=x", r"'name' is a value, not a table"),
        ("train.stpes=1", r"did you mean 'steps'\?"),
    ],
)
def test_mistaken_overrides_are_named(write, override: str, message: str) -> None:
    with pytest.raises(JobError, match=message):
        load_job(write(LEAST), [override])


def test_every_key_is_described() -> None:
    for name, field in Job.model_fields.items():
        record = field.annotation
        for key, inner in getattr(record, "model_fields", {}).items():
            assert inner.description, f"{name}.{key} has no description"


@pytest.mark.parametrize(
    "data",
    [
        codecs.BOM_UTF8 + LEAST.encode(),
        LEAST.replace("\n", "\r\n").encode(),
        codecs.BOM_UTF8 + LEAST.replace("\n", "\r\n").encode(),
    ],
    ids=["byte-order mark", "CRLF", "both"],
)
def test_a_job_file_of_another_system_is_read(write, data: bytes) -> None:
    path = write("")
    path.write_bytes(data)
    assert load_job(path).name == "tiles"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_a_job_file_in_utf_16_says_what_to_do(write, encoding: str) -> None:
    path = write("")
    path.write_bytes(LEAST.encode(encoding))
    with pytest.raises(JobError, match=r"job\.toml is not UTF-8 text: it looks like UTF-16, .*; save it as UTF-8$"):
        load_job(path)


def test_a_job_file_in_an_older_encoding_names_the_byte(write) -> None:
    path = write("")
    path.write_bytes(b"# K\xe4se\n" + LEAST.encode())
    with pytest.raises(JobError, match=r"is not UTF-8 text: byte 4 is 0xe4; save it as UTF-8$"):
        load_job(path)


def test_every_path_may_begin_with_the_home(write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    home = tmp_path / "user"
    text = LEAST.replace("images/good", "~/good") + 'labels = "~/labels"\n'
    text += '[model]\nbackbone_weights = "~/w.pth"\n[schedule]\nfolder = "~/in"\nout = "~"\n'
    job = load_job(write(text))
    assert (job.data.train, job.data.labels) == (home / "good", home / "labels")
    assert (job.model.backbone_weights, job.schedule.folder, job.schedule.out) == (home / "w.pth", home / "in", home)
    assert load_job(write(LEAST), ["data.train=~/other"]).data.train == home / "other"
    pairs = LEAST.replace("reconstruct", "unpaired").replace('train = "images/good"', 'degraded = "~/d"\nclean = "~/c"')
    assert load_job(write(pairs)).data.folders == (home / "c", home / "d")
    assert load_job(write(LEAST), ["data.train=~nobody-here/x"]).data.train == tmp_path / "~nobody-here/x"
