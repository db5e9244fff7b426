"""Flows, deployments and schedules: the only layer that knows Prefect.

The flows live in `flows.train`, `flows.score`, `flows.restore` and `flows.promote`; `flows.server.orchestrator` gives
them a server, and `flows.serve.serve` runs them on a schedule. Importing this package does not import Prefect.
"""

from __future__ import annotations

import os

# Prefect reads these while it is imported, and Python imports this package before any module in it. What the user has
# set stays as it is.
for _name, _value in {
    "DO_NOT_TRACK": "1",  # Prefect reports its use to its makers otherwise
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",  # for a flow that is called outside `orchestrator`
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
}.items():
    os.environ.setdefault(_name, _value)
