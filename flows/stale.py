"""Close flow runs whose process was killed: for Prefect they run for ever and keep their place in the queue."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterNextScheduledStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import StateType
from prefect.exceptions import ObjectNotFound
from prefect.states import Crashed

ACTIVE = [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]
PAGE = 200  # the most that the server returns at once


def close_all_runs(reason: str) -> int:
    """Mark all active runs as crashed and pause all deployments: for a server that has just started.

    Args:
        reason: Shown as the run's message.

    Returns:
        Number of runs that were marked.
    """
    with get_client(sync_client=True) as client:
        while deployments := [d for d in client.read_deployments(limit=PAGE) if not d.paused]:
            for deployment in deployments:
                client.pause_deployment(deployment.id)
        return _close(client, FlowRunFilter(state=_active()), reason)


def close_runs_of(deployments: Sequence[UUID], tag: str, reason: str) -> int:
    """Mark the active runs of some deployments as crashed if they have the tag of this machine.

    Args:
        deployments: The deployments, which no process but the caller serves on this machine.
        tag: The tag that this machine gives to its runs.
        reason: Shown as the run's message.

    Returns:
        Number of runs that were marked.
    """
    with get_client(sync_client=True) as client:
        runs = FlowRunFilter(state=_active(), tags=FlowRunFilterTags(all_=[tag]))
        return _close(client, runs, reason, DeploymentFilter(id=DeploymentFilterId(any_=list(deployments))))


def drop_missed_runs(deployments: Sequence[UUID], *, asked: bool = False) -> None:
    """Delete the runs that a schedule planned while it was not served: else all of them would start now.

    Args:
        deployments: The deployments that will be served.
        asked: Also delete runs that somebody asked for; by default only those of a schedule.
    """
    missed = FlowRunFilter(
        deployment_id=FlowRunFilterDeploymentId(any_=list(deployments)),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED])),
        next_scheduled_start_time=FlowRunFilterNextScheduledStartTime(before_=datetime.now(UTC)),
    )
    with get_client(sync_client=True) as client:
        while found := [run for run in client.read_flow_runs(flow_run_filter=missed) if asked or run.auto_scheduled]:
            for run in found:
                with suppress(ObjectNotFound):  # somebody else was faster
                    client.delete_flow_run(run.id)


def _active() -> FlowRunFilterState:
    return FlowRunFilterState(type=FlowRunFilterStateType(any_=ACTIVE))


def _close(
    client: SyncPrefectClient, runs: FlowRunFilter, reason: str, deployments: DeploymentFilter | None = None
) -> int:
    closed = 0
    while found := client.read_flow_runs(flow_run_filter=runs, deployment_filter=deployments, limit=PAGE):
        for run in found:
            # By force: from CANCELLING, only CANCELLED would be allowed. This also frees the run's place in its
            # deployment's queue.
            client.set_flow_run_state(run.id, Crashed(message=reason), force=True)
        closed += len(found)
    return closed
