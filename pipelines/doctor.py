"""What works here: versions, GPU, registry, orchestrator, disk. Each line says what to do when it does not."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from pathlib import Path

from pipelines.base.cores import affine_cores, core_limit, usable_cores
from pipelines.base.software import DISTRIBUTION
from pipelines.errors import SettingsError
from pipelines.models.providers import probe
from pipelines.settings import settings

PACKAGES = (DISTRIBUTION, "onnxruntime-gpu", "onnxruntime", "torch", "torchvision", "lightning", "mlflow", "prefect")
LOW_DISK = 5 * 2**30
CLOCKS_APART = 30.0  # seconds: a lease of Prefect's lasts minutes, a token of S3 fifteen


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's."""

    subject: str
    works: bool | None  # None: a fact, neither good nor bad
    detail: str


def examine() -> Iterator[Finding]:
    """Look at one thing after the other; a check that itself breaks is a finding, not a crash."""
    yield _guarded("packages", _packages)
    try:
        settings()
    except SettingsError as error:  # every check below would break on it, and say the same again
        yield Finding("settings", False, str(error))
        return
    for subject, check in (
        ("cores", _cores),
        ("formats", _formats),
        ("training", _training),
        ("GPU", _gpu),
        ("home", _home),
        ("registry", _registry),
        ("orchestrator", _orchestrator),
        ("notifications", _notifications),
    ):
        yield _guarded(subject, check)


def _guarded(subject: str, check: Callable[[], tuple[bool | None, str]]) -> Finding:
    try:
        works, detail = check()
    except Exception as error:  # noqa: BLE001 - the doctor has to survive every illness
        works, detail = False, f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    return Finding(subject, works, detail)


def _packages() -> tuple[bool | None, str]:
    found = []
    for package in PACKAGES:
        try:
            found.append(f"{package} {installed_version(package)}")
        except PackageNotFoundError:
            continue
    return None, ", ".join(found)


def _cores() -> tuple[bool | None, str]:
    limit = f", a container limit of {core_limit():g}" if core_limit() < affine_cores() else ""
    return None, (
        f"{usable_cores()} of {os.cpu_count()} may be used (affinity to {affine_cores()}{limit}); "
        f"KINTSUGI_WORKERS is {settings().workers}"
    )


def _formats() -> tuple[bool | None, str]:
    """Name the formats that are read here."""
    from pipelines.images.read import missing_packages, readable_formats

    detail = f"{', '.join(readable_formats())} are read"
    missing = [f"{format_} needs {package} (pip install {package})" for format_, package in missing_packages().items()]
    return None if missing else True, "; ".join([detail, *missing])


def _training() -> tuple[bool | None, str]:
    try:
        import torch  # optional: a scoring worker has none
    except ImportError:
        return None, "not installed; this machine can score, but not train (make setup in a checkout)"
    cuda = torch.cuda.is_available() and settings().device != "cpu"
    return True, f"on {torch.cuda.get_device_name() if cuda else 'CPU'}, {torch.get_num_threads()} threads"


def _gpu() -> tuple[bool | None, str]:
    found = probe()
    wanted = settings().device
    if wanted == "cuda" and not found.cuda:
        return False, f"KINTSUGI_DEVICE=cuda, but {found.reason}"
    return (
        True if found.cuda else None
    ), f"{found.reason}; scoring runs on {'GPU' if found.cuda and wanted != 'cpu' else 'CPU'}"


def _home() -> tuple[bool | None, str]:
    home = settings().home
    try:
        home.mkdir(parents=True, exist_ok=True)
        probe_file = home / ".doctor"
        probe_file.write_text("")
        probe_file.unlink()
    except OSError as error:
        return False, f"KINTSUGI_HOME={home} cannot be written ({error.strerror}); set it to a folder of yours"
    free = shutil.disk_usage(home).free
    detail = f"{home.resolve()} is writable, {free / 2**30:.0f} GiB free"
    return (True, detail) if free > LOW_DISK else (False, f"{detail}: less than 5 GiB; make room or move KINTSUGI_HOME")


def _registry() -> tuple[bool | None, str]:
    from pipelines.registry.store import Registry

    models = Registry().models()
    where = "server" if os.environ.get("MLFLOW_TRACKING_URI") else "embedded"
    return True, f"{where} ({_without_password(settings().tracking_uri)}), {len(models)} model(s)"


def _orchestrator() -> tuple[bool | None, str]:
    try:
        installed_version("prefect")
    except PackageNotFoundError:
        return None, "prefect is not installed; schedules cannot run here (make setup in a checkout)"
    address = os.environ.get("PREFECT_API_URL")
    if not address:
        return True, f"embedded (no PREFECT_API_URL); `kintsugi serve` starts a server under {Path(settings().home)}"
    import httpx  # comes with prefect

    user, found, password = os.environ.get("PREFECT_API_AUTH_STRING", "").partition(":")
    # Not /health, which asks nobody who he is.
    answer = httpx.get(f"{address.rstrip('/')}/admin/version", timeout=5, auth=(user, password) if found else None)
    where = f"server {_without_password(address)}"
    if answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        return False, f"{where} does not know you: set PREFECT_API_AUTH_STRING to USER:PASSWORD"
    if answer.status_code != httpx.codes.OK:
        return False, f"{where} answers {answer.status_code}: look whether PREFECT_API_URL ends in /api"
    if late := _clock_apart(answer.headers.get("date"), datetime.now(UTC)):
        return False, f"{where}: {late}"
    return True, f"{where}: healthy"


def _clock_apart(told: str | None, now: datetime) -> str | None:
    """What is wrong where a server's clock and this one tell different times; None where nothing is.

    Args:
        told: The header `Date` of its answer.
        now: What time it is here.
    """
    try:
        seconds = (parsedate_to_datetime(told) - now).total_seconds() if told else 0.0
    except (TypeError, ValueError):  # no date
        return None
    if abs(seconds) <= CLOCKS_APART:
        return None
    way = "ahead" if seconds > 0 else "behind"
    return f"its clock is {abs(seconds):.0f} s {way}: schedules and leases go wrong; set the clocks"


def _notifications() -> tuple[bool | None, str]:
    addresses = settings().notify
    count = len(addresses.get_secret_value().split()) if addresses else 0
    told = f"{count} address(es) in KINTSUGI_NOTIFY" if count else "nobody (KINTSUGI_NOTIFY is not set)"
    return None, f"of alarms, champions and failures: {told}"


def _without_password(address: str) -> str:
    """The address as it may be shown."""
    scheme, separator, rest = address.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}" if separator else address
