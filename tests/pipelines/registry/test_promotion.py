"""Aliases that never leave a model without a champion, and the trail of their moves."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy
from mlflow import MlflowClient

from pipelines.errors import DigestError, ModelError, RegistryError
from pipelines.registry.records import TrailEntry, Version
from pipelines.registry.store import Registry
from pipelines.registry.trail import read_entries, write_entry


def aliases(registry: Registry) -> dict[str, int]:
    (model,) = registry.models()
    return model.aliases


def test_promotion_and_rollback_move_the_aliases_and_say_why(registry: Registry, register: Callable[..., None]) -> None:
    for _ in range(3):
        register()
    champion = registry.promote("tiles", 1, reason="first version", figures={"image_auroc": np.float32(0.5)})
    assert champion.aliases == ("champion",)
    assert registry.challenge("tiles", 2).aliases == ("challenger",)
    assert registry.promote("tiles", 2, reason="better", figures={"image_auroc": {"new": 0.9, "old": 0.5}}).version == 2
    assert aliases(registry) == {"champion": 2, "previous": 1}  # and it challenges no more
    assert registry.rollback("tiles", reason="false alarms").version == 1
    assert aliases(registry) == {"champion": 1, "previous": 2}
    assert registry.rollback("tiles", reason="it was the lamp").version == 2
    registry.challenge("tiles", 3, reason="on trial")
    registry.promote("tiles", 2, reason="again")  # is champion: nothing to do, nothing to tell
    assert aliases(registry) == {"challenger": 3, "champion": 2, "previous": 1}
    told = [(entry.action, entry.from_version, entry.to_version, entry.reason) for entry in registry.trail("tiles")]
    assert told == [
        ("promote", None, 1, "first version"),
        ("challenge", None, 2, ""),
        ("promote", 1, 2, "better"),
        ("rollback", 2, 1, "false alarms"),
        ("rollback", 1, 2, "it was the lamp"),
        ("challenge", None, 3, "on trial"),
    ]
    first, _, second, *_ = registry.trail("tiles")
    assert first.figures == {"image_auroc": 0.5}
    assert second.figures == {"image_auroc": {"new": 0.9, "old": 0.5}}
    assert {entry.who for entry in registry.trail("tiles")} == {"nightly training"}
    assert first.when < second.when
    assert first.when.utcoffset().total_seconds() == 0


def test_without_a_name_in_the_environment_the_trail_tells_user_and_host(
    registry: Registry, register: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KINTSUGI_ACTOR")
    monkeypatch.setenv("LOGNAME", "ada")
    register()
    registry.promote("tiles", 1, reason="first")
    assert registry.trail("tiles")[0].who == f"ada@{socket.gethostname()}"


def test_there_is_nothing_to_roll_back_to(registry: Registry, register: Callable[..., None]) -> None:
    register()
    with pytest.raises(ModelError, match=r"'tiles' had no champion yet.*`kintsugi models promote tiles VERSION`"):
        registry.rollback("tiles", reason="why not")
    registry.promote("tiles", 1, reason="first")
    with pytest.raises(ModelError, match=r"no champion before tiles/1.*`kintsugi models promote tiles VERSION`"):
        registry.rollback("tiles", reason="why not")
    with pytest.raises(ModelError, match="tiles/1 is the champion"):
        registry.challenge("tiles", 1)
    assert len(registry.trail("tiles")) == 1


def test_a_damaged_previous_champion_does_not_come_back(
    registry: Registry, register: Callable[..., None], stored: Callable[..., Path], flip_a_byte: Callable[[Path], None]
) -> None:
    register()
    registry.promote("tiles", 1, reason="first")
    damaged = stored()
    register()
    registry.promote("tiles", 2, reason="better")
    flip_a_byte(damaged)
    with pytest.raises(DigestError, match="tiles/1 is damaged"):
        registry.rollback("tiles", reason="false alarms")
    assert aliases(registry) == {"champion": 2, "previous": 1}


def test_a_rollback_that_has_moved_does_not_fail(
    registry: Registry, register: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flow tries again after an outage, and a second rollback is back at the model that somebody went away from."""
    for version in (1, 2):
        register()
        registry.promote("tiles", version, reason="better")
    point, search, moved = MlflowClient.set_registered_model_alias, MlflowClient.search_registered_models, list[str]()

    def pointing(client: MlflowClient, name: str, alias: str, version: str) -> None:
        point(client, name, alias, version)
        moved.append(alias)

    def searching(*arguments: object, **keywords: object) -> object:
        if len(moved) == 2:
            raise ConnectionRefusedError("the server restarts")
        return search(*arguments, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "set_registered_model_alias", pointing)
        patch.setattr(MlflowClient, "search_registered_models", searching)
        champion = registry.rollback("tiles", reason="false alarms")
    assert champion == registry.get("tiles", "champion")
    assert aliases(registry) == {"champion": 1, "previous": 2}


