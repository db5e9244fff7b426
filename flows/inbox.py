"""What arrives in an inbox is worked on, one delivery after the other."""

from __future__ import annotations

import asyncio
from uuid import UUID

import httpx
from prefect.client.orchestration import get_client
from prefect.exceptions import PrefectException

from flows.schedules import Planned
from pipelines.arrivals import Inbox

LOOK_SECONDS = 5.0  # between two looks; less where a delivery need not rest for long
WAIT_SECONDS = 2.0  # between two questions whether a run has ended


async def attend(deployment: UUID, planned: Planned, inbox: Inbox) -> None:
    """Start a run for each delivery, and wait for its end: until it is cancelled.

    Args:
        deployment: Of the flow; it says model and rules.
        planned: What it is.
        inbox: Where deliveries come.
    """
    pause = min(LOOK_SECONDS, inbox.settle.total_seconds() / 2)
    while True:
        delivery = await asyncio.to_thread(inbox.arrived)
        if delivery is None:
            await asyncio.sleep(pause)
            continue
        places = {"folder": str(delivery), "out": str(inbox.out / delivery.name)}
        try:
            async with get_client() as client:
                run = await client.create_flow_run_from_deployment(deployment, parameters=planned.parameters | places)
        except (httpx.HTTPError, PrefectException):
            inbox.take_back(delivery)
            await asyncio.sleep(pause)
            continue
        await _ended(run.id)


async def _ended(run: UUID) -> None:
    """Wait for a run's end, whatever its server does meanwhile."""
    while True:
        await asyncio.sleep(WAIT_SECONDS)
        try:
            async with get_client() as client:
                state = (await client.read_flow_run(run)).state
        except (httpx.HTTPError, PrefectException):
            continue
        if state is not None and state.is_final():
            return
