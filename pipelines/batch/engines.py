"""Where the shards of a job over a folder are done: in this process, or on every machine of a Ray cluster.

A worker of the cluster is an actor of Ray Data that holds one session and does shards as this process would: the same
function, the same output folder, the same bytes. What is done is in the output folder alone, so of a worker that is
lost nothing need be known: another one does its shards.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import platform
import signal
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal, cast, get_args

from pipelines.base.progress import Advance, progress
from pipelines.batch.folder_run import STAGES, FolderRun, Shard
from pipelines.errors import EngineError, KintsugiError
from pipelines.settings import PREFIX, settings

log = logging.getLogger(__name__)
Engine = Literal["local", "ray"]
ENGINES: tuple[Engine, ...] = get_args(Engine)
RunAll = Callable[[FolderRun, Sequence[Shard], Advance], None]
MOST_TASKS = 10_000  # of a dataset; beyond that a task is several shards
LISTED_WITHIN = 90.0  # seconds, after which a network file system shows what other machines have written
MOST_CHARACTERS = 400


def check_engine(name: str) -> Engine:
    """The engine of a name.

    Raises:
        EngineError: There is none.
    """
    engine: Engine | None = next((known for known in ENGINES if known == name), None)
    if engine is None:
        raise EngineError(f"there is no engine '{name}': use {' or '.join(ENGINES)}")
    return engine


def expect_local(engine: Engine, what: str) -> None:
    """Refuse an engine of other machines for what is called in this process.

    Raises:
        EngineError: It is one, or there is none of the name.
    """
    if check_engine(engine) != "local":
        raise EngineError(f"{what} needs the engine 'local', but the engine is '{engine}': use the engine 'local'")


@contextlib.contextmanager
def open_engine(engine: Engine) -> Iterator[RunAll]:
    """Find the machines before anything else is done; yields what does all shards of a job.

    Raises:
        EngineError: There is no cluster.
    """
    if check_engine(engine) == "local":
        yield one_by_one
        return
    with _connect():
        yield on_ray


def run_job(opened: AbstractContextManager[FolderRun], engine: Engine) -> Any:  # noqa: ANN401
    """Open a job, do its shards, and finish it; returns what `finish` returns."""
    with open_engine(engine) as run_all, opened as job:
        shards, log = job.shards(), logging.getLogger(f"pipelines.{job.verb}")
        with progress(log, job.verb, len(job.files), "images", len(job.files) - job.left) as advance:
            run_all(job, shards, advance)
        return job.finish()


def one_by_one(job: FolderRun, shards: Sequence[Shard], advance: Advance) -> None:
    """Do them in this process."""
    for shard in shards:
        job.run(shard, advance)


def on_ray(job: FolderRun, shards: Sequence[Shard], advance: Advance) -> None:
    """Do them on the machines of the cluster, all of which see the folders under the same paths.

    Ray does the shards of a lost machine again. Where it gives up, what is left is begun anew as long as that helps.

    Raises:
        EngineError: Workers are lost again and again.
        KintsugiError, OSError: As a worker has it.
    """
    from ray.exceptions import NodeDiedError, ObjectLostError, RayActorError, RayError, WorkerCrashedError

    told = 0
    while shards:
        before = job.left
        try:
            for images in _done(job, shards):
                advance(images)
                told += images
            break
        except (RayActorError, NodeDiedError, ObjectLostError, WorkerCrashedError) as error:
            log.warning("workers of the cluster were lost: their missing work is done again")
            first, shards = job.left, job.shards()
            if job.left == before:
                raise EngineError(f"the cluster keeps losing its workers: {_brief(error)}") from error
            advance(first - job.left - told)
            told = 0
        except RayError as error:
            raise EngineError(f"the cluster cannot do this job: {_brief(error)}") from error
    job.output.sweep()  # what lost workers have left half written
    _await_rows(job)


def _await_rows(job: FolderRun) -> None:
    """A folder of other machines may be listed here as it was a minute ago; what is missing then, `finish` tells."""
    given_up = time.monotonic() + LISTED_WITHIN
    while job.count_missing() and time.monotonic() < given_up:
        time.sleep(2)


def _done(job: FolderRun, shards: Sequence[Shard]) -> Iterator[int]:
    """Images of each shard that is done."""
    import ray
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_no_progress_timeout_s = -1  # a shard of large images may take longer than Ray's half an hour
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    cpus, gpus, room = _share()
    # Once for each machine, whatever the number of its workers: columns of names are read where they are.
    packed = ray.put((job.for_worker(), shards))
    numbers = ray.data.from_items(
        [{"shard": number} for number in range(len(shards))], override_num_blocks=min(len(shards), MOST_TASKS)
    )
    done = numbers.map_batches(
        _Worker,
        fn_constructor_args=([packed], _environment(cpus)),  # in a list: a bare reference would be fetched here
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=len(shards), initial_size=min(room, len(shards))),
        num_cpus=cpus,
        num_gpus=gpus,
    )
    coming = cast(Generator[dict[str, Any]], iter(done.iter_rows()))
    with contextlib.closing(coming) as rows:
        for row in rows:
            if row["error"]:
                raise pickle.loads(row["error"])  # noqa: S301 - our own worker's
            job.ran_on.add(row["provider"])
            for stage, seconds in zip(job.stages.seconds, row["spent"], strict=True):
                job.stages.add(stage, seconds)
            yield row["images"]


class _Worker:
    """One session, on whichever machine."""

    def __init__(self, packed: list[Any], environment: dict[str, str]) -> None:
        self._packed, self._environment = packed, environment
        self._opened: tuple[FolderRun, Sequence[Shard]] | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Do one shard; an error travels as a value, since Ray keeps but the text of those that are raised."""
        (number,) = batch["shard"].tolist()
        try:
            job, shards = self._open()
            before = dict(job.stages.seconds)
            job.run(shards[number])
        except (KintsugiError, OSError) as error:
            return _report(error)
        except Exception as error:  # noqa: BLE001 - whatever it is, the user is to know where it was
            return _report(EngineError(f"on {platform.node()}: {type(error).__name__}: {_brief(error)}"))
        spent = [seconds - before[stage] for stage, seconds in job.stages.seconds.items()]
        done = [len(shards[number].indices)]
        return {"images": done, "spent": [spent], "error": [b""], "provider": [job.session.provider]}

    def _open(self) -> tuple[FolderRun, Sequence[Shard]]:
        import ray

        if self._opened is None:
            os.environ.update(self._environment)
            self._opened = ray.get(self._packed[0])
        return self._opened


