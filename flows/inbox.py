"""What arrives in an inbox is worked on, one delivery after the other."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.exceptions import ObjectNotFound

from flows.retries import Outage, http_status, is_transient
from flows.schedules import Planned
from pipelines.batch.deliveries import Inbox

log = logging.getLogger("pipelines.inbox")
LOOK_SECONDS = 5.0  # between two looks; less where a delivery need not rest for long
WAIT_SECONDS = 2.0  # between two questions whether a run has ended


async def attend(deployment: UUID, planned: Planned, inbox: Inbox) -> None:
    """Start a run for each delivery, and wait for its end: until it is cancelled.

    A run that does not complete is tried again, which does only what is missing.

    Args:
        deployment: Of the flow; it says model and rules.
        planned: What it is.
        inbox: Where deliveries come.

    Raises:
        Exception: The server answers, and refuses: the deployment is gone, or the password is wrong.
    """
    inbox.open()
    pause = min(LOOK_SECONDS, inbox.settle.total_seconds() / 2)
    while True:
        delivery = await asyncio.to_thread(inbox.find_next)
        if delivery is None:
            await asyncio.sleep(pause)
            continue
        places = {"folder": str(delivery), "out": str(inbox.out / delivery.name)}
        while True:
            run = await _start(deployment, planned.parameters | places, inbox.name_attempt(delivery), delivery, pause)
            if await _completed(run, delivery):
                await asyncio.to_thread(inbox.record_done, delivery)
                break
            if not inbox.record_failure(delivery):
                log.warning("%s is left alone until something comes into it: look at its last runs", delivery)
                break


async def _start(deployment: UUID, parameters: dict[str, object], key: str, delivery: Path, pause: float) -> UUID:
    """Ask for a run until the server has heard; asked twice with one key, it makes one run."""
    outage = Outage(f"the run for {delivery} cannot be started", pause)
    while True:
        try:
            async with get_client() as client:
                run = await client.create_flow_run_from_deployment(
                    deployment, parameters=parameters, idempotency_key=key
                )
        except Exception as error:
            if http_status(error) == 404:
                raise ObjectNotFound(error) from error  # of this request, Prefect's client does not say so itself
            if not is_transient(error):
                raise
            outage.report(error)
            await asyncio.sleep(pause)
        else:
            outage.end()
            return run.id


async def _completed(run: UUID, delivery: Path) -> bool:
    """Wait for a run's end, whatever its server does meanwhile, and tell whether it was a good one."""
    outage = Outage(f"whether the run for {delivery} has ended is not known", WAIT_SECONDS)
    while True:
        await asyncio.sleep(WAIT_SECONDS)
        try:
            async with get_client() as client:
                state = (await client.read_flow_run(run)).state
        except ObjectNotFound:
            log.warning("somebody has deleted the run for %s: it counts as one that failed", delivery)
            return False
        except Exception as error:
            if not is_transient(error):
                raise
            outage.report(error)
            continue
        outage.end()
        if state is not None and state.is_final():
            return state.type == StateType.COMPLETED
