"""Options that several commands have."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from flows.models import REF


def parse_share(text: str) -> float:
    """Read a share, with a decimal point or comma; a percentage, too.

    Raises:
        typer.BadParameter: It is no number.

    >>> parse_share("0.05"), parse_share("5 %"), parse_share("0,05")
    (0.05, 0.05, 0.05)
    """
    number = text.strip().removesuffix("%").rstrip().replace(",", ".")
    try:
        return float(number) / (100 if text.strip().endswith("%") else 1)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a number: write 0.05, or 5%, for one image in twenty") from None


ModelOption = Annotated[str, typer.Option("--model", "-m", metavar="REF", help=f"{REF}.")]
RateOption = Annotated[
    float | None,
    typer.Option(
        "--false-alarms",
        parser=parse_share,
        metavar="SHARE",
        help="Share of good images that may be flagged, between 0 and 1 (0.01 is 1 %).",
    ),
]
GroupsOption = Annotated[
    bool,
    typer.Option(
        "--groups", help="Judge each sub-folder by the calibration images of the same name, if there are enough."
    ),
]
OutOption = Annotated[
    Path, typer.Option("--out", "-o", help="Output folder: a new one, or that of an earlier run over the same images.")
]
EngineOption = Annotated[
    str,
    typer.Option("--engine", metavar="ENGINE", help="Where the work is done: local (this machine) or ray (a cluster)."),
]
FreshOption = Annotated[
    bool,
    typer.Option(
        "--fresh", help="Discard the results of an earlier run and start again, for example after files were replaced."
    ),
]

StrengthOption = Annotated[
    float, typer.Option("--strength", min=0, max=1, help="Mix image and result: 0 is the image, 1 is the result.")
]
StampOption = Annotated[
    bool, typer.Option("--stamp/--no-stamp", help="Write model, version and sha256 into the metadata of each file.")
]


class AgainstName(StrEnum):
    """The images that a score is compared with."""

    CALIBRATION = "calibration"
    FOLDER = "folder"
    AUTO = "auto"


AgainstOption = Annotated[
    AgainstName,
    typer.Option(
        "--against",
        help="What each score is compared with. calibration: the calibration images; the false-alarm rate holds for "
        "images like them. folder: most images of this folder. auto: the folder, if its good images score differently.",
    ),
]
