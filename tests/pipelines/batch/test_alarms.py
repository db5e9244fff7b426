from __future__ import annotations

import pytest
from pydantic import ValidationError

from pipelines.anomaly.drift import Drift
from pipelines.batch.alarms import find_alarms
from pipelines.errors import JobError
from pipelines.jobfile.job import load_job
from pipelines.jobfile.tables import AlarmTable

MOVED = Drift(p_value=1e-5, drifted=True, moved="brightness", effect=0.1, images=100)
STILL = Drift(p_value=0.4, drifted=False, moved="score", effect=0.52, images=100)


def counts(ok=100, failed=0, flagged=0):
    return {"ok": ok, "failed": failed, "flagged": flagged}


@pytest.mark.parametrize(
    ("rule", "seen", "says"),
    [
        ({"flagged": 0.05}, counts(flagged=5), []),  # as many as may be
        ({"flagged": 0.05}, counts(flagged=6), ["6 of 100 images look abnormal (6 %), more than 5 %"]),
        ({"flagged": 0.05}, counts(ok=19, flagged=19), []),  # too few to speak of shares
        (
            {"flagged": 0.05, "fewest": 3},
            counts(ok=3, flagged=1),
            ["1 of 3 images look abnormal (33 %), more than 5 %"],
        ),
        ({"failed": 0.0}, counts(ok=99, failed=1), ["1 of 100 files could not be read (1 %), more than 0 %"]),
        ({"failed": 0.5}, counts(ok=0, failed=40), ["40 of 40 files could not be read (100 %), more than 50 %"]),
        ({"flagged": 0.9}, counts(ok=0, failed=40), []),
    ],
)
def test_shares_above_the_limit_raise_an_alarm(rule, seen, says):
    assert find_alarms(AlarmTable(**rule), seen) == says


def test_drift_raises_one_unless_it_is_switched_off():
    assert find_alarms(AlarmTable(), counts(), MOVED) == [str(MOVED)]
    assert find_alarms(AlarmTable(), counts(), STILL) == []
    assert find_alarms(AlarmTable(drift=False), counts(), MOVED) == []


def test_without_a_rule_nothing_does():
    assert find_alarms(None, counts(flagged=100), MOVED) == []


def test_a_restoration_has_no_flags_to_count():
    assert find_alarms(AlarmTable(failed=0.1, fewest=1), {"ok": 1, "failed": 1}) == [
        "1 of 2 files could not be read (50 %), more than 10 %"
    ]


def test_a_rule_that_means_nothing_is_refused(tmp_path):
    path = tmp_path / "job.toml"
    path.write_text('name = "a"\ntask = "denoise"\n[data]\ntrain = "x"\n[alarm]\nflagged = 0.1')
    with pytest.raises(JobError, match=r"'alarm\.flagged' has no meaning for denoise"):
        load_job(path)
    with pytest.raises(ValidationError):
        AlarmTable(flagged=1.5)
