"""Whether a video file is all there, by its own arithmetic: no decoder is asked.

A file that lost its end often still plays, only shorter: nothing fails, and half of the evidence
is gone. But most containers say how long their parts are.
"""

from __future__ import annotations

import mmap
from pathlib import Path

_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
_PACK, _END = 0xBA, 0xB9  # start codes of an MPEG program stream
_VIDEO = range(0xE0, 0xF0)
_START = b"\0\0\1"  # of a start code, in all that MPEG makes


def bytes_missing(path: str | Path) -> int:
    """How many bytes a file lacks, at least, to be what its container says; 0 if none.

    Understands AVI, Matroska and WebM, MP4 and MOV. MPEG program and elementary streams have no
    total: only a cut inside of a packet or of a start code shows. Of everything else, and of a file
    whose headers make no sense, it says 0.
    """
    with Path(path).open("rb") as file:
        size = file.seek(0, 2)
        if size < 16:
            return 0
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            if data[:4] == b"RIFF":
                end = _riff_end(data)
            elif data[:4] == _EBML:
                end = _matroska_end(data)
            elif data[4:8] == b"ftyp":
                end = _mp4_end(data)
            elif data[:3] == _START and data[3] == _PACK:
                end = _program_end(data)
            elif _START in data[:4]:  # an elementary stream
                end = size + _stops_short(data, size)
            else:
                end = 0
    return max(end - size, 0)


def _riff_end(data: mmap.mmap) -> int:
    """End of the file; its last chunk may lack the byte that pads it to a whole word."""
    end = 8 + int.from_bytes(data[4:8], "little")
    return end - 1 if end == len(data) + 1 else end


def _matroska_end(data: mmap.mmap) -> int:
    """End of the segment; 0 where its size was left open, as live streams do."""
    header, start = _vint(data, 4)
    at = start + (header or 0)
    if data[at : at + 4] != _SEGMENT:
        return 0
    size, start = _vint(data, at + 4)
    return 0 if size is None else start + size


def _vint(data: mmap.mmap, at: int) -> tuple[int | None, int]:
    """An EBML number and where it ends; None for "unknown"."""
    if at >= len(data) or data[at] == 0:
        return None, at
    length = 9 - data[at].bit_length()
    value = int.from_bytes(data[at : at + length], "big") & ((1 << 7 * length) - 1)
    return (None if value == (1 << 7 * length) - 1 else value), at + length


def _mp4_end(data: mmap.mmap) -> int:
    at = 0
    while at + 8 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        if size == 1:
            size = int.from_bytes(data[at + 8 : at + 16], "big")
        if size < 8:  # 0: up to the end of the file
            return 0
        at += size
    return at


def _program_end(data: mmap.mmap) -> int:
    at = video = 0  # the end of what was read, and of the images in it
    while at + 6 <= len(data) and data[at : at + 3] == _START:
        code = data[at + 3]
        if code == _END:
            return at + 4
        if code == _PACK:  # MPEG-2 marks it with 01, and says how much stuffing follows
            mpeg2 = data[at + 4] >> 6 == 1
            at += 14 + (data[at + 13 : at + 14] or b"\0")[0] % 8 if mpeg2 else 12
        elif code > _END:
            at += 6 + int.from_bytes(data[at + 4 : at + 6], "big")
            video = at if code in _VIDEO else video
        else:
            return 0
    return max(at, len(data) + _stops_short(data, video))


def _stops_short(data: mmap.mmap, end: int) -> bool:
    """Whether coded images end within a start code, as whole ones never do."""
    return data[max(end - 3, 0) : end] == _START
