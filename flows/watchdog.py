"""Mark runs on a team's server as crashed if their machine went down: Prefect itself keeps them running for ever.

Such a run keeps its deployment's only place, so every later run of the schedule is skipped. The server therefore gets a
rule: a run that sends no sign of life for a while has crashed. A run that is alive after all, because the server was
away, corrects its state at its end. `flows.stale` does the same for an embedded server, at once.

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

NAME = "kintsugi: silent runs have crashed"
SILENCE = timedelta(minutes=10)  # a run sends a sign of life every three minutes
BEGINS = {"prefect.flow-run.Pending", "prefect.flow-run.Running", "prefect.flow-run.heartbeat"}


def watch(silence: timedelta = SILENCE) -> None:
    """Create the rule on the server, or update it.

    Args:
        silence: How long a run may be silent; more than PREFECT_FLOWS_HEARTBEAT_FREQUENCY.
    """
    rule = AutomationCore(
        name=NAME,
        description="Its machine went down, or was cut off. Start the run again: it does only the missing work.",
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
                message=f"The run was silent for {silence.total_seconds():.0f} s: its machine went down.",
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
