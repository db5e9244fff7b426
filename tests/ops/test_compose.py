"""The servers' files: no engine is needed to find most of what would stop `docker compose up`."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "docker-compose.yml"
EXAMPLE = ROOT / "docker" / ".env.example"
ONE_SHOT = "service_completed_successfully"
VARIABLE = re.compile(r"\$\{(\w+)(.*?)\}")
SECRET = re.compile(r"PASSWORD|SECRET|ACCESS_KEY|AUTH_STRING|TOKEN")


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load(COMPOSE.read_text())


@pytest.fixture(scope="module")
def services(compose):
    return compose["services"]


@pytest.fixture
def generated(tmp_path):
    """An .env made by the generator, for a folder whose name is a trap."""
    env = tmp_path / ".env"
    generate(env, "--data", tmp_path / "images of $HOME #1")
    return env


def generate(env, *options):
    command = [sys.executable, ROOT / "docker" / "generate-env", "--output", env, *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def read_env(path):
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def one_shots(services):
    needs = [service.get("depends_on", {}) for service in services.values()]
    return {name for need in needs for name, how in need.items() if how["condition"] == ONE_SHOT}


def lock_pins(name, lock="requirements.lock"):
    return re.search(rf"^{name}==(\S+)", (ROOT / lock).read_text(), re.MULTILINE)


def test_follows_the_compose_specification():
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", COMPOSE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_service_has_a_health_check_or_ends_by_itself(services):
    without = {name for name, service in services.items() if "healthcheck" not in service}
    assert without == one_shots(services)


def test_services_wait_for_what_they_need(services):
    for name, service in services.items():
        for needed, how in service.get("depends_on", {}).items():
            assert needed in services, f"{name} waits for {needed}, which is no service"
            assert "profiles" not in services[needed], f"{name} waits for {needed}, which may be switched off"
            ends = needed in one_shots(services)
            assert how["condition"] == (ONE_SHOT if ends else "service_healthy")


def test_services_restart_but_one_shots_only_after_a_failure(services):
    for name, service in services.items():
        expected = "on-failure:5" if name in one_shots(services) else "unless-stopped"
        assert service["restart"] == expected, name


def test_images_are_pinned(services):
    images = {service["image"] for service in services.values()}
    for image in images:
        assert re.search(r":\d+\.\d+", image), f"{image} names no version"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f"kintsugi:{project['version']}" in images
    assert re.search(r"^ARG PYTHON_IMAGE=python:3\.11\.\d+-slim-bookworm$", dockerfile(), re.MULTILINE)


def test_the_image_is_built_by_one_service_that_the_others_wait_for(services):
    """Two services that build one tag race for it on the first build."""
    ours = {name for name, service in services.items() if service["image"].startswith("kintsugi:")}
    (builder,) = [name for name in ours if "build" in services[name]]

    def waits(name):
        needed = services[name].get("depends_on", {})
        return builder in needed or any(waits(other) for other in needed)

    assert all(waits(name) for name in ours - {builder})


def test_no_password_is_in_the_file(services):
    for name, service in services.items():
        for key, value in service.get("environment", {}).items():
            if SECRET.search(key):
                assert VARIABLE.fullmatch(value), f"{name}: {key} is written out"


def test_variables_are_demanded_and_in_the_example():
    used = VARIABLE.findall(COMPOSE.read_text())
    listed = read_env(EXAMPLE)
    assert {name for name, _ in used} == set(listed) - {"COMPOSE_PROFILES"}
    # Nobody has to be told, lines are for people, and an .env of before has no review page.
    optional = {"KINTSUGI_NOTIFY", "KINTSUGI_LOG", "REVIEW_URL", "REVIEW_SECRET"}
    demanded = [rest.startswith(":?") for name, rest in used if name not in optional]
    assert all(demanded), "a variable that is not set must stop Compose"
    assert set(listed.values()) == {""}, "an example value becomes everybody's password"


def test_ports_are_published_where_env_says(services):
    published = [port for service in services.values() for port in service.get("ports", [])]
    assert len(published) == 3
    assert all(port.startswith("${KINTSUGI_BIND:?") for port in published)


def test_workers_and_databases_share_no_network(compose, services):
    assert compose["networks"]["storage"]["internal"]
    for name in ("postgres", "object-store"):
        assert services[name]["networks"] == ["storage"]
    for name in ("worker-cpu", "worker-gpu"):
        assert services[name]["networks"] == ["services"]
    assert services["reports"]["networks"] == ["pages", "answers"], "browsers' server reaches the review page alone"
    assert [name for name, service in services.items() if "answers" in service["networks"]] == ["review", "reports"]
    assert compose["networks"]["answers"]["internal"]
    assert services["review"]["networks"] == ["answers"]
    assert [name for name, service in services.items() if "pages" in service["networks"]] == ["reports"]


def test_each_service_has_a_limit_of_memory(services):
    for name, service in services.items():
        limits = service["deploy"]["resources"]["limits"]
        of_worker = limits["memory"].startswith("${KINTSUGI_WORKER_MEMORY:?")
        assert of_worker if name.startswith("worker") else re.fullmatch(r"\d+[mg]", limits["memory"]), name
    servers = {name: service["deploy"]["resources"]["limits"]["memory"] for name, service in services.items()}
    gigabytes = [int(size[:-1]) / (1 if size[-1] == "g" else 1024) for size in servers.values() if size[-1] in "gm"]
    assert sum(gigabytes) - 2 * 1 < 6, "two of them end before the worker starts; docker/generate-env leaves 6 GB"


def test_reports_are_read_only_and_ask_for_a_password(services):
    mounts = [mount for mount in services["reports"]["volumes"] if isinstance(mount, dict)]
    assert [(mount["target"], mount["read_only"]) for mount in mounts] == [("/reports", True)]
    settings = (ROOT / "docker" / "reports.conf.template").read_text()
    assert "auth_basic_user_file /etc/nginx/conf.d/reports.users;" in settings
    assert (ROOT / "docker" / "reports.users.template").read_text() == "reports:{PLAIN}${REPORTS_PASSWORD}\n"


def test_the_review_page_is_optional_and_is_reached_through_the_reports_server_alone(services):
    review = services["review"]
    assert review["profiles"] == ["review"]
    assert "ports" not in review
    command = review["command"]
    assert command[command.index("--behind") + 1] == "${REVIEW_URL-}"
    port = command[command.index("--port") + 1]
    secrets = review["environment"]["KINTSUGI_REVIEW_SECRET"], services["reports"]["environment"]["REVIEW_SECRET"]
    assert secrets == ("${REVIEW_SECRET-}", "${REVIEW_SECRET-}")
    settings = (ROOT / "docker" / "reports.conf.template").read_text()
    assert f"set $review http://review:{port};" in settings
    assert 'proxy_set_header X-Kintsugi-Secret "${REVIEW_SECRET}";' in settings
    assert 'proxy_set_header Authorization "";' in settings
    assert settings.count("auth_basic off") == 1, "only the health check goes without a password"


def test_the_review_page_reads_images_and_writes_reports_and_answers(services):
    mounts = {each["target"]: each for each in services["review"]["volumes"] if isinstance(each, dict)}
    assert mounts.keys() == {"/data", "/data/reports"}
    assert mounts["/data"]["read_only"]
    assert "read_only" not in mounts["/data/reports"]
    volumes = [
        [each for each in services[name]["volumes"] if isinstance(each, str)] for name in ("review", "worker-cpu")
    ]
    assert volumes[0] == volumes[1], "trainings of the worker read what people answer"


def test_browsers_see_the_report_folder_of_the_deployments(services):
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    outs = {each["parameters"]["out"] for each in deployments if "out" in each.get("parameters", {})}
    assert outs == {"/data/reports"}


def test_only_the_gpu_profile_reserves_a_gpu(services):
    reserving = {name for name, service in services.items() if "reservations" in service["deploy"]["resources"]}
    assert reserving == {"worker-gpu"}
    assert services["worker-gpu"]["profiles"] == ["gpu"]
    assert services["worker-cpu"]["profiles"] == ["cpu"]
    (device,) = services["worker-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["driver"] == "nvidia"
    assert device["capabilities"] == ["gpu"]


def test_the_worker_takes_from_the_pool_of_the_deployments(services):
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    pools = {deployment["work_pool"]["name"] for deployment in deployments}
    command = services["worker-cpu"]["command"]
    assert pools == {command[command.index("--pool") + 1]}
    assert f"work-pool create --type process {pools.pop()}" in services["deployments"]["command"][-1]


def test_named_volumes_and_mounted_files_exist(compose, services):
    mounts = [mount for service in services.values() for mount in service.get("volumes", [])]
    sources = [mount.split(":")[0] for mount in mounts if isinstance(mount, str)]
    assert {source for source in sources if not source.startswith(".")} == set(compose["volumes"])
    for source in sources:
        assert not source.startswith(".") or (ROOT / source).is_file()


def test_the_servers_packages_are_in_the_lock(services):
    assert "--app-name=basic-auth" in services["mlflow"]["command"]
    for name in ("flask-wtf", "psycopg2-binary", "boto3", "prefect", "asyncpg"):  # the first is basic-auth's
        assert lock_pins(name), f"{name} is missing from requirements.lock"


def test_generated_env_fills_every_variable(generated, tmp_path):
    values = read_env(generated)
    assert set(values) == set(read_env(EXAMPLE))
    assert {name for name, value in values.items() if not value} <= {"KINTSUGI_LOG", "KINTSUGI_NOTIFY"}
    assert stat.S_IMODE(generated.stat().st_mode) == 0o600
    assert values["KINTSUGI_DATA"] == f"'{tmp_path}/images of $HOME #1'"
    assert values["COMPOSE_PROFILES"] == "cpu"
    assert "0" not in (values["KINTSUGI_UID"], values["KINTSUGI_GID"])
    secrets = [value for name, value in values.items() if re.search(r"PASSWORD|S3|SECRET|SESSION|AUTH", name)]
    assert len(set(secrets)) == len(secrets) == 10
    assert values["REVIEW_URL"] == "http://localhost:8000/review/"
    assert values["KINTSUGI_REPORTS"] == f"'{tmp_path}/images of $HOME #1/reports'"
    assert (tmp_path / "images of $HOME #1" / "reports").is_dir()
    assert int(values["KINTSUGI_WORKER_MEMORY"].removesuffix("m")) >= 2000
    assert all(re.fullmatch(r"[\w:-]{20,}", secret, re.ASCII) for secret in secrets)


def test_generator_makes_no_report_folder_that_the_worker_could_not_write(tmp_path):
    """Where the data folder is somebody else's: the worker has its owner's ids."""
    data = tmp_path / "data"
    data.mkdir()
    if os.getuid() == 0:  # who may write everywhere: the one that is asked for is not root's, and cannot become so
        os.chown(data, 1234, 1234)
        assert generate(tmp_path / ".env", "--data", data).returncode == 0
        assert (data / "reports").stat().st_uid == 1234
        os.chown(data / "reports", 0, 0)
        done = generate(tmp_path / "other.env", "--data", data)
        assert done.returncode == 2
        assert f"chown 1234 {data / 'reports'}" in done.stderr
    else:
        data.chmod(0o555)
        done = generate(tmp_path / ".env", "--data", data)
        assert done.returncode == 2
        assert f"make {data / 'reports'} first" in done.stderr
        assert not (tmp_path / ".env").exists()


def test_generator_tells_what_it_made_and_what_is_no_folder(tmp_path):
    done = generate(tmp_path / "e.env", "--data", tmp_path / "new")
    assert f"made the folder {tmp_path / 'new'}" in done.stdout
    assert f"docker compose --env-file {tmp_path / 'e.env'} up" in done.stdout
    (tmp_path / "file").touch()
    done = generate(tmp_path / "f.env", "--data", tmp_path / "file")
    assert done.returncode == 2
    assert "is a file" in done.stderr


def test_generator_does_not_overwrite(generated):
    before = generated.read_bytes()
    again = generate(generated)
    assert again.returncode == 2
    assert "--output" in again.stderr
    assert generated.read_bytes() == before


def test_generator_makes_other_secrets_each_time(generated, tmp_path):
    other = tmp_path / "other.env"
    assert generate(other, "--gpu", "--review", "--data", tmp_path).returncode == 0
    values = read_env(other)
    assert values["COMPOSE_PROFILES"] == "gpu,review"
    assert values["PREFECT_AUTH"] != read_env(generated)["PREFECT_AUTH"]


def dockerfile():
    return (ROOT / "Dockerfile").read_text().replace("\\\n", " ")


def copied():
    """Sources of the COPY steps that come from the folder, not from another stage."""
    steps = re.findall(r"^COPY (?!--from)(.+)$", dockerfile(), re.MULTILINE)
    return [source for step in steps for source in step.split()[:-1]]


def test_dockerfile_copies_files_that_exist_and_are_let_through():
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert rules[0] == "*"
    let_through = [rule.removeprefix("!") for rule in rules if rule.startswith("!")]
    assert copied()
    for source in copied():
        assert (ROOT / source).exists(), source
        assert any(fnmatch(source, rule) for rule in let_through), f".dockerignore keeps {source} out"
    assert set(let_through) == set(copied()), "let through, but not copied"


def test_dockerfile_stages_and_targets(services):
    names = re.findall(r"^FROM \S+ AS ([\w-]+)$", dockerfile(), re.MULTILINE)
    taken_from = re.findall(r"^COPY --from=([\w-]+)", dockerfile(), re.MULTILINE)
    assert {"scorer", "full", *taken_from} <= set(names)
    assert services["bucket"]["build"]["target"] == "full"
    base = dockerfile().split(" AS base\n")[1]
    assert re.search(r"^USER kintsugi$", base, re.MULTILINE)
    assert "USER root" not in base


def test_dockerfile_finds_uv_and_the_build_backend_in_the_lock():
    """The steps cut uv's entry out of the lock; an empty cut would install nothing."""
    assert "sed -n '/^uv==/,/^    # via/p' requirements.lock" in dockerfile()
    for name in ("uv", "hatchling", "editables"):
        assert lock_pins(name), f"{name} is missing from requirements.lock"


def test_files_of_the_containers_commands_are_in_the_image(services):
    inside = [word for service in services.values() for word in service.get("command", []) if word.endswith(".py")]
    inside += [
        value.removeprefix("/app/")
        for service in services.values()
        for value in service.get("environment", {}).values()
        if value.startswith("/app/")
    ]
    assert len(inside) == 2
    for name in inside:
        assert name in copied(), name


def test_the_servers_are_the_client_s_versions():
    for name in ("mlflow", "prefect"):
        assert lock_pins(name)[1] == version(name)
