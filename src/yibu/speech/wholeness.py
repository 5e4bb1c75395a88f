"""Whether an upload is all there, where its own bytes say so and ffmpeg does not.

ffmpeg reads what it gets: of a WAV it takes the file's size for the header's, and an MP3 or Ogg file
that broke off is to it a shorter one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO

_PIPED_WAV = 0x7FFF0000
"""Bytes: programs that write to a pipe state such a length, up to 0xFFFFFFFF, or none."""

_MAX_CHUNKS = 256
_OGG_PAGE = 27 + 255 + 255 * 255
"""Bytes of the largest page (RFC 3533)."""
_MP3_LOOK = 4096
"""Bytes behind the ID3 tag in which an MP3's first frame begins."""


def wav_seconds(file: IO[bytes]) -> float:
    """What a WAV header says of its data's length, 0 for other files and for recordings from a
    pipe: ffmpeg shortens it to the file's size, which hides that the file is cut off."""
    byte_rate = 0
    for name, size, head, _ in _wav_chunks(file):
        if name == b"fmt ":
            byte_rate = int.from_bytes(head[8:12], "little")
        if name == b"data" and byte_rate:
            return size / byte_rate if size < _PIPED_WAV else 0.0
    return 0.0


def wav_header_lies(file: IO[bytes]) -> bool:
    """Whether a WAV has a chunk before its data that claims more than there is: ffmpeg would
    allocate it."""
    size_of_file = file.seek(0, 2)
    return any(
        name != b"data" and start + size > size_of_file + 1
        for name, size, _, start in _wav_chunks(file)
    )


def breaks_off(file: IO[bytes]) -> bool:
    """Whether an Ogg file ends within a page, or an MP3 before the bytes that its first frame
    counts (Xing's header). Leaves the file at its beginning."""
    size = file.seek(0, 2)
    file.seek(0)
    try:
        head = file.read(10)
        if head[:4] == b"OggS":
            return _ogg_breaks_off(file, size)
        return _mp3_breaks_off(file, head, size)
    finally:
        file.seek(0)


def _ogg_breaks_off(file: IO[bytes], size: int) -> bool:
    file.seek(max(0, size - 2 * _OGG_PAGE))
    tail = file.read(2 * _OGG_PAGE)
    page = tail[tail.rfind(b"OggS\x00") :]
    if len(page) < 27 or page[:4] != b"OggS":
        return page[:4] == b"OggS"
    lacing = page[27 : 27 + page[26]]
    return len(page) < 27 + page[26] + sum(lacing)


def _mp3_breaks_off(file: IO[bytes], head: bytes, size: int) -> bool:
    start = 0
    if head[:3] == b"ID3" and len(head) == 10:
        # Seven bits of each byte (ID3v2.4, 6.2).
        start = 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0)))  # noqa: B905 - both are four
    file.seek(start)
    data = file.read(_MP3_LOOK)
    at = next((n for n in range(len(data) - 3) if _is_mp3_frame(data[n : n + 4])), None)
    if at is None:
        return False
    tag = at + 4 + _side_info(data[at : at + 4])
    flags = int.from_bytes(data[tag + 4 : tag + 8], "big")
    if data[tag : tag + 4] not in (b"Xing", b"Info") or not flags & 2:
        return False
    counted = tag + 8 + (4 if flags & 1 else 0)
    expected = int.from_bytes(data[counted : counted + 4], "big")
    there = size - start - at
    return expected - there > max(2048, expected // 50)


def _is_mp3_frame(header: bytes) -> bool:
    """Whether four bytes are the head of a layer III frame."""
    return (
        header[0] == 0xFF
        and header[1] & 0xE6 == 0xE2
        and header[1] & 0x18 != 0x08
        and header[2] & 0xF0 != 0xF0
        and header[2] & 0x0C != 0x0C
    )


def _side_info(header: bytes) -> int:
    """Bytes between a frame's head and what Xing's header may stand in."""
    mono = header[3] & 0xC0 == 0xC0
    if header[1] & 0x18 == 0x18:  # MPEG 1
        return 17 if mono else 32
    return 9 if mono else 17


def _wav_chunks(file: IO[bytes]) -> Iterator[tuple[bytes, int, bytes, int]]:
    """Name, size, first bytes and offset of each chunk; none for a file that is no WAV. Leaves
    the file at its beginning."""
    file.seek(0)
    try:
        header = file.read(12)
        if header[:4] != b"RIFF" or header[8:12] != b"WAVE":
            return
        position = 12
        for _ in range(_MAX_CHUNKS):
            file.seek(position)
            head = file.read(8 + 16)
            if len(head) < 8:
                return
            size = int.from_bytes(head[4:8], "little")
            yield head[:4], size, head[8:], position + 8
            position += 8 + size + size % 2
    finally:
        file.seek(0)
