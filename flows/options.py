"""Options that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer

FreshOption = Annotated[
    bool,
    typer.Option("--fresh", help="Forget what an earlier run did and begin again, such as after files were replaced."),
]
