"""Flow runs whose process was killed: to Prefect they run for ever, and keep their place in the queue."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import StateType
from prefect.states import Crashed

ACTIVE = [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]
PAGE = 200  # the most that the server returns at once


def close_all_runs(reason: str) -> int:
    """Mark every active run as crashed and pause every deployment: for a server that has just started, so has no user.

    Args:
        reason: Shown as the run's message.

    Returns:
        How many runs were marked.
    """
    with get_client(sync_client=True) as client:
        while deployments := [d for d in client.read_deployments(limit=PAGE) if not d.paused]:
            for deployment in deployments:
                client.pause_deployment(deployment.id)  # also deletes the runs that were missed meanwhile
        return _close(client, FlowRunFilter(state=_active()), reason)


def close_runs_of(deployments: Sequence[UUID], tag: str, reason: str) -> int:
    """Mark the active runs of some deployments as crashed, where they carry the tag of this machine.

    Args:
        deployments: The deployments, which no process but the caller serves on this machine.
        tag: The tag that this machine gives to its runs.
        reason: Shown as the run's message.

    Returns:
        How many runs were marked.
    """
    with get_client(sync_client=True) as client:
        runs = FlowRunFilter(state=_active(), tags=FlowRunFilterTags(all_=[tag]))
        return _close(client, runs, reason, DeploymentFilter(id=DeploymentFilterId(any_=list(deployments))))


def drop_missed_runs(deployments: Sequence[UUID]) -> None:
    """Forget the runs that were due while nobody served them, or all of them would start now."""
    with get_client(sync_client=True) as client:
        for deployment in deployments:
            client.pause_deployment(deployment)  # deletes what the scheduler planned, not what somebody asked for
            client.resume_deployment(deployment)


def _active() -> FlowRunFilterState:
    return FlowRunFilterState(type=FlowRunFilterStateType(any_=ACTIVE))


def _close(
    client: SyncPrefectClient, runs: FlowRunFilter, reason: str, deployments: DeploymentFilter | None = None
) -> int:
    closed = 0
    while found := client.read_flow_runs(flow_run_filter=runs, deployment_filter=deployments, limit=PAGE):
        for run in found:
            # By force: from CANCELLING, only CANCELLED would be allowed. The run's place in its deployment's queue is
            # given back by this too.
            client.set_flow_run_state(run.id, Crashed(message=reason), force=True)
        closed += len(found)
    return closed
