"""Moving the champion, over a stand-in for the registry."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

import flows.promote
from flows.promote import promote_flow, rollback_flow
from pipelines.errors import DigestError


@pytest.fixture
def registry(monkeypatch, home):
    moves = []

    class FakeRegistry:
        def get(self, name, selector):
            return SimpleNamespace(name=name, version=int(selector), sha256="cd" * 32, metrics={"auroc": 0.9})

        def promote(self, name, version, *, reason, figures):
            moves.append(("promote", name, version, reason, figures, os.environ["KINTSUGI_ACTOR"]))
            if version == 13:
                raise DigestError("tiles/13 was changed: train again")
            return self.get(name, str(version))

        def rollback(self, name, *, reason):
            moves.append(("rollback", name, reason, os.environ["KINTSUGI_ACTOR"]))
            return self.get(name, "1")

    monkeypatch.setattr(flows.promote, "Registry", FakeRegistry)
    monkeypatch.delenv("KINTSUGI_ACTOR", raising=False)
    return moves


def test_a_version_is_promoted_with_its_figures_and_the_trail_names_the_run(registry, client):
    assert promote_flow("tiles", 2, "looked at the maps").version == 2
    assert registry == [("promote", "tiles", 2, "looked at the maps", {"auroc": 0.9}, "flow run promote tiles/2")]
    assert "KINTSUGI_ACTOR" not in os.environ
    key = ArtifactFilterKey(any_=["champion-tiles"])
    (page,) = client.read_artifacts(artifact_filter=ArtifactFilter(key=key))
    assert "tiles: version 2 is champion" in page.data
    assert "looked at the maps" in page.data


def test_a_rollback_returns_the_champion_before(registry):
    assert rollback_flow("nuts", "too many alarms").version == 1
    assert registry == [("rollback", "nuts", "too many alarms", "flow run rollback nuts")]


def test_a_damaged_file_is_refused_once(registry):
    with pytest.raises(DigestError, match="train again"):
        promote_flow("tiles", 13, "why not")
    assert len(registry) == 1
