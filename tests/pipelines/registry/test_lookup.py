"""Finding models and versions, and the answers when there is none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy

from pipelines.errors import ModelError
from pipelines.registry.store import Registry


def test_an_unknown_name_says_what_there_is(registry: Registry, register: Callable[..., None]) -> None:
    register("tiles")
    register("leather")
    register("tiles")
    registry.promote("tiles", 2, reason="first")
    with pytest.raises(ModelError, match=r"no model 'tils' in the registry at sqlite:.*did you mean 'tiles'\?"):
        registry.get("tils", "champion")
    for name in ("wood", "", "a/b", "it's", 'it\'s "quoted"'):
        for look in (registry.versions, registry.trail, lambda name: registry.get(name, "1")):
            with pytest.raises(ModelError, match="there are: leather, tiles"):
                look(name)
    with pytest.raises(ModelError, match=r"'champoin' \(did you mean 'champion'\?\); aliases: champion \(version 2\)"):
        registry.get("tiles", "champoin")
    for selector in ("3", "0", "-1", "9" * 40, "", "²"):
        with pytest.raises(ModelError, match=r"no version or alias '.*'; aliases: champion .*; versions: 1-2$"):
            registry.get("tiles", selector)
    with pytest.raises(ModelError, match="no alias yet"):
        registry.get("leather", "champion")


def test_an_empty_registry_says_which_one_it_is_and_how_to_fill_it(registry: Registry, home: Path) -> None:
    asked = rf"registry at sqlite:///{home}/mlflow\.db holds none yet.*`kintsugi train JOB\.toml`"
    with pytest.raises(ModelError, match=asked):
        registry.get("tiles", "champion")
    (home / "mlflow.db").unlink()
    fresh = Registry()
    with pytest.raises(ModelError, match=asked):
        fresh.get("tiles", "champion")
    assert fresh.models() == []
    assert not (home / "mlflow.db").exists()  # asking makes nothing


def test_lists_are_complete_and_newest_first(registry: Registry, register: Callable[..., None]) -> None:
    for name in ("tiles", "leather", "tiles", "tiles"):
        register(name, metrics={"image_auroc": 0.5})
    registry.promote("tiles", 2, reason="first")
    models = registry.models()
    assert [(model.name, model.champion, model.latest.version) for model in models] == [
        ("leather", None, 1),
        ("tiles", 2, 3),
    ]
    versions = registry.versions("tiles")
    assert [(version.version, version.aliases) for version in versions] == [(3, ()), (2, ("champion",)), (1, ())]
    assert all(version.metrics == {"image_auroc": 0.5} for version in versions)


@pytest.fixture
def statements() -> Iterator[list[str]]:
    """The SELECT statements that are sent to any database."""
    seen: list[str] = []

    def note(_c: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.lstrip().upper().startswith("SELECT"):
            seen.append(statement)

    sqlalchemy.event.listen(sqlalchemy.Engine, "before_cursor_execute", note)
    yield seen
    sqlalchemy.event.remove(sqlalchemy.Engine, "before_cursor_execute", note)


def test_a_thousand_versions_take_as_many_queries_as_one(
    registry: Registry, register: Callable[..., None], statements: list[str]
) -> None:
    def look() -> int:
        statements.clear()
        registry.models()
        registry.versions("tiles")
        registry.get("tiles", "1")
        return len(statements)

    register(metrics={"image_auroc": 0.5})
    few = look()
    with sqlalchemy.create_engine(registry.address).begin() as database:
        for table in ("model_versions", "model_version_tags"):
            columns = [column["name"] for column in sqlalchemy.inspect(database).get_columns(table)]
            numbered = ", ".join("n.i" if column == "version" else column for column in columns)
            numbers = "WITH RECURSIVE n(i) AS (VALUES (2) UNION ALL SELECT i + 1 FROM n WHERE i < 1000) "
            statement = f"INSERT INTO {table} {numbers} SELECT {numbered} FROM {table}, n"  # noqa: S608  # no user's text
            database.execute(sqlalchemy.text(statement))
    assert look() == few
    assert [version.version for version in registry.versions("tiles")] == list(range(1000, 0, -1))
