"""Paths of the command line: `~` is the user's home, and a text that is no local path is refused before the work.

A shell does not expand `~` in `--out=~/x`, in quotes and in a service's file. It passes an empty argument for an unset
variable, and Python reads an empty path as the current folder.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand
from typer.models import CommandFunctionType

from pipelines.base.paths import expect_local, from_home


class Command(TyperCommand):
    """A command that refuses empty arguments."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 - Typer has its own copy of click
        """Read the arguments.

        Raises:
            typer.BadParameter: An argument is empty.
        """
        for before, argument in zip(["", *args], args, strict=False):
            if not argument or re.fullmatch(r"--[a-z-]+=", argument):
                name = argument[:-1] or (before if before.startswith("-") else "an argument")
                raise typer.BadParameter(f"{name} is empty: check that the shell variable is set", ctx)
        read: list[str] = super().parse_args(ctx, args)
        return read


class App(typer.Typer):
    """A command line whose commands get local paths, with `~` replaced by the user's home."""

    def command(
        self,
        name: str | None = None,
        **options: Any,  # noqa: ANN401 - as Typer has them
    ) -> Callable[[CommandFunctionType], CommandFunctionType]:
        """Return a decorator that registers a function as a command; the function itself stays as it is."""
        register = super().command(name, cls=Command, **options)

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
    if not isinstance(value, Path):
        return value
    try:
        expect_local(value)
    except ValueError as error:
        raise typer.BadParameter(f"{value}: {error}") from None
    return from_home(value)
