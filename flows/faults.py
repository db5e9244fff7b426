"""What a server that answers has against a request: such a fault does not mend itself, so it ends what ran into it."""

from __future__ import annotations

import asyncio
from uuid import UUID

import httpx
from prefect.client.orchestration import get_client
from prefect.deployments.runner import DeploymentApplyError
from prefect.exceptions import ObjectNotFound, PrefectException

from flows.retries import cause, chain, http_status, is_transient, leaf
from pipelines.errors import KintsugiError

WATCH_SECONDS = 30.0  # between two looks whether a deployment is still there
REFUSALS = (KintsugiError, PrefectException, httpx.HTTPError, DeploymentApplyError)


async def expect_deployment(deployment: UUID) -> None:
    """Look for a deployment now and then: of one that is gone the runner would start no more runs, and say nothing.

    Raises:
        Exception: It is gone, or the server answers and refuses.
    """
    while True:
        await asyncio.sleep(WATCH_SECONDS)
        try:
            async with get_client() as client:
                await client.read_deployment(deployment)
        except Exception as error:
            if not is_transient(error):  # an outage is the runner's to report
                raise


def is_refusal(error: BaseException) -> bool:
    """Return whether an error is a server's answer, whose text says all; of a bug, the trace says more."""
    return any(isinstance(link, REFUSALS) for link in chain(leaf(error)))


def reason_of(error: BaseException) -> str:
    """Describe a fault on one line, with the next step."""
    links = list(chain(leaf(error)))
    if any(isinstance(link, ObjectNotFound) for link in links):
        return "somebody has deleted its deployment: a new start makes it again"
    statuses = {http_status(link) for link in links}
    advice = ""
    if statuses & {401, 403}:
        advice = ": check PREFECT_API_AUTH_STRING"
    elif 404 in statuses:
        advice = ": check PREFECT_API_URL"
    elif 422 in statuses:
        advice = ": does the server have this machine's version of Prefect?"
    return f"{cause(error)}{advice}"
