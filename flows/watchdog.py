"""Runs on a team's server whose machine went down: Prefect itself lets them run for ever.

While they seem to run they keep their deployment's only place, and each run that is due is left out. So the server gets
a rule: a run that it has heard nothing of for a while has crashed. One that is alive after all, since it was the server
that was away, puts this right at its end. `flows.stale` does the same for an embedded server, at once.

    python -m flows.watchdog [SECONDS]
"""

from __future__ import annotations

import sys
from datetime import timedelta

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification

NAME = "kintsugi: runs that went silent have crashed"
SILENCE = timedelta(minutes=10)  # a run sends a sign of life every three minutes
BEGINS = {"prefect.flow-run.Pending", "prefect.flow-run.Running", "prefect.flow-run.heartbeat"}


def watch(silence: timedelta = SILENCE) -> None:
    """Give the server the rule, or change the one that it has.

    Args:
        silence: How long a run may say nothing; more than PREFECT_FLOWS_HEARTBEAT_FREQUENCY.
    """
    rule = AutomationCore(
        name=NAME,
        description="Its machine went down, or was cut off. The same run started again does only what is missing.",
        trigger=EventTrigger(
            match=ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"}),
            after=BEGINS,
            expect={"prefect.flow-run.*"},
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=silence,
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.CRASHED,
                message=f"Nothing was heard of it for {silence.total_seconds():.0f} s: its machine went down.",
            )
        ],
    )
    with get_client(sync_client=True) as client:
        if known := client.read_automations_by_name(NAME):
            client.update_automation(known[0].id, rule)
        else:
            client.create_automation(rule)


if __name__ == "__main__":
    watch(*(timedelta(seconds=float(text)) for text in sys.argv[1:]))
