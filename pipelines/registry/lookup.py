"""Finding models and versions: one query each however many there are, and a helpful answer when there is none."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from pipelines.errors import ModelError
from pipelines.registry.connection import Connection
from pipelines.registry.records import ModelSummary, Version, read_version, utc

if TYPE_CHECKING:
    from mlflow.entities.model_registry import RegisteredModel

LATEST = "latest"  # MLflow's own word for the newest version; it cannot be an alias
SHOWN = 12  # names in a message


def find_models(connection: Connection) -> list[ModelSummary]:
    """All models, by name."""
    if connection.is_new:
        return []
    with connection.errors("listing the models"):
        models: list[RegisteredModel] = list(_pages(connection.client.search_registered_models, max_results=1000))
    return [_summarise(model) for model in models]


def find_model(connection: Connection, name: str) -> RegisteredModel:
    """One model with its aliases and tags.

    Raises:
        ModelError: There is none of that name; the message tells the names that are like it.
    """
    if not connection.is_new and _quotable(name):
        with connection.errors(f"looking up '{name}'"):
            found = connection.client.search_registered_models(_named(name))
        if found:
            return found[0]
    raise ModelError(_no_model(connection, name))


def find_versions(connection: Connection, model: RegisteredModel, number: int | None = None) -> list[Version]:
    """All versions of a model, newest first, or the one of that number."""
    condition = _named(model.name) + ("" if number is None else f" AND version_number = {number}")
    order = ["version_number DESC"]
    with connection.errors(f"looking up the versions of '{model.name}'"):
        search = connection.client.search_model_versions
        stored = list(_pages(search, filter_string=condition, order_by=order, max_results=10_000))
    return [read_version(version, _aliases_of(model, version.version)) for version in stored]


def all_versions(connection: Connection) -> list[Version]:
    """Every version of every model, by name and newest first."""
    if connection.is_new:
        return []
    with connection.errors("listing the versions"):
        client = connection.client
        models = {model.name: model for model in _pages(client.search_registered_models, max_results=1000)}
        stored = list(_pages(client.search_model_versions, filter_string="", max_results=10_000))
    versions = [
        read_version(version, _aliases_of(models[version.name], version.version))
        for version in stored
        if version.name in models  # else it came after the first question
    ]
    return sorted(versions, key=lambda version: (version.name, -version.version))


def find_version(connection: Connection, name: str, selector: str) -> Version:
    """The version that a number, an alias or `latest` means.

    Raises:
        ModelError: There is no such model or version; the message tells what there is.
    """
    model = find_model(connection, name)
    newest = max((int(version.version) for version in model.latest_versions), default="")
    number = str({LATEST: newest, **model.aliases}.get(selector, selector))
    if re.fullmatch(r"[0-9]{1,9}", number):
        for version in find_versions(connection, model, int(number)):
            return version
    raise ModelError(_no_version(model, selector, find_versions(connection, model)))


def _pages(search: Callable[..., Any], **arguments: Any) -> Iterator[Any]:  # noqa: ANN401  # MLflow's own entities
    """Everything that a search finds, over all its pages."""
    token = None
    while token is None or token != "":
        page = search(**arguments, page_token=token)
        yield from page
        token = page.token or ""


def _quotable(name: str) -> bool:
    return name.strip() != "" and not ("'" in name and '"' in name)


def _named(name: str) -> str:
    quote = '"' if "'" in name else "'"
    return f"name = {quote}{name}{quote}"


def _aliases_of(model: RegisteredModel, version: int | str) -> list[str]:
    return [alias for alias, number in model.aliases.items() if int(number) == int(version)]


def _summarise(model: RegisteredModel) -> ModelSummary:
    newest = max(model.latest_versions, key=lambda version: int(version.version), default=None)
    return ModelSummary(
        name=model.name,
        aliases={alias: int(number) for alias, number in sorted(model.aliases.items())},
        latest=read_version(newest, _aliases_of(model, newest.version)) if newest else None,
        updated=utc(model.last_updated_timestamp),
    )


def _no_model(connection: Connection, name: str) -> str:
    names = [model.name for model in find_models(connection)]
    if not names:
        return (
            f"there is no model '{name}': the registry at {connection.address} holds none yet. Train one with "
            "`kintsugi train JOB.toml`, or set MLFLOW_TRACKING_URI to the registry that has it"
        )
    return f"there is no model '{name}' in the registry at {connection.address}; {_suggest(name, names)}"


def _no_version(model: RegisteredModel, selector: str, versions: Iterable[Version]) -> str:
    numbers = sorted(version.version for version in versions)
    if not numbers:
        return f"'{model.name}' has no versions: train one with `kintsugi train JOB.toml`"
    aliases = ", ".join(f"{alias} (version {number})" for alias, number in sorted(model.aliases.items()))
    close = difflib.get_close_matches(selector, model.aliases, n=1)
    hint = f" (did you mean '{close[0]}'?)" if close else ""
    has = f"aliases: {aliases}" if aliases else "no alias yet (`kintsugi models promote` makes a champion)"
    return f"'{model.name}' has no version or alias '{selector}'{hint}; {has}; versions: {_ranges(numbers)}"


def _suggest(name: str, names: list[str]) -> str:
    close = difflib.get_close_matches(name, names, n=3)
    if close:
        return f"did you mean {' or '.join(repr(name) for name in close)}?"
    more = f" and {len(names) - SHOWN} more (`kintsugi models list`)" if len(names) > SHOWN else ""
    return f"there are: {', '.join(names[:SHOWN])}{more}"


def _ranges(numbers: list[int]) -> str:
    """Ascending numbers, runs of them shortened.

    >>> _ranges([1, 2, 3, 5, 7, 8])
    '1-3, 5, 7-8'
    """
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][-1] == number - 1:
            runs[-1] = [runs[-1][0], number]
        else:
            runs.append([number])
    return ", ".join("-".join(str(end) for end in run) for run in runs)
