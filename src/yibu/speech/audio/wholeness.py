"""Whether an upload is complete, by its own structure, where ffmpeg does not tell.

To ffmpeg a file that broke off is a shorter one. Durations in headers are no proof: a track may end
before its file does, and a hole in the time stamps is no missing audio.
"""

from __future__ import annotations

import io
import re

from yibu.speech.audio.headers import FileView

_OGG_PAGE = 27 + 255 + 255 * 255
"""Bytes of the largest page (RFC 3533)."""
_LINK_HEAD = 6
_LINK = re.compile(rb"OggS\0[\x02\x06]", re.DOTALL)
"""A page that begins a stream."""
_MP3_LOOK = 4096
"""Bytes in which an MP3's first frame begins."""
_MP3_SPARE = 1500
"""Bytes of a frame, which encoders count or do not."""
_MAX_ELEMENTS = 4_000_000

_BOXES = frozenset(
    {b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"mfra", b"sidx", b"free", b"skip", b"uuid"}
    | {b"wide", b"emsg", b"prft", b"meta", b"pnot", b"ssix"}
)
_EBML, _SEGMENT, _CLUSTER = 0x1A45DFA3, 0x18538067, 0x1F43B675
_TOP_LEVEL = frozenset(
    {_CLUSTER, 0x114D9B74, 0x1549A966, 0x1654AE6B, 0x1C53BB6B, 0x1254C367, 0x1043A770, 0x1941A469}
)
"""Elements of a Segment (RFC 9559, 5.1), which end a Cluster whose size is not stated."""
_IN_CLUSTER = frozenset({0xE7, 0xA3, 0xA0, 0xA7, 0xAB, 0x5854, 0xAF, 0xEC, 0xBF})
_NAME_BEGINS = frozenset(name.to_bytes(4).lstrip(b"\0")[0] for name in _TOP_LEVEL | _IN_CLUSTER)
_ASF_FILE = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
"""ASF's File Properties Object, which has the file's size, and a flag for broadcasts, which do not."""
_ASF_HEADER = bytes.fromhex("3026b2758e66cf11")
_AVI_UNKNOWN = 0x7F000000


def breaks_off(file: FileView) -> bool:
    """Whether a file ends within what its structure says is there: an Ogg page, a box of MP4, an
    element of Matroska, the size that ASF and AVI state, a tag of FLV, or the bytes that an MP3's
    first frame counts (Xing's header). Leaves the file at its beginning."""
    size = file.seek(0, io.SEEK_END)
    head = _at(file, 0, 12)
    try:
        if head[:4] == b"OggS":
            return _ogg_breaks_off(file, size)
        if head[4:8] in _BOXES:
            return _mp4_breaks_off(file, size)
        if int.from_bytes(head[:4]) == _EBML:
            return _matroska_breaks_off(file, size)
        if head[:8] == _ASF_HEADER:
            return _asf_breaks_off(file, size)
        if head[:3] == b"FLV":
            return _flv_breaks_off(file, size)
        if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
            return size < int.from_bytes(head[4:8], "little") < _AVI_UNKNOWN
        return _mp3_breaks_off(file, size)
    finally:
        file.seek(0)


def _at(file: FileView, position: int, size: int) -> bytes:
    file.seek(position)
    return file.read(size)


def _ogg_breaks_off(file: FileView, size: int) -> bool:
    tail = _at(file, max(0, size - 2 * _OGG_PAGE), 2 * _OGG_PAGE)
    page = tail[tail.rfind(b"OggS\x00") :]
    if len(page) < 27 or page[:4] != b"OggS":
        return page[:4] == b"OggS"
    lacing = page[27 : 27 + page[26]]
    return len(page) < 27 + page[26] + sum(lacing)


def next_link(file: FileView, position: int) -> int | None:
    """Where another Ogg file begins after the page at ``position``."""
    while data := _at(file, position + 1, _OGG_PAGE):
        found = _LINK.search(data)
        if found is not None:
            return position + 1 + found.start()
        position += max(1, len(data) - _LINK_HEAD)
    return None


def _mp4_breaks_off(file: FileView, size: int) -> bool:
    """Whether the last box of a fragmented file goes on behind its end. One without a known name is
    what a program left behind the file; unfragmented files are judged by their index of samples."""
    position, before, fragmented = 0, b"", False
    for _ in range(_MAX_ELEMENTS):
        head = _at(file, position, 16)
        name, length = head[4:8], int.from_bytes(head[:4])
        if name not in _BOXES:
            return before == b"moof"  # its samples are missing
        fragmented = fragmented or name == b"moof"
        if length == 1:
            length = int.from_bytes(head[8:16])
        if length == 0:
            return False  # it goes on to the end
        if length < 8 or position + length > size:
            return fragmented
        position += length
        before = name
    return False


def _matroska_breaks_off(file: FileView, size: int) -> bool:
    position = 0
    for _ in range(_MAX_ELEMENTS):
        if position >= size:
            return False
        head = _at(file, position, 12)
        name, start = _vint(head, 0, marked=True)
        length, start = _vint(head, start, marked=False)
        if name is None or length is None:
            return position > 0 and position + len(head) == size and head[0] in _NAME_BEGINS
        unknown = length == (1 << 7 * (start - _width(name))) - 1
        if name == _SEGMENT and not unknown:
            return position + start + length > size
        if unknown:
            position += start  # of a segment or a cluster: look into it
            continue
        if position > 0 and name not in _TOP_LEVEL | _IN_CLUSTER:
            return False  # something behind the file
        position += start + length
        if position > size:
            return True
    return False


def _width(name: int) -> int:
    return (name.bit_length() + 7) // 8


def _vint(data: bytes, at: int, *, marked: bool) -> tuple[int | None, int]:
    """A number of EBML (RFC 8794, 4) and where it ends; a name keeps its length's mark."""
    if at >= len(data) or not data[at]:
        return None, at
    width = 9 - data[at].bit_length()
    if at + width > len(data):
        return None, at
    value = int.from_bytes(data[at : at + width])
    return value if marked else value & ((1 << 7 * width) - 1), at + width


def _asf_breaks_off(file: FileView, size: int) -> bool:
    head = _at(file, 0, 1 << 16)
    at = head.find(_ASF_FILE)
    if at < 0 or len(head) < at + 92 or head[at + 88] & 1:
        return False
    return size < int.from_bytes(head[at + 40 : at + 48], "little")


def _flv_breaks_off(file: FileView, size: int) -> bool:
    """Each tag is followed by its size; what does not look like one is behind the file."""
    position = int.from_bytes(_at(file, 5, 4)) + 4
    for _ in range(_MAX_ELEMENTS):
        head = _at(file, position, 11)
        if head[:1] not in {b"\x08", b"\x09", b"\x12"}:
            return False
        end = position + 11 + int.from_bytes(head[1:4])
        if len(head) < 11 or end > size:
            return True
        position = end + 4
    return False


def _mp3_breaks_off(file: FileView, size: int) -> bool:
    data = _at(file, 0, _MP3_LOOK)
    at = next((n for n in range(len(data) - 3) if _is_mp3_frame(data[n : n + 4])), None)
    if at is None:
        return False
    tag = at + 4 + _side_info(data[at : at + 4])
    flags = int.from_bytes(data[tag + 4 : tag + 8])
    if data[tag : tag + 4] not in (b"Xing", b"Info") or not flags & 2:
        return False
    counted = tag + 8 + (4 if flags & 1 else 0)
    expected = int.from_bytes(data[counted : counted + 4])
    return expected - (size - at) > _MP3_SPARE + expected // 500


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
