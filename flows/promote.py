"""Flows that set the champion: by hand from Prefect's page, or from another system through its API."""

from __future__ import annotations

from prefect import flow, task

from flows.artifacts import record_champion
from flows.retries import TRIES
from flows.runs import only_warned, recorded_run
from pipelines.registry.records import Version
from pipelines.registry.store import Registry


@flow(name="promote", flow_run_name="promote {name}/{version}", persist_result=False)
def promote_flow(name: str, version: int, reason: str) -> Version:
    """Make a version the champion, whatever the job's promotion rule says.

    Args:
        name: The model.
        version: The new champion.
        reason: Why, for the trail.

    Returns:
        The champion.
    """
    return _move_on_record(name, version, reason)


@flow(name="rollback", flow_run_name="rollback {name}", persist_result=False)
def rollback_flow(name: str, reason: str) -> Version:
    """Return to the champion before this one.

    Args:
        name: The model.
        reason: Why, for the trail.

    Returns:
        The champion.
    """
    return _move_on_record(name, None, reason)


def _move_on_record(name: str, version: int | None, reason: str) -> Version:
    with recorded_run():
        champion = move_champion(name, version, reason)
        with only_warned("the run has no page in Prefect"):
            record_champion(champion, reason)
        return champion


@task(name="move champion", **TRIES)
def move_champion(name: str, version: int | None, reason: str) -> Version:
    """Promote a version, or return to the champion before this one (None). The registry verifies the files first."""
    registry = Registry()
    if version is None:
        return registry.rollback(name, reason=reason)
    return registry.promote(name, version, reason=reason, figures=registry.get(name, str(version)).metrics)
