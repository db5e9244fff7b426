"""The boxes of HEIF and AVIF files: how large the picture is, its colour, how it is turned, and where its bytes are."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from pipelines.errors import ImageError

_Read = TypeVar("_Read")
_AV1 = frozenset({b"avif", b"avis"})
_HEVC = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"})
_ANY = frozenset({b"mif1", b"mif2", b"msf1", b"miaf"})  # of pictures in whatever compression
_MOST_BOXES = 20_000  # in one box: photographs have hundreds, of one tile each
_MOST_PARTS = 20_000  # that the bytes of items are in: a part that is empty takes no room in the file
_MOST_TIMES = 2  # that the items of a file may be as long as it is: those that share their bytes count once
_SAMPLE_ENTRY = 78  # bytes of a track's description before the boxes in it
_TRACK = (b"trak", b"mdia", b"minf", b"stbl")

# (quarter turns anti-clockwise, mirrored afterwards: 0 top to bottom, 1 left to right) -> EXIF orientation
_ORIENTATIONS = {
    (0, None): 1, (1, None): 8, (2, None): 3, (3, None): 6, (0, 0): 4, (0, 1): 2, (1, 0): 5, (1, 1): 7, (2, 0): 2,
    (2, 1): 4, (3, 0): 7, (3, 1): 5,
}  # fmt: skip


class Coded(NamedTuple):
    """Compressed data of a picture, or of a part of it."""

    data: bytes
    length_size: int  # bytes that the length of a unit of HEVC takes


@dataclass(slots=True)
class Picture:
    """What a file says of its primary picture.

    Attributes:
        width: Of the picture as it is stored, in pixels.
        height: The same.
        bit_depth: Bits per sample of AV1, of its tiles where it has some; 0 where the file does not say.
        icc: ICC profile.
        nclx: Code points of the colour: primaries, transfer, matrix, full range.
        orientation: Turns and mirrors, as EXIF has them.
        crop: Part that is to be seen: left, top, width and height.
        exif: EXIF block.
        frames: Of an image sequence; 0 where there is none.
        is_still: Whether there is a picture beside the sequence.
        layers: Items of the file that are pictures of their own.
        coded: HEVC or AV1 data of the picture, of its tiles and of its alpha.
    """

    width: int = 0
    height: int = 0
    bit_depth: int = 0
    icc: bytes | None = None
    nclx: tuple[int, int, int, int] | None = None
    orientation: int = 1
    crop: tuple[int, int, int, int] | None = None
    exif: bytes | None = None
    frames: int = 0
    is_still: bool = True
    layers: int = 1
    coded: list[Coded] = field(default_factory=list)


@dataclass(slots=True)
class _Meta:
    primary: int = 0
    kinds: dict[int, bytes] = field(default_factory=dict)
    hidden: set[int] = field(default_factory=set)
    places: dict[int, list[tuple[int, int]]] = field(default_factory=dict)  # of bytes in the file
    references: list[tuple[bytes, int, tuple[int, ...]]] = field(default_factory=list)
    properties: list[tuple[bytes, bytes]] = field(default_factory=list)
    associated: dict[int, list[int]] = field(default_factory=dict)

    def properties_of(self, item: int) -> list[tuple[bytes, bytes]]:
        """Return the properties of an item, in their order."""
        return [self.properties[at] for at in self.associated.get(item, ()) if at < len(self.properties)]

    def tiles_of(self, items: set[int]) -> set[int]:
        """Return the items that some items are made of."""
        return {tile for kind, item, to in self.references if kind == b"dimg" and item in items for tile in to}


def kind_of_picture(data: bytes) -> str | None:
    """Return "AVIF" or "HEIC" by the brands of a file; None where they are of something else, such as a video."""
    found = brands(data)
    if not found or found[0] not in _AV1 | _HEVC | _ANY:
        return None
    which = found[:1] if found[0] not in _ANY else found
    return "HEIC" if _AV1.isdisjoint(which) else "AVIF"


def brands(data: bytes) -> tuple[bytes, ...]:
    """Return the brands of a file, the major one first; none where it does not begin with them."""
    if data[4:8] != b"ftyp" or len(data) < 16:
        return ()
    end = min(len(data), int.from_bytes(data[:4], "big"))
    return (data[8:12], *(data[place : place + 4] for place in range(16, end - 3, 4)))


def read_picture(data: bytes) -> Picture:
    """Read what a HEIF or AVIF file says of its picture, and that all bytes of its items are there.

    Raises:
        ImageError: The file is truncated or damaged, or has no picture.

    Source:
        ISO/IEC 14496-12 (boxes), 23008-12 (items and properties).
    """
    meta, track = _Meta(), Picture(is_still=False)
    for kind, start, end in _outermost(data):
        if kind == b"meta":
            _read_meta(meta, data, start + 4, end)
        elif kind == b"moov":
            track = _read_tracks(data, start, end)
    if not meta.primary and track.width:
        return track
    if meta.primary not in meta.kinds:
        raise ImageError("has no still picture in it")
    _check_places(meta, len(data))
    picture = Picture(frames=track.frames)
    _apply(picture, meta.properties_of(meta.primary))
    for tile in meta.tiles_of({meta.primary}):
        if not picture.bit_depth:
            _apply(of_tile := Picture(), meta.properties_of(tile))
            picture.bit_depth = of_tile.bit_depth
    picture.exif = _exif(meta, data)
    picture.coded = list(_coded(meta, data))
    parts = {item for kind, _, to in meta.references if kind == b"dimg" for item in to}
    parts |= {item for kind, item, _ in meta.references if kind in (b"thmb", b"auxl")}
    visible = set(meta.kinds) - parts - meta.hidden
    picture.layers = max(1, sum(meta.kinds[item] not in (b"Exif", b"mime", b"uri ", b"tmap") for item in visible))
    if not picture.width:
        raise ImageError("is damaged: it does not say how large its picture is")
    return picture


def boxes(data: bytes, place: int, stop: int, *, clips: bool = False) -> Iterator[tuple[bytes, int, int]]:
    """Yield the kind of each box, where its content starts, and where it ends.

    Args:
        data: The file.
        place: Where the first box begins.
        stop: Where what the boxes are in ends.
        clips: Whether the last box may be longer than that: its content says better what is missing.

    Raises:
        ImageError: A box is longer than what it is in, or there are too many.
    """
    count = 0
    while place + 8 <= stop:
        length, kind = struct.unpack_from(">I4s", data, place)
        head = 8
        if length == 1 and place + 16 <= stop:
            (length,) = struct.unpack_from(">Q", data, place + 8)
            head = 16
        end = place + length if length else stop
        end = min(end, stop) if clips else end
        if end < place + head or (count := count + 1) > _MOST_BOXES:
            raise ImageError(f"is damaged: a box of {length} bytes at byte {place:,}")
        if end > stop:
            raise ImageError(f"is truncated: a box should go on to byte {end:,} of {stop:,}")
        yield kind, place + head, end
        place = end


def _outermost(data: bytes) -> list[tuple[bytes, int, int]]:
    """Return the boxes of a file; what telephones append that is no box does not count."""
    found = list[tuple[bytes, int, int]]()
    try:
        found.extend(boxes(data, 0, len(data)))
    except ImageError:
        if all(kind != b"meta" for kind, _, _ in found):
            raise
    return found


def _read_meta(meta: _Meta, data: bytes, start: int, end: int) -> None:
    found = {kind: (first, last) for kind, first, last in boxes(data, start, end)}
    offset = found[b"idat"][0] if b"idat" in found else 0
    if b"pitm" in found:
        meta.primary = _guarded(_read_primary, data[slice(*found[b"pitm"])])
    if b"iinf" in found:
        first, last = found[b"iinf"]
        for kind, begin, stop in boxes(data, first + (6 if data[first] == 0 else 8), last):
            if kind == b"infe":
                item, name, is_hidden = _guarded(_read_item, data[begin:stop])
                meta.kinds[item] = name
                meta.hidden |= {item} if is_hidden else set()
    if b"iref" in found:
        first, last = found[b"iref"]
        wide = 4 if data[first] else 2
        for kind, begin, stop in boxes(data, first + 4, last):
            meta.references.append((kind, *_guarded(lambda box: _read_reference(box, wide), data[begin:stop])))
    if b"iloc" in found:
        meta.places = _guarded(lambda box: _read_places(box, offset), data[slice(*found[b"iloc"])])
    if b"iprp" in found:
        for kind, first, last in boxes(data, *found[b"iprp"]):
            if kind == b"ipco":
                meta.properties += [(name, data[begin:stop]) for name, begin, stop in boxes(data, first, last)]
            elif kind == b"ipma":
                meta.associated |= _guarded(_read_associations, data[first:last])


def _guarded(read: Callable[[bytes], _Read], box: bytes) -> _Read:
    try:
        return read(box)
    except (struct.error, IndexError):
        raise ImageError("is damaged: a box of its header ends early") from None


def _read_primary(box: bytes) -> int:
    return int(struct.unpack_from(">I" if box[0] else ">H", box, 4)[0])


def _read_item(box: bytes) -> tuple[int, bytes, bool]:
    """Return the number of an item, its kind, and whether it is hidden."""
    item, _, name = struct.unpack_from(">IH4s" if box[0] == 3 else ">HH4s", box, 4)
    return item, name, bool(box[3] & 1)


def _read_reference(box: bytes, wide: int) -> tuple[int, tuple[int, ...]]:
    letter = "I" if wide == 4 else "H"
    item, count = struct.unpack_from(f">{letter}H", box, 0)
    return item, struct.unpack_from(f">{count}{letter}", box, wide + 2)


def _read_places(box: bytes, idat: int) -> dict[int, list[tuple[int, int]]]:
    """Return where the bytes of each item are in the file; those that are made of other items have none."""
    version, sizes = box[0], (box[4] >> 4, box[4] & 15, box[5] >> 4, box[5] & 15 if box[0] else 0)
    at = 6

    def take(size: int) -> int:
        nonlocal at
        at += size
        if at > len(box):
            raise IndexError
        return int.from_bytes(box[at - size : at], "big")

    places: dict[int, list[tuple[int, int]]] = {}
    parts = 0
    for _ in range(take(4 if version == 2 else 2)):
        item = take(4 if version == 2 else 2)
        method = take(2) & 15 if version else 0
        take(2)  # another file, which is none of ours
        base = take(sizes[2]) + (idat if method == 1 else 0)
        extents = []
        count = take(2)
        if (parts := parts + count) > _MOST_PARTS:
            raise ImageError(f"is damaged: its items are in more than {_MOST_PARTS:,} parts")
        for _ in range(count):
            take(sizes[3])
            start = take(sizes[0])
            extents.append((base + start, take(sizes[1])))
        if method < 2:
            places[item] = extents
    return places


def _read_associations(box: bytes) -> dict[int, list[int]]:
    """Return which properties each item has, in their order, from 0."""
    wide = bool(box[3] & 1)
    (count,) = struct.unpack_from(">I", box, 4)
    at, found = 8, dict[int, list[int]]()
    for _ in range(count):
        (item,) = struct.unpack_from(">I" if box[0] else ">H", box, at)
        at += 4 if box[0] else 2
        length = box[at]
        numbers = struct.unpack_from(f">{length}{'H' if wide else 'B'}", box, at + 1)
        at += 1 + length * (2 if wide else 1)
        found[item] = [(number & (0x7FFF if wide else 0x7F)) - 1 for number in numbers if number & 0x7FFF]
    return found


def _apply(picture: Picture, properties: list[tuple[bytes, bytes]]) -> None:
    """Read the properties of a picture. Only the first of each kind counts; of colours there may be one of each."""
    turns, mirror = 0, None
    for kind, box in properties:
        if kind == b"ispe" and len(box) >= 12:
            picture.width, picture.height = struct.unpack_from(">II", box, 4)
        elif kind == b"av1C" and len(box) >= 4:
            picture.bit_depth = (12 if box[2] & 0x20 else 10) if box[2] & 0x40 else 8
        elif kind == b"colr" and box[:4] == b"nclx" and len(box) >= 11:
            primaries, transfer, matrix = struct.unpack_from(">HHH", box, 4)
            picture.nclx = primaries, transfer, matrix, box[10] >> 7
        elif kind == b"colr" and box[:4] in (b"prof", b"rICC"):
            picture.icc = box[4:]
        elif kind == b"irot" and box:
            turns = box[0] & 3
        elif kind == b"imir" and box:
            mirror = box[0] & 1
        elif kind == b"clap" and len(box) >= 32:
            picture.crop = _crop(picture.width, picture.height, struct.unpack_from(">IIIIiIiI", box))
    picture.orientation = _ORIENTATIONS[turns, mirror]


def _crop(width: int, height: int, numbers: tuple[int, ...]) -> tuple[int, int, int, int] | None:
    """Return the part of the picture that a clean aperture is; None where it is not within the picture."""
    if not all(numbers[1::2]):
        return None
    wide, high, right, down = (above / below for above, below in zip(numbers[::2], numbers[1::2], strict=True))
    left, top = right + (width - wide) / 2, down + (height - high) / 2
    part = round(left), round(top), round(wide), round(high)
    inside = part[0] >= 0 and part[1] >= 0 and part[0] + part[2] <= width and part[1] + part[3] <= height
    return part if inside and part[2] > 0 and part[3] > 0 else None


def _check_places(meta: _Meta, size: int) -> None:
    """Check that the bytes of all items are there, and no more often than a file has them.

    Raises:
        ImageError: They are not.
    """
    for places in meta.places.values():
        for place, length in places:
            if place + length > size:
                raise ImageError(f"is truncated: pixels should go on to byte {place + length:,} of {size:,}")
    stated = sum(length for places in {tuple(places) for places in meta.places.values()} for _, length in places)
    if stated > _MOST_TIMES * size:
        raise ImageError(f"is damaged: its items should have {stated:,} bytes in a file of {size:,}")


def _coded(meta: _Meta, data: bytes) -> Iterator[Coded]:
    """Yield the data of the primary picture, of its tiles, and of what belongs to it, such as its alpha."""
    items = {meta.primary} | {item for kind, item, to in meta.references if kind == b"auxl" and meta.primary in to}
    known = set[tuple[tuple[int, int], ...]]()  # tiles that are alike may share their bytes
    for item in sorted(items | meta.tiles_of(items)):
        configuration = {b"hvc1": b"hvcC", b"av01": b"av1C"}.get(meta.kinds.get(item, b""))
        box = next((box for kind, box in meta.properties_of(item) if kind == configuration), None)
        places = tuple(meta.places.get(item, ()))
        if box is None or places in known or (configuration == b"hvcC" and len(box) <= 21):
            continue
        known.add(places)
        units = b"".join(data[start : start + length] for start, length in places)
        yield Coded(units, 1 + (box[21] & 3) if configuration == b"hvcC" else 0)


def _exif(meta: _Meta, data: bytes) -> bytes | None:
    """Return the EXIF block of the primary picture, without the offset before it."""
    for kind, item, to in meta.references:
        if kind == b"cdsc" and meta.primary in to and meta.kinds.get(item) == b"Exif":
            block = b"".join(data[place : place + length] for place, length in meta.places.get(item, ()))
            start = 4 + int.from_bytes(block[:4], "big")
            return block[start:] or None
    return None


def _read_tracks(data: bytes, start: int, end: int) -> Picture:
    """Return what the first track of pictures says: an image sequence may have no still picture beside it."""
    for kind, first, last in boxes(data, start, end):
        if kind == _TRACK[0] and (described := _descend(data, first, last, _TRACK[1:])) is not None:
            picture, known = (
                Picture(is_still=False),
                {name: (begin, stop) for name, begin, stop in boxes(data, *described)},
            )
            if b"stsz" in known and b"stsd" in known:
                at = known[b"stsz"][0]
                picture.frames = max(1, int.from_bytes(data[at + 8 : at + 12], "big"))
                for _, begin, stop in boxes(data, known[b"stsd"][0] + 8, known[b"stsd"][1]):
                    width, height = _guarded(lambda box: struct.unpack_from(">HH", box, 24), data[begin:stop])
                    inside = boxes(data, begin + _SAMPLE_ENTRY, stop)
                    _apply(picture, [(name, data[at:until]) for name, at, until in inside])
                    picture.width, picture.height = width, height
                    return picture
    return Picture(is_still=False)


def _descend(data: bytes, start: int, end: int, path: tuple[bytes, ...]) -> tuple[int, int] | None:
    """Return where the content of a box within boxes is."""
    for name in path:
        place = next(((first, last) for kind, first, last in boxes(data, start, end) if kind == name), None)
        if place is None:
            return None
        start, end = place
    return start, end
