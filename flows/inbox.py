"""Start a run for each delivery that arrives in an inbox, one after the other."""

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
LOOK_SECONDS = 5.0  # between two looks into the inbox; less if deliveries settle faster
WAIT_SECONDS = 2.0  # between two checks whether a run has ended


async def attend(deployment: UUID, planned: Planned, inbox: Inbox) -> None:
    """Start a run for each delivery and wait for its end, until this task is cancelled.

    A run that does not complete is tried again; the new run does only the missing work.

    Args:
        deployment: Deployment of the flow, which holds model and rules.
        planned: The schedule entry.
        inbox: The folder in which deliveries arrive.

    Raises:
        Exception: The server refuses the request: the deployment is gone, or the password is wrong.
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
                log.warning(
                    "%s has failed too often and is skipped until a file in it changes: check its runs", delivery
                )
                break


async def _start(deployment: UUID, parameters: dict[str, object], key: str, delivery: Path, pause: float) -> UUID:
    """Ask for a run until the server answers; two requests with one key make one run."""
    outage = Outage(f"the run for {delivery} cannot be started", pause)
    while True:
        try:
            async with get_client() as client:
                run = await client.create_flow_run_from_deployment(
                    deployment, parameters=parameters, idempotency_key=key
                )
        except Exception as error:
            if http_status(error) == 404:
                raise ObjectNotFound(error) from error  # for this request, Prefect's client raises another error
            if not is_transient(error):
                raise
            outage.report(error)
            await asyncio.sleep(pause)
        else:
            outage.end()
            return run.id


async def _completed(run: UUID, delivery: Path) -> bool:
    """Wait for a run's end, even while its server is away, and return whether the run completed."""
    outage = Outage(f"the state of the run for {delivery} is not known", WAIT_SECONDS)
    while True:
        await asyncio.sleep(WAIT_SECONDS)
        try:
            async with get_client() as client:
                state = (await client.read_flow_run(run)).state
        except ObjectNotFound:
            log.warning("the run for %s was deleted: it counts as failed", delivery)
            return False
        except Exception as error:
            if not is_transient(error):
                raise
            outage.report(error)
            continue
        outage.end()
        if state is not None and state.is_final():
            return state.type == StateType.COMPLETED
