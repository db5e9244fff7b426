"""Count the files that are not read by suffix and reason; name the suffixes of files that need no look inside."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import groupby
from operator import itemgetter
from typing import TypedDict

_MOST_GROUPS = 1000  # that are counted apart: anybody chooses names
_SHOWN_GROUPS = 6  # in a line
_LONGEST_SUFFIX = 12  # characters: what is longer is a part of the name

_log = logging.getLogger(__name__)


class Reason(StrEnum):
    """Why a file is left out."""

    RAW = "camera raw, which is not read"
    FORMAT = "a format that is not read"
    VIDEO = "video"
    UNFINISHED = "unfinished or a backup"
    OTHER = "not an image"
    CLOSED = "may not be opened"
    HIDDEN = "hidden"
    OUTPUT = "output folder of another run"


PICTURES = frozenset({Reason.RAW, Reason.FORMAT})  # there may be an image in them

_SUFFIXES: dict[Reason, str] = {
    Reason.RAW: (
        "3fr arw bay cap cr2 cr3 crw dcr dcs dng erf fff gpr iiq k25 kdc mdc mef mos mrw nef nrw orf pef ptx pxn "
        "r3d raf raw rw2 rwl rwz sr2 srf srw x3f"
    ),
    Reason.FORMAT: (
        "ai bpg cdr cin clip cur czi dcm dds dicom dpx emf eps exr fit fits fts hdr icns ico jng jxr kra lif mng "
        "ndpi nd2 nii oib oif ora pam pcd pcx pdf pfm pict ps psb psd psp rgbe sgi sketch svg svgz tga vsi wdp "
        "wmf xbm xcf xpm"
    ),
    Reason.VIDEO: "3g2 3gp asf avi flv m2ts m4v mj2 mkv mov mp4 mpeg mpg mts mxf ogv ts vob webm wmv",
    Reason.UNFINISHED: "bak crdownload download filepart old orig part partial swp tmp",
    # What belongs to images, and what lies beside them. Overviews and thumbnails are pictures, of others.
    Reason.OTHER: (
        "7z aac aae aux avro bz2 bat c cfg conf cos cpg cpp css csv db dbf dll doc docx dop exe feather flac "
        "geojson gz h h5 hdf5 htm html ics info ini ipynb iso java jgw jgwx js json jsonl lnk lock log lrcat m "
        "m4a mat md md5 mp3 msi npy npz odp ods odt ogg onnx ovr parquet pgw pickle pkl pp3 ppt pptx prj pt pth "
        "py rar rst rtf safetensors sh sha1 sha256 shp shx sql sqlite srt tar tex tfw tfwx thm toml tsv txt url "
        "vrt wav wld xls xlsx xml xmp xz yaml yml zip zst"
    ),
}
REASONS: dict[str, Reason] = {
    f".{suffix}": reason for reason, suffixes in _SUFFIXES.items() for suffix in suffixes.split()
}


class LeftOutRow(TypedDict):
    """A group of files as run.json has it."""

    why: str
    suffix: str | None
    files: int
    example: str


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What was left out of a listing.

    Attributes:
        rows: One for each reason and suffix: reasons in their order, then the most files first.
    """

    rows: tuple[LeftOutRow, ...] = ()

    @property
    def files(self) -> int:
        """Count all of them."""
        return sum(row["files"] for row in self.rows)

    @property
    def has_pictures(self) -> bool:
        """Return whether there may be images among them."""
        return any(row["why"] in PICTURES for row in self.rows)

    def __str__(self) -> str:
        """Return a line about them; empty where there are none."""
        if not self.rows:
            return ""
        shown, rest = self.rows[:_SHOWN_GROUPS], self.rows[_SHOWN_GROUPS:]
        parts = [_in_words(list(rows)) for _, rows in groupby(shown, key=itemgetter("why"))]  # rows are sorted by it
        if rest:
            parts.append(f"{sum(row['files'] for row in rest)} of other kinds")
        advice = "; save the files that should be read as TIFF or PNG" if self.has_pictures else ""
        return f"left out {self.files} {'file' if self.files == 1 else 'files'}: {', '.join(parts)}{advice}"

    def log(self) -> None:
        """Log the line, as a warning where there may be images among them."""
        if self.rows:
            _log.log(logging.WARNING if self.has_pictures else logging.INFO, "%s", self)


@dataclass(slots=True)
class Tally:
    """Counts files that are left out, in little memory."""

    counts: Counter[tuple[Reason, str]] = field(default_factory=Counter)
    examples: dict[tuple[Reason, str], str] = field(default_factory=dict)

    def add(self, reason: Reason, name: str) -> None:
        """Count a file.

        Args:
            reason: Why it is left out.
            name: Its name in outputs.
        """
        key = reason, "" if reason in (Reason.HIDDEN, Reason.OUTPUT) else suffix_of(name)
        if key not in self.counts and len(self.counts) >= _MOST_GROUPS:
            key = reason, ""
        self.counts[key] += 1
        self.examples.setdefault(key, name)

    def left_out(self) -> LeftOut:
        """Return the counts."""
        return LeftOut(tuple(self._rows()))

    def _rows(self) -> Iterator[LeftOutRow]:
        order = list(Reason)
        for (reason, suffix), count in sorted(
            self.counts.items(), key=lambda item: (order.index(item[0][0]), -item[1], item[0][1])
        ):
            example = self.examples[reason, suffix]
            yield {"why": reason.value, "suffix": suffix or None, "files": count, "example": example}


def suffix_of(name: str) -> str:
    """Return the suffix of a file's name in lower case; empty where there is none, or what follows the dot is words.

    >>> suffix_of("a/b.JPG"), suffix_of("a.b/c"), suffix_of("scan.of the second page")
    ('.jpg', '', '')
    """
    stem, dot, suffix = name.rpartition("/")[2].rpartition(".")
    return f".{suffix.lower()}" if stem and dot and 0 < len(suffix) <= _LONGEST_SUFFIX and " " not in suffix else ""


def _in_words(rows: list[LeftOutRow]) -> str:
    """Name files that are left out for one reason."""
    why = rows[0]["why"]
    if why in (Reason.HIDDEN, Reason.OUTPUT):
        return f"{sum(row['files'] for row in rows)} {why}"
    return f"{', '.join(_of_suffix(row) for row in rows)} ({why})"


def _of_suffix(row: LeftOutRow) -> str:
    return f"{row['files']} {row['suffix'] or 'without a suffix'}"
