"""The markers of a JPEG file: its frame, its scans and its true end, and the same picture without anything else."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field

from pipelines.errors import ImageError

JPEG_LS = 0xF7  # its start of frame
_FRAMES = frozenset({*range(0xC0, 0xD0), JPEG_LS}) - {0xC4, 0xC8, 0xCC}  # start of frame, of any process
_SEQUENTIAL, _PROGRESSIVE = frozenset({0xC0, 0xC1, 0xC9}), frozenset({0xC2, 0xCA})
_ARITHMETIC = frozenset(range(0xC9, 0xD0))
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD8)})  # markers without a length
_START_OF_IMAGE, _END_OF_IMAGE, _START_OF_SCAN = 0xD8, 0xD9, 0xDA
_JFIF, _ADOBE = 0xE0, 0xEE
_DESCRIPTIVE = frozenset({*range(0xE0, 0xF0), 0xFE})  # application data and comments

# In image data FF 00 is a byte and FF D0 to FF D7 are restarts; in JPEG-LS all of FF 00 to FF 7F are data.
_MARKER = re.compile(rb"\xff[^\x00\xff]")
_MARKER_AFTER_DATA = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_MARKER_AFTER_JPEG_LS = re.compile(rb"\xff[\x80-\xcf\xd8-\xfe]")
_MOST_SEGMENTS = 10_000  # a profile or an XMP block of hundreds of megabytes has fewer
_MOST_SCANS = 100  # encoders write about ten; each passes over the whole image, and a thousand fit into 20 kB
_COEFFICIENTS = 64
_UNSENT = 15  # more low bits than any scan leaves out

_HELD = 8  # bytes that libjpeg may hold at the end of a scan, unused and not counted

# What a scan without its last bytes takes for them: no run of equal bits, which could mean "nothing more". The zero
# makes a byte of data of an FF that only fills.
_FILLER = b"\x00" + bytes.fromhex("a55a3cc396695ab4d22d") * 2


@dataclass(slots=True)
class JpegStream:
    """What the markers of a JPEG file say.

    Attributes:
        process: The marker of its frame, such as 0xC0 (baseline).
        precision: Bits per sample.
        height: Rows.
        width: Columns.
        components: Colour components.
        application: Marker and payload of each block of application data before the first scan.
        stray: Bytes between segments that belong to none.
        trailing: Bytes after the end of the image.
    """

    process: int = 0
    precision: int = 0
    height: int = 0
    width: int = 0
    components: int = 0
    application: list[tuple[int, bytes]] = field(default_factory=list)
    stray: int = 0
    trailing: int = 0
    _pieces: list[bytes] = field(default_factory=list)  # segments, and after each header of a scan its image data
    _scans: list[int] = field(default_factory=list)  # which pieces are image data
    _missing_bits: dict[int, list[int]] = field(default_factory=dict)  # component -> low bits unsent, per coefficient
    _is_jfif: bool = False
    _adobe_transform: int | None = None

    @classmethod
    def read(cls, data: bytes) -> JpegStream:
        """Read the markers of a JPEG file.

        Raises:
            ImageError: the file ends too early, or has too many segments or scans.

        Source:
            ITU-T T.81, annex B; T.87, annex C (JPEG-LS); JFIF 1.02; Adobe technical note 5116.
        """
        stream, place = cls(), 2
        for _ in range(_MOST_SEGMENTS):
            found = _MARKER.search(data, place)
            if found is None:
                raise stream._truncated(data)
            stream.stray += found.start() - place - data.count(b"\xff", place, found.start())  # FF may fill
            place, marker = found.end(), data[found.end() - 1]
            if marker == _END_OF_IMAGE and stream._scans:
                stream.trailing = len(data) - place
                return stream
            if marker in _STANDALONE:
                continue
            if marker in {_START_OF_IMAGE, _END_OF_IMAGE}:
                raise ImageError("is damaged: it begins or ends a second time before its image data")
            end = place + int.from_bytes(data[place : place + 2], "big")
            if not place + 2 <= end <= len(data):
                raise stream._truncated(data)
            stream._take_segment(marker, data[place - 2 : end])
            place = end
            if marker == _START_OF_SCAN:
                after = _MARKER_AFTER_JPEG_LS if stream.process == JPEG_LS else _MARKER_AFTER_DATA
                found = after.search(data, place)
                stream._scans.append(len(stream._pieces))
                stream._pieces.append(data[place : found.start() if found else len(data)])
                place = found.start() if found else len(data)
        raise ImageError(f"has more than {_MOST_SEGMENTS:,} segments: save it again, as PNG or JPEG")

    @property
    def is_arithmetic(self) -> bool:
        """Return whether its entropy coding is arithmetic: zeros at the end of a scan may be left out."""
        return self.process in _ARITHMETIC

    def essential(self) -> bytes:
        """Return a file of the same pixels that has only what they depend on, and no oddity of its headers."""
        return self._assembled(self._pieces)

    def filled(self) -> bytes:
        """Return `essential()` with more bytes after each scan and restart interval.

        It has the same pixels unless image data are missing: a decoder that lacks some takes these.
        """
        pieces = list(self._pieces)
        for scan in self._scans:
            pieces[scan] = _MARKER.sub(lambda restart: _FILLER + restart[0], pieces[scan]) + _FILLER
        return self._assembled(pieces)

    def check_scans(self) -> None:
        """Check that the scans send each component to its last bit.

        Raises:
            ImageError: a scan is missing, as where a progressive file was cut between two scans.
        """
        if any(any(bits) for bits in self._missing_bits.values()):
            raise ImageError("is truncated: its last scans are missing")

    def ends_in_padding(self, left_over: int) -> bool:
        """Return whether the image data end in equal bytes, and a decoder that left these over has used none of them.

        Args:
            left_over: Bytes before the end of the image that were not used.
        """
        last = self._pieces[self._scans[-1]]
        run = len(last) - len(last.rstrip(last[-1:]))
        return left_over <= run <= left_over + _HELD

    def _truncated(self, data: bytes) -> ImageError:
        where = "bytes without an end-of-image marker" if self._scans else "bytes, inside its header"
        return ImageError(f"is truncated: ends after {len(data):,} {where}")

    def _take_segment(self, marker: int, segment: bytes) -> None:
        payload = segment[4:]
        if marker in _DESCRIPTIVE:
            if not self._scans:
                self.application.append((marker, payload))
                self._is_jfif |= marker == _JFIF and payload.startswith(b"JFIF\x00") and len(payload) >= 14
                if marker == _ADOBE and payload.startswith(b"Adobe") and len(payload) >= 12:
                    self._adobe_transform = payload[11]
            return
        if marker in _FRAMES and len(payload) >= 6 and not self.components:
            self.process = marker
            self.precision, self.height, self.width, self.components = struct.unpack_from(">BHHB", payload)
            if marker in _SEQUENTIAL | _PROGRESSIVE:
                numbers = payload[6 : 6 + 3 * self.components : 3]
                self._missing_bits = {number: [_UNSENT] * _COEFFICIENTS for number in numbers}
        elif marker == _START_OF_SCAN:
            if not self.components:
                raise ImageError("is damaged: its image data begins before a frame header")
            if len(self._scans) == _MOST_SCANS:
                raise ImageError(f"has more than {_MOST_SCANS} scans: save it again, as PNG or JPEG")
            segment = self._take_scan(segment)
        self._pieces.append(segment)

    def _take_scan(self, segment: bytes) -> bytes:
        """Note the bits of coefficients that it sends; return it as every decoder expects it."""
        count = segment[4] if len(segment) > 4 else 0
        if len(segment) < 8 + 2 * count:
            raise ImageError("is damaged: the header of a scan ends early")
        if self.process in _SEQUENTIAL:  # which send all at once, whatever stands there
            segment = segment[: 5 + 2 * count] + bytes([0, _COEFFICIENTS - 1, 0]) + segment[8 + 2 * count :]
        first, last, bits = segment[5 + 2 * count : 8 + 2 * count]
        for number in segment[5 : 5 + 2 * count : 2]:
            if number in self._missing_bits:
                for coefficient in range(first, min(last, _COEFFICIENTS - 1) + 1):
                    self._missing_bits[number][coefficient] = bits & 15
        return segment

    def _assembled(self, pieces: list[bytes]) -> bytes:
        start = [b"\xff\xd8"]
        if self._is_jfif:
            start.append(_segment(_JFIF, b"JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"))
        if self._adobe_transform is not None:
            known = 0 if self._adobe_transform == 0 else 2 if self.components == 4 else 1  # as libjpeg takes others
            start.append(_segment(_ADOBE, b"Adobe\x00\x64\x00\x00\x00\x00" + bytes([known])))
        return b"".join([*start, *pieces, b"\xff\xd9"])


def _segment(marker: int, payload: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload
