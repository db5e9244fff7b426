"""Paths of the command line, where a shell leaves `~` as it is: in `--out=~/x`, in quotes, in a service's file."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer
from typer.models import CommandFunctionType

from pipelines.files import from_home


class App(typer.Typer):
    """A command line whose commands are given paths with the user's home in the place of `~`."""

    def command(
        self,
        name: str | None = None,
        **options: Any,  # noqa: ANN401 - as Typer has them
    ) -> Callable[[CommandFunctionType], CommandFunctionType]:
        """Return a decorator that registers a function as a command; the function itself stays as it is."""
        register = super().command(name, **options)

        def add(function: CommandFunctionType) -> CommandFunctionType:
            register(_with_homes(function))
            return function

        return add


def _with_homes(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(**given: object) -> object:
        return function(**{name: _expanded(value) for name, value in given.items()})

    return call


def _expanded(value: object) -> object:
    if isinstance(value, list):
        return [_expanded(each) for each in value]
    return from_home(value) if isinstance(value, Path) else value
