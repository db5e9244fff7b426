"""Flows, deployments and schedules: the only layer that knows Prefect.

The flows are in `flows.train`, `flows.score`, `flows.restore` and `flows.promote`. `flows.server.orchestrator` provides
a server, and `flows.serve.serve` runs the flows on a schedule. Importing this package does not import Prefect.
"""

from __future__ import annotations

import os

# Prefect reads these variables on import, and Python imports this package before any module in it. Variables that the
# user has set stay unchanged.
for _name, _value in {
    "DO_NOT_TRACK": "1",  # else Prefect sends usage statistics to its makers
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",  # for a flow that is called outside `orchestrator`
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
}.items():
    os.environ.setdefault(_name, _value)
