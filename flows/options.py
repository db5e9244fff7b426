"""Options that several commands have."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from flows.models import REF

ModelOption = Annotated[str, typer.Option("--model", "-m", metavar="REF", help=f"{REF}.")]
RateOption = Annotated[
    float | None,
    typer.Option("--false-alarms", help="Share of good images that may be flagged, between 0 and 1 (0.01 is 1 %)."),
]
GroupsOption = Annotated[
    bool,
    typer.Option("--groups", help="Judge each sub-folder by the calibration images of the same sub-folder, if enough."),
]
OutOption = Annotated[
    Path, typer.Option("--out", "-o", help="Output folder: new, or of an earlier run over the same images.")
]
EngineOption = Annotated[
    str, typer.Option("--engine", metavar="ENGINE", help="Where it is done: local, or ray: a cluster's machines.")
]
FreshOption = Annotated[
    bool,
    typer.Option("--fresh", help="Forget what an earlier run did and begin again, such as after files were replaced."),
]

StrengthOption = Annotated[
    float, typer.Option("--strength", min=0, max=1, help="From 0 (the image) to 1 (the result): a mixture of both.")
]
StampOption = Annotated[
    bool, typer.Option("--stamp/--no-stamp", help="State model, version and sha256 in the metadata of each file.")
]


class AgainstName(StrEnum):
    """What images may be judged against."""

    CALIBRATION = "calibration"
    FOLDER = "folder"
    AUTO = "auto"


AgainstOption = Annotated[
    AgainstName,
    typer.Option(
        "--against",
        help="What images are judged against: calibration, whose rate holds for images like its own; folder, where "
        "most images of this folder lie; auto: the folder once its good images score otherwise.",
    ),
]
