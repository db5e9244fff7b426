"""The rule about runs that went silent; `make integration` sees it at work."""

from __future__ import annotations

from datetime import timedelta

from prefect.events.schemas.automations import EventTrigger

from flows.watchdog import NAME, watch


def test_the_server_has_one_rule_however_often_it_is_given(home, client):
    watch()
    watch(timedelta(minutes=20))
    (rule,) = client.read_automations_by_name(NAME)
    assert isinstance(rule.trigger, EventTrigger)
    assert (rule.enabled, rule.trigger.within) == (True, timedelta(minutes=20))
    assert [action.state for action in rule.actions] == ["CRASHED"]
