"""Odd and broken files among good ones: each is a row, with a reason where it failed, and the others are done."""

from __future__ import annotations

import csv
import io
import os
import struct
import threading
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from pipelines.images import parallel_decoding
from pipelines.images.read import read_bytes

RANDOM = np.random.default_rng(0)
GREY = RANDOM.integers(0, 256, (40, 56), np.uint8)
DEEP = RANDOM.integers(0, 65536, (40, 56), np.uint16)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def bomb() -> bytes:
    """A PNG file of a hundred bytes that claims to be 40,000 pixels wide."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IDAT" + bytes(4)


PNG = saved(Image.fromarray(GREY), "PNG")
JPEG = saved(Image.fromarray(GREY), "JPEG")
CMYK = saved(Image.fromarray(GREY).convert("CMYK"), "JPEG")
FAIL = {
    "truncated.png": (PNG[: len(PNG) // 2], "is truncated: "),
    "truncated.jpg": (JPEG[: len(JPEG) // 2], "is truncated: ends after"),
    "empty.png": (b"", "is empty (0 bytes)"),
    "text.png": (b"these are words", "is a text file, not an image"),
    "document.jpg": (b"%PDF-1.7 ...", "is a PDF document, which cannot be read here: save it as PNG or TIFF"),
    "zeros.tif": (bytes(9999), "begins with zero bytes only: it was probably never written out"),
    "bomb.png": (
        bomb(),
        "is 40000 x 40000 = 1,600 million pixels, above the limit of 250 million (KINTSUGI_MAX_PIXELS)",
    ),
}
FINE = {
    "really_a_png.jpg": PNG,
    "deep.png": imagecodecs.png_encode(DEEP),
    "deep.jp2": imagecodecs.jpeg2k_encode(DEEP, level=0),
    "cmyk.jpg": CMYK,
    "line\nbreak.png": PNG,
    "caf\udce9.png": PNG,  # Latin 1
    "=1+1.png": PNG,
    "a..png": PNG,
    r"x\..\..\y.png": PNG,
    "<script>alert(1)<.png": PNG,
    "\u202egnp.exe.png": PNG,
}


def test_odd_files_are_rows_and_the_others_are_done(verb, rows_of, images: Path, tmp_path: Path) -> None:
    for name, data in ({name: data for name, (data, _) in FAIL.items()} | FINE).items():
        (images / name).write_bytes(data)
    (images / "itself.png").symlink_to(images / "itself.png")
    (images / "gone.png").symlink_to(images / "nowhere")
    (images / "good" / "loop").symlink_to(images)
    os.mkfifo(images / "pipe.png")
    ended = verb.run(images, tmp_path / "out")
    rows = rows_of(tmp_path / "out")
    reasons = {name: reason for name, (_, reason) in FAIL.items()}
    reasons |= {
        "itself.png": "cannot be read: Too many levels of symbolic links",
        "gone.png": "is a link to a file that is gone",
    }
    failed = {path: row["error"] for path, row in rows.items() if row["status"] == "failed"}
    assert set(failed) == set(reasons)
    assert all(failed[name].startswith(reason) for name, reason in reasons.items()), failed
    assert len(rows) == len(FAIL) + len(FINE) + 2 + 10
    assert ended.code == 3
    assert f"{len(reasons)} of {len(rows)} files could not be" in ended.lines[-1]
    assert rows["cmyk.jpg"]["note"].startswith("CMYK converted to RGB")
    assert rows["deep.png"]["bit_depth"] == 16
    lines = (tmp_path / "out" / "results.csv").read_text("utf-8-sig").splitlines()
    assert len(list(csv.DictReader(lines))) == len(lines) - 1 == len(rows)
    assert "<script>alert(1)" not in (tmp_path / "out" / "report.html").read_text()


def test_nothing_is_written_outside_of_the_output_folder(verb, rows_of, images: Path, tmp_path: Path) -> None:
    before = {path for path in tmp_path.rglob("*") if "home" not in path.parts}
    for name in (r"x\..\..\y.png", "...png", "a..png", "..\u2215x.png"):
        (images / name).write_bytes(PNG)
    (images / "..sub").mkdir()
    (images / "sub..").mkdir()
    (images / "sub.." / "b.png").write_bytes(PNG)
    assert verb.run(images, tmp_path / "out").code == 0
    made = {path for path in tmp_path.rglob("*") if "home" not in path.parts} - before
    assert all(path.is_relative_to(tmp_path / "out") or path.is_relative_to(images) for path in made)
    for row in rows_of(tmp_path / "out").values():
        if verb.name == "restore":
            assert (tmp_path / "out" / row["output"]).resolve().is_relative_to(tmp_path / "out" / "restored")


def test_files_that_change_while_a_run_goes_on(
    verb, rows_of, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deleted, replaced, and locked, after they were listed."""
    names = sorted((images / "good").iterdir())
    other = sorted((images / "crack").iterdir())[0].read_bytes()
    begun, turn = list[Path](), threading.Lock()

    def changing(path: Path, *, max_pixels: int) -> tuple[bytes, str]:
        with turn:
            if not begun:
                names[0].unlink()
                names[1].write_bytes(other)
                names[2].unlink()
                names[2].mkdir()
                names[3].write_bytes(PNG[:-30])
            begun.append(path)
        return read_bytes(path, max_pixels=max_pixels)

    monkeypatch.setattr(parallel_decoding, "read_bytes", changing)
    assert verb.run(images, tmp_path / "out").code == 3
    rows = rows_of(tmp_path / "out")
    told = [rows[f"good/{path.name}"] for path in names[:4]]
    assert [row["status"] for row in told] == ["failed", "ok", "failed", "failed"]
    assert told[0]["error"] == "is gone since it was listed"
    assert told[2]["error"] == "is a folder, not a file"
    assert told[3]["error"].startswith("is truncated")
    assert sum(row["status"] == "ok" for row in rows.values()) == 7
    begun[:] = [tmp_path]  # from now on nothing changes
    assert verb.run(images, tmp_path / "out").code == 3
    again = rows_of(tmp_path / "out")
    assert sorted(begun[1:]) == sorted([names[1], names[3]])  # the replaced one is done again, as it is now
    assert again[f"good/{names[1].name}"]["sha256"] == told[1]["sha256"]
    assert len(again) == 8


def test_files_that_may_not_be_read(
    verb, rows_of, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the place of the system: permissions do not bind root, who may run the tests."""
    locked, broken = sorted((images / "crack").iterdir())[:2]
    read = Path.read_bytes

    def refuse(path: Path) -> bytes:
        if path == locked:
            raise PermissionError(13, "Permission denied", str(path))
        if path == broken:
            raise OSError(5, "Input/output error", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert verb.run(images, tmp_path / "out").code == 3
    failed = {path: row["error"] for path, row in rows_of(tmp_path / "out").items() if row["status"] == "failed"}
    assert failed == {
        f"crack/{locked.name}": "may not be read: permission denied",
        f"crack/{broken.name}": "cannot be read: Input/output error",
    }


def test_a_folder_of_broken_files_alone_has_a_report(verb, rows_of, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name, (data, _) in FAIL.items():
        (folder / name).write_bytes(data)
    assert verb.run(folder, tmp_path / "out").code == 3
    assert {row["status"] for row in rows_of(tmp_path / "out").values()} == {"failed"}
    assert "bomb.png" in (tmp_path / "out" / "report.html").read_text()
