"""Which page of a TIFF file is its picture, and what is said of the others."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from pipelines.errors import ImageError
from pipelines.images.ifd import Directory, Layout, layout_of, read_directory

_SUBFILE, _OLD_SUBFILE, _WIDTH, _HEIGHT, _PHOTOMETRIC, _SUB_DIRECTORIES = 254, 255, 256, 257, 262, 330
_TAGS = frozenset({_SUBFILE, _OLD_SUBFILE, _WIDTH, _HEIGHT, _PHOTOMETRIC, _SUB_DIRECTORIES})
_REDUCED, _MASK = 1, 4  # bits of NewSubfileType
_OLD_REDUCED = 2  # value of SubfileType
_MASK_PIXELS = 4  # PhotometricInterpretation
_MOST_PAGES = 10_000  # that are counted
_MOST_SUB_DIRECTORIES = 64  # of one page that are looked at


@dataclass(frozen=True, slots=True)
class Page:
    """One directory of a TIFF file."""

    offset: int
    width: int
    height: int
    is_thumbnail: bool
    is_mask: bool
    inside: tuple[int, ...]  # offsets of its sub-directories

    @property
    def is_picture(self) -> bool:
        """Whether it is neither a thumbnail nor a mask of another page."""
        return not (self.is_thumbnail or self.is_mask)

    @property
    def pixels(self) -> int:
        """How many it has."""
        return self.width * self.height


@dataclass(frozen=True, slots=True)
class Picture:
    """The page to read: where its directory begins, whether it is the only one, and what a person should know."""

    offset: int
    is_alone: bool
    notes: tuple[str, ...]


def find_picture(data: bytes) -> Picture:
    """Find the page of a TIFF file that is its picture: the first that is no thumbnail and no mask.

    Where all pages are thumbnails, the picture is the largest of their sub-directories that is none, as cameras have
    it; else the largest thumbnail.

    Raises:
        ImageError: The file has no pages.
    """
    layout = layout_of(data)
    pages = _read_pages(data, layout) if layout is not None else []
    if layout is None or not pages:
        raise ImageError("is damaged: a TIFF file without pages")
    pictures = [page for page in pages if page.is_picture]
    if pictures:
        chosen = pictures[0]
        return Picture(chosen.offset, len(pages) == 1, _notes(pages, pictures, pages.index(chosen)))
    inside = [_read_page(data, layout, offset)[0] for page in pages for offset in page.inside if offset < len(data)]
    if pictures := [page for page in inside if page.is_picture]:
        note = "the TIFF begins with a thumbnail or mask: the picture in its sub-directory was read"
        return Picture(max(pictures, key=lambda page: page.pixels).offset, False, (note,))
    largest = max((page for page in pages if not page.is_mask), key=lambda page: page.pixels, default=pages[0])
    note = f"all {len(pages)} pages of the TIFF are marked as thumbnails or masks: the largest was read"
    return Picture(largest.offset, len(pages) == 1, (note,) * (len(pages) > 1))


def _notes(pages: list[Page], pictures: list[Page], chosen: int) -> tuple[str, ...]:
    more = "or more " if len(pages) == _MOST_PAGES else ""
    notes = []
    if chosen:
        notes.append(f"the TIFF begins with a thumbnail or mask: page {chosen + 1} of {len(pages)} was read")
    if len(pictures) > 1:
        first, largest = pictures[0], max(pictures, key=lambda page: page.pixels)
        text = f"TIFF with {len(pictures)} {more}pages: the first"
        if largest.pixels > first.pixels:
            text += f", of {first.width} x {first.height}; the largest has {largest.width} x {largest.height}"
        notes.append(text)
    if any(page.is_mask for page in pages):
        notes.append("the TIFF has a mask page: ignored")
    return tuple(notes)


def _read_pages(data: bytes, layout: Layout) -> list[Page]:
    # tifffile's own count never ends where the chain of pages bites its tail.
    found: dict[int, Page] = {}
    offset = layout.first
    try:
        while offset and offset not in found and len(found) < _MOST_PAGES:
            page, following = _read_page(data, layout, offset)
            found[offset], offset = page, following
    except struct.error:
        pass  # the chain leads out of the file: its first pages are still there
    return list(found.values())


def _read_page(data: bytes, layout: Layout, offset: int) -> tuple[Page, int]:
    directory, following = read_directory(data, layout, offset, _TAGS)

    def number(tag: int, absent: int = 0) -> int:
        return int(next(iter(_numbers(directory, tag, layout)), absent))

    subfile = number(_SUBFILE)
    page = Page(
        offset=offset,
        width=number(_WIDTH),
        height=number(_HEIGHT),
        is_thumbnail=bool(subfile & _REDUCED) or number(_OLD_SUBFILE) == _OLD_REDUCED,
        is_mask=bool(subfile & _MASK) or number(_PHOTOMETRIC, -1) == _MASK_PIXELS,
        inside=tuple(int(place) for place in _numbers(directory, _SUB_DIRECTORIES, layout)[:_MOST_SUB_DIRECTORIES]),
    )
    return page, following


def _numbers(directory: Directory, tag: int, layout: Layout) -> tuple[float, ...]:
    return directory[tag].numbers(layout.order) if tag in directory else ()
