"""The command `doctor`."""

from __future__ import annotations

import typer

from flows.terminal import DONE, WRONG, told_plainly


def doctor() -> None:
    """Check this machine: packages, GPU, registry, orchestrator, disk."""
    with told_plainly():
        from pipelines.doctor import examine

        ill = False
        for finding in examine():
            mark = {True: "ok  ", False: "FAIL", None: "--  "}[finding.works]
            typer.echo(f"{mark} {finding.subject:13} {finding.detail}")
            ill |= finding.works is False
    raise typer.Exit(WRONG if ill else DONE)