def _report(error: Exception) -> dict[str, list[Any]]:
    return {"images": [0], "spent": [[0.0] * len(STAGES)], "error": [pickle.dumps(error)], "provider": [""]}


@contextlib.contextmanager
def _connect() -> Iterator[None]:
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # its other lines are of no use to whoever reads ours
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")  # what Ray Data leaves behind would connect again
    import ray

    if ray.is_initialized():  # the caller's: it is not ours to leave
        yield
        return
    address = os.environ.get("RAY_ADDRESS", "auto")
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        _expect_answer(address)
        ray.init(address=address, logging_level=logging.WARNING, log_to_driver=False)
    except (OSError, ValueError, RuntimeError) as error:
        raise EngineError(
            f"no Ray cluster answers at {address} ({_brief(error)}): `ray start --head` starts one here, "
            "RAY_ADDRESS=HOST:6379 names another"
        ) from None
    if threading.current_thread() is threading.main_thread():  # where Ray has put its own
        signal.signal(signal.SIGTERM, on_sigterm)
    try:
        yield
    finally:
        for thread in threading.enumerate():
            if thread.name.startswith("StreamingExecutor"):  # of a dataset that was not read to its end
                thread.join(timeout=10)
        ray.shutdown()


def _expect_answer(address: str) -> None:
    """Ray itself tries for minutes.

    Raises:
        OSError: Nothing answers there.
    """
    host, _, port = address.rpartition(":")
    if host and port.isdigit() and "/" not in host:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


def _share() -> tuple[float, float, int]:
    """Cores and GPUs of each worker, which no machine is too small for, and how many workers there is room for."""
    import ray

    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    resources = [node["Resources"] for node in nodes if node["Alive"]]
    cores = [found["CPU"] for found in resources if found.get("CPU", 0) >= 1]
    if not cores:
        raise EngineError("no machine of the Ray cluster has a free core: start one with --num-cpus")
    wanted = float(settings().workers)
    with_gpu = [found for found in resources if found.get("GPU", 0) >= 1 and found.get("CPU", 0) >= 1]
    if with_gpu and settings().device != "cpu":  # a worker for each GPU, and machines without one do nothing
        each = min(wanted, *(found["CPU"] // found["GPU"] for found in with_gpu))
        return max(each, 1.0), 1.0, int(sum(found["GPU"] for found in with_gpu))
    each = min(wanted, *cores)
    return each, 0.0, int(sum(found // each for found in cores))


def _environment(cpus: float) -> dict[str, str]:
    """What workers are to be told: settings change what is done, such as the size of images that are refused.

    Whom to tell of alarms is not theirs to know: only the process that was started does that.
    """
    here = settings().model_dump(exclude={"home", "notify"}) | {"workers": int(cpus)}
    return {f"{PREFIX}{name.upper()}": str(value) for name, value in here.items()}


def _brief(error: BaseException) -> str:
    """Its text on one line; of a long one the end, where the cause is."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= MOST_CHARACTERS else f"... {text[-MOST_CHARACTERS:]}"
