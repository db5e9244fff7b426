"""Requests that a server refuses: waiting does not help, so a refusal ends the work that needs the request."""

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
    """Check at intervals that a deployment exists: without it, the runner would silently start no more runs.

    Raises:
        Exception: The deployment is gone, or the server refuses the request.
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
    """Return whether an error is a server's answer, whose text is enough; a bug needs its stack trace."""
    return any(isinstance(link, REFUSALS) for link in chain(leaf(error)))


def reason_of(error: BaseException) -> str:
    """Describe an error on one line, with the next step."""
    links = list(chain(leaf(error)))
    if any(isinstance(link, ObjectNotFound) for link in links):
        return "its deployment was deleted: start `kintsugi serve` again to create it"
    statuses = {http_status(link) for link in links}
    advice = ""
    if statuses & {401, 403}:
        advice = ": check PREFECT_API_AUTH_STRING"
    elif 404 in statuses:
        advice = ": check PREFECT_API_URL"
    elif 422 in statuses:
        advice = ": check that the server has the same version of Prefect as this machine"
    return f"{cause(error)}{advice}"