def test_what_is_rolled_back_to_is_what_was_verified(
    registry: Registry,
    register: Callable[..., None],
    home: Path,
    flip_a_byte: Callable[[Path], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Somebody promotes while the files are read: another version is the one before, and its files are damaged."""
    for version in (1, 2, 3):
        register()
        if version < 3:
            registry.promote("tiles", version, reason="better")
    second = MlflowClient(registry.address).get_model_version("tiles", "2")
    (damaged,) = home.glob(f"artifacts/*/{second.run_id}/artifacts/model/model.onnx")
    verify, others = Registry.verify, iter([lambda: registry.promote("tiles", 3, reason="meanwhile")])

    def slow(self: Registry, version: Version) -> None:
        verify(self, version)
        if version.version == 1:
            next(others)()
            flip_a_byte(damaged)

    monkeypatch.setattr(Registry, "verify", slow)
    with pytest.raises(DigestError, match="tiles/2 is damaged"):
        registry.rollback("tiles", reason="false alarms")
    assert aliases(registry) == {"champion": 3, "previous": 2}


@pytest.mark.parametrize("action", ["promote", "rollback"])
@pytest.mark.parametrize("moves", [0, 1])
def test_a_crash_between_two_moves_leaves_a_champion(
    registry: Registry, register: Callable[..., None], monkeypatch: pytest.MonkeyPatch, action: str, moves: int
) -> None:
    for version in (1, 2, 3):
        register()
        if version < 3:
            registry.promote("tiles", version, reason="better")
    registry.challenge("tiles", 3)

    def move() -> None:
        if action == "promote":
            registry.promote("tiles", 3, reason="better")
        else:
            registry.rollback("tiles", reason="worse")

    left = iter(range(moves))
    point = MlflowClient.set_registered_model_alias

    def crashing(client: MlflowClient, *arguments: str) -> None:
        if next(left, None) is None:
            raise ConnectionError("the server went away")
        point(client, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "set_registered_model_alias", crashing)
        with pytest.raises(RegistryError, match=r"moving the aliases of 'tiles' failed.*the server went away"):
            move()
    assert registry.get("tiles", "champion").version in ({2} if action == "promote" else {2, 1})
    assert registry.trail("tiles")[-1].action == action  # recorded before anything moved
    if action == "promote" or moves == 0:
        move()
        expected = {"champion": 3, "previous": 2} if action == "promote" else {"champion": 1, "previous": 2}
        assert expected.items() <= aliases(registry).items()
    else:  # it has arrived; going back once more needs a version to be named
        assert aliases(registry)["champion"] == 1
        with pytest.raises(ModelError, match="nothing to roll back to"):
            move()


def test_a_long_trail_with_long_entries_is_read_back_in_order(
    registry: Registry, register: Callable[..., None]
) -> None:
    register()
    register()
    reason = "x" * 6000 + "ü"  # longer than a tag may be in PostgreSQL, and longer still in JSON
    registry.promote("tiles", 2, reason=reason, figures={"image_auroc": float("nan"), "network": Path("a")})
    tags: dict[str, str] = {}
    for number in range(2, 302):  # as the registry writes them, but at once
        entry = TrailEntry(datetime.now(UTC), "challenge", None, 2, "somebody", f"move {number}", {})
        tags |= write_entry(entry, tags or {"trail.000001.00.0.1": ""})
    with sqlalchemy.create_engine(registry.address).begin() as database:
        insert = sqlalchemy.text("INSERT INTO registered_model_tags (name, key, value) VALUES ('tiles', :key, :value)")
        database.execute(insert, [{"key": key, "value": value} for key, value in tags.items()])
    registry.promote("tiles", 1, reason="the end")
    trail = registry.trail("tiles")
    assert [entry.reason for entry in trail] == [reason, *(f"move {number}" for number in range(2, 302)), "the end"]
    assert trail[0].figures["network"] == "a"
    with sqlalchemy.create_engine(registry.address).connect() as database:
        longest = database.execute(sqlalchemy.text("SELECT max(length(value)) FROM registered_model_tags")).scalar_one()
    assert longest <= 5000
    MlflowClient(registry.address).delete_model_version("tiles", "2")
    assert len(registry.trail("tiles")) == 302  # history outlives the version


def test_an_entry_whose_writer_was_killed_is_left_out_and_its_number_is_not_used_again() -> None:
    entry = TrailEntry(datetime.now(UTC), "promote", 1, 2, "somebody", "x" * 9000, {})
    whole = write_entry(entry, {})
    killed = dict(list(write_entry(entry, whole).items())[:1])
    last = write_entry(replace(entry, reason="last"), whole | killed)
    others = {"trail.of.somebody": "else", "team": "vision"}
    assert [entry.reason for entry in read_entries(others | last | killed | whole)] == ["x" * 9000, "last"]
    assert next(iter(last)).startswith("trail.000003.")
