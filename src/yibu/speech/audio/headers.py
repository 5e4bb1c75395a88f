"""The format of an upload by its first bytes, and where its audio lies.

Sizes in the headers of PCM containers are often placeholders: a program that writes to a pipe, or that
died, never filled them in. Such a header is written anew in front of the data, which also keeps what
stands behind it (tags, signatures, broken chunks) away from ffmpeg. Tags around any other format are
left out.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Literal

_PLACEHOLDER = 0x40000000
"""Bytes: smaller sizes beyond the file's end are those of a file that was cut off, where the format has
a second size that says the same (AIFF), or where writers state that they do not know it (AU, CAF)."""
_MAX_CHUNKS = 256
_MAX_HEADER = 1 << 16
_MAX_TAGS = 16

_SIGNATURES = (
    *(b"RIFF", b"RIFX", b"RF64", b"BW64", b"FORM", b"FRM8", b"caff", b".snd", b"fLaC", b"OggS"),
    *(b"\x1a\x45\xdf\xa3", b"#!AMR", b"#!EVRC", b"FLV\x01", b"wvpk", b"MAC ", b"TTA1", b"TTA2"),
    *(b"MPCK", b"MP+", b"tBaK", b"Creative Voice File", b".RMF", b".ra\xfd", b"DSD ", b"NIST_1A"),
    *(b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", b"\x00\x00\x01\xba", b"nut/multimedia", b"qoaf"),
    *(b"\x06\x0e\x2b\x34", b"\xb7\xd8\x00\x20", b"ea3", b"2BIT", b" paf", b"fap ", b"PVF1"),
    *(b"riff\x2e\x91\xcf\x11", b"\x7f\xfe\x80\x01", b"ajkg", b"OFR ", b"\x64\xa3", b"SOX|"),
    *(
        b"\x89PNG",
        b"%PDF",
        b"PK\x03\x04",
        b"GIF8",
        b"\xff\xd8\xff",
        b"\x1f\x8b",
        b"Rar!",
        b"7z\xbc",
    ),
)
_BOXES = frozenset(
    {b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot", b"styp", b"moof"}
)
_W64_WAVE = bytes.fromhex("77617665f3acd3118cd100c04f8edb8a")
_W64_FORMAT = bytes.fromhex("666d7420f3acd3118cd100c04f8edb8a")
_W64_DATA = bytes.fromhex("64617461f3acd3118cd100c04f8edb8a")
_PCM_TAGS = frozenset({1, 3, 6, 7, 0xFFFE})
_SUN_ENCODINGS = {(1, 16): 3, (1, 24): 4, (1, 32): 5, (3, 32): 6, (3, 64): 7}
"""Encodings of .au, by WAV's format tag and bits."""

Order = Literal["little", "big"]
Readable = IO[bytes] | io.RawIOBase


@dataclass(frozen=True, slots=True)
class AudioSource:
    """An upload's audio file, without tags around it."""

    file: FileView
    signed: bool
    """Whether it begins like a known kind of file, and so is no headerless audio."""
    damaged: bool = False
    """Whether its header is incomplete."""
    cut: bool = False
    """Whether its header states more data than the file has."""
    unstated: bool = False
    """Whether its length follows from the file's size, and not from its header."""


class FileView(io.RawIOBase):
    """``head``, followed by the bytes from ``start`` to ``end`` of a file, as one file to read."""

    def __init__(self, file: Readable, start: int, end: int, head: bytes = b"") -> None:
        super().__init__()
        self._file, self._start, self._head = file, start, head
        self.size = len(head) + max(0, end - start)
        self._at = 0

    def again(self) -> FileView:
        """The same bytes with an independent position."""
        end = self._start + self.size - len(self._head)
        return FileView(self._file, self._start, end, self._head)

    def part(self, start: int) -> FileView:
        """The bytes from ``start`` on, which lies after the head."""
        begin = self._start + start - len(self._head)
        return FileView(self._file, begin, begin + self.size - start)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def read(self, size: int = -1) -> bytes:
        left = max(0, self.size - self._at)
        size = left if size < 0 else min(size, left)
        data = self._head[self._at : self._at + size]
        if len(data) < size:
            self._file.seek(self._start + max(0, self._at - len(self._head)))
            data += self._file.read(size - len(data))
        self._at += len(data)
        return data


def examine(upload: IO[bytes]) -> AudioSource:
    """Find the audio file within an upload."""
    size = upload.seek(0, io.SEEK_END)
    start = _behind_tags(upload, size)
    head = _at(upload, start, 64)
    end = _before_tags(upload, start, size)
    file = FileView(upload, start, end)
    if head[:4] in {b"RIFF", b"RIFX", b"RF64", b"BW64"} and head[8:12] == b"WAVE":
        return _wav(file, end - start, head[:4])
    if head[:8] == b"riff\x2e\x91\xcf\x11" and head[24:40] == _W64_WAVE:
        return _w64(file, end - start)
    if head[:4] == b"FORM" and head[8:12] in {b"AIFF", b"AIFC"}:
        return _aiff(file, end - start, head[8:12])
    if head[:4] == b".snd":
        return _au(file, end - start, head)
    if head[:4] == b"caff":
        return _caf(file, end - start)
    signed = start > 0 or head.startswith(_SIGNATURES) or head[4:8] in _BOXES
    return AudioSource(file, signed=signed or _is_text(_at(upload, 0, 4096)))


def _at(file: Readable, position: int, size: int) -> bytes:
    file.seek(max(0, position))
    return file.read(size) or b""


def _is_text(data: bytes) -> bool:
    return bool(data) and all(32 <= byte < 127 or byte in b"\t\r\n" for byte in data)


def _behind_tags(file: Readable, size: int) -> int:
    """Where the file begins after leading ID3v2 and APEv2 tags."""
    start = 0
    for _ in range(_MAX_TAGS):
        head = _at(file, start, 32)
        if head[:3] == b"ID3" and len(head) >= 10 and max(head[6:10]) < 0x80 and head[3] < 0xFF:
            # Seven bits of each byte (ID3v2.4, 3.1); the flag is that of a footer.
            length = sum(
                byte << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True)
            )
            length += 20 if head[5] & 0x10 else 10
        elif head[:8] == b"APETAGEX" and len(head) == 32:
            length = 32 + int.from_bytes(head[12:16], "little")
        else:
            break
        if start + length >= size:
            break
        start += length
    return start


def _before_tags(file: Readable, start: int, end: int) -> int:
    """Where the file ends before trailing ID3v1, APEv2, Lyrics3 and ID3v2 tags."""
    for _ in range(_MAX_TAGS):
        tail = _at(file, max(start, end - 256), min(256, end - start))
        if tail[-128:-125] == b"TAG":
            length = 128
        elif tail[-227:-223] == b"TAG+":
            length = 227
        elif tail[-32:-24] == b"APETAGEX":
            has_header = tail[-9] & 0x80  # the highest bit of its flags, little-endian
            length = int.from_bytes(tail[-20:-16], "little") + (32 if has_header else 0)
        elif tail[-9:] == b"LYRICS200" and tail[-15:-9].isdigit():
            length = int(tail[-15:-9]) + 15
        elif tail[-10:-7] == b"3DI":
            sizes = zip(tail[-4:], (21, 14, 7, 0), strict=True)
            length = 20 + sum((byte & 0x7F) << shift for byte, shift in sizes)
        else:
            break
        if length >= end - start:
            break
        end -= length
    return end


def _chunks(
    file: Readable, position: int, order: Order, length: int = 4
) -> Iterator[tuple[bytes, int, int]]:
    """Name, stated size and offset of the content of each chunk. Odd ones are padded, which some
    writers leave out."""
    for _ in range(_MAX_CHUNKS):
        head = _at(file, position, 4 + length)
        if len(head) < 4 + length:
            return
        stated = int.from_bytes(head[4:], order)
        yield head[:4], stated, position + 4 + length
        position += 4 + length + stated
        if stated % 2:
            following = _at(file, position, 5)
            position += 0 if _is_name(following[:4]) and not _is_name(following[1:]) else 1


def _is_name(name: bytes) -> bool:
    return len(name) == 4 and all(32 <= byte < 127 for byte in name)


def _data_end(file: Readable, start: int, stated: int, size: int, order: Order) -> int:
    """Where data ends that its header states the size of: at the file's end where the size is a
    placeholder. A recording of nothing states 0 too, and only well-formed chunks follow it."""
    if stated == 0:
        last = start
        for name, length, at in _chunks(file, start, order):
            if not _is_name(name):
                return size
            last = at + length
        return start if last in {size, size - 1} else size
    return min(start + stated, size)


def _wav(file: FileView, size: int, kind: bytes) -> AudioSource:
    """RIFF, its big-endian RIFX, and RF64 and BW64 (EBU 3306), whose ds64 chunk has the sizes."""
    order: Order = "big" if kind == b"RIFX" else "little"
    found: dict[bytes, bytes] = {}
    data: tuple[int, int] | None = None
    for name, stated, at in _chunks(file, 12, order):
        if name == b"data":
            # Of two the last counts, as for ffmpeg; a size of 0 is a placeholder where samples follow.
            empty = not stated and (at >= size or _is_name(_at(file, at, 4)))
            data = data if data is not None and empty else (at, stated)
            if at + stated > size:
                break
        elif not _is_name(name):
            data = data or _data_near(file, at - 8, order)
            break
        elif at + stated > size + 1:
            break
        elif name in {b"fmt ", b"fact", b"ds64"}:  # of two the first counts, as for ffmpeg
            found.setdefault(name, _at(file, at, min(stated, _MAX_HEADER)))
    fmt = found.get(b"fmt ", b"")
    if data is None or len(fmt) < 14:
        return AudioSource(file, signed=True, damaged=True)
    start, stated = data
    if stated == 0xFFFFFFFF and b"ds64" in found:
        stated = int.from_bytes(found[b"ds64"][8:16], "little")
    end = _data_end(file, start, stated, size, order)
    if order == "big":
        head = _big_endian(fmt, end - start)
    else:
        # Of PCM the length counts, and not what a fact chunk says.
        is_pcm = int.from_bytes(fmt[:2], order) in _PCM_TAGS
        head = _riff(fmt, b"" if is_pcm else found.get(b"fact", b""), end - start)
    return AudioSource(FileView(file, start, end, head), signed=True, unstated=True)


def _big_endian(fmt: bytes, length: int) -> bytes:
    """A header for RIFX as big-endian .au, because ffmpeg takes RIFX for little-endian."""
    tag, channels, rate, _, _, bits = struct.unpack(">HHIIHH", fmt[:16].ljust(16, b"\0"))
    encoding = _SUN_ENCODINGS.get((3 if tag == 3 else 1, bits))
    if encoding is None or tag not in {1, 3, 0xFFFE}:  # bytes have no order
        width = channels * bits // 8
        return _riff(
            struct.pack("<HHIIHH", tag, channels, rate, rate * width, width, bits), b"", length
        )
    sizes = (24, min(length, 0xFFFFFFFF), encoding, rate, channels)
    return b".snd" + struct.pack(">IIIII", *sizes)


def _data_near(file: Readable, position: int, order: Order) -> tuple[int, int] | None:
    """The data chunk's start and stated size, behind a chunk whose own size was wrong."""
    found = _at(file, position, _MAX_HEADER).find(b"data")
    if found < 0:
        return None
    at = position + found + 8
    return at, int.from_bytes(_at(file, at - 4, 4), order)


def _riff(fmt: bytes, fact: bytes, length: int) -> bytes:
    """A RIFF header for ``length`` bytes of data."""
    stated = min(length, 0xFFFFFFFF).to_bytes(4, "little")
    chunks = [(b"fmt ", fmt)] + ([(b"fact", fact)] if fact else [])
    body = b"".join(
        name + len(content).to_bytes(4, "little") + content + bytes(len(content) % 2)
        for name, content in chunks
    )
    return b"RIFF" + b"\xff" * 4 + b"WAVE" + body + b"data" + stated


def _w64(file: FileView, size: int) -> AudioSource:
    """Sony Wave64: RIFF with GUIDs for names and sizes of 64 bits, which count their own head."""
    position, fmt = 40, b""
    for _ in range(_MAX_CHUNKS):
        head = _at(file, position, 24)
        if len(head) < 24:
            break
        stated = int.from_bytes(head[16:], "little") - 24
        at = position + 24
        if head[:16] == _W64_DATA and fmt:
            end = size if stated <= 0 or at + stated > size else at + stated
            view = FileView(file, at, end, _riff(fmt, b"", end - at))
            return AudioSource(view, signed=True, unstated=True)
        if stated < 0 or at + stated > size:
            break
        if head[:16] == _W64_FORMAT:
            fmt = _at(file, at, min(stated, _MAX_HEADER))
        position = at + (stated + 7) // 8 * 8
    return AudioSource(file, signed=True, damaged=True)


def _aiff(file: FileView, size: int, kind: bytes) -> AudioSource:
    common = b""
    kept: list[bytes] = []
    sound: tuple[int, int] | None = None
    for name, stated, at in _chunks(file, 12, "big"):
        if name == b"SSND":
            sound = (at, stated)
            if common or at + stated > size:
                break
        elif at + stated > size + 1:
            break
        elif name in {b"COMM", b"FVER", b"wave"} and 4 <= stated <= _MAX_HEADER:
            content = _at(file, at, stated)
            if name == b"COMM":
                common = content
                # To ffmpeg a count of frames that nobody knew is a negative one.
                content = (
                    content[:2] + (content[2:6] if content[2] < 0x80 else bytes(4)) + content[6:]
                )
            kept.append(name + stated.to_bytes(4, "big") + content + bytes(stated % 2))
    if sound is None or len(common) < 18:
        return AudioSource(file, signed=True, damaged=True)
    at, stated = sound
    end = _data_end(file, at + 8, max(0, stated - 8), size, "big")
    frames = int.from_bytes(common[2:6], "big")
    cut = at + stated > size and 0 < stated < _PLACEHOLDER and 0 < frames < _PLACEHOLDER
    if end == size:
        end -= (end - at) % 2  # ffmpeg refuses an odd size without the byte behind it
    length = min(end - at, 0xFFFFFFFF).to_bytes(4, "big")
    head = b"FORM" + b"\xff" * 4 + kind + b"".join(kept) + b"SSND" + length
    return AudioSource(
        FileView(file, at, end + (end - at) % 2, head), signed=True, cut=cut, unstated=True
    )


def _au(file: FileView, size: int, head: bytes) -> AudioSource:
    """Sun's .au; 0xFFFFFFFF states that the size is not known."""
    start = int.from_bytes(head[4:8], "big")
    stated = int.from_bytes(head[8:12], "big")
    if not 24 <= start < min(size, _MAX_HEADER):
        return AudioSource(file, signed=True, damaged=True)
    beyond = start + stated > size
    end = size if beyond or not stated else start + stated
    header = _at(file, 0, start)
    header = header[:8] + (end - start).to_bytes(8, "big")[-4:] + header[12:]
    cut = beyond and stated < _PLACEHOLDER
    return AudioSource(FileView(file, start, end, header), signed=True, cut=cut, unstated=True)


def _caf(file: FileView, size: int) -> AudioSource:
    """Apple's Core Audio Format; -1 states that the data goes on to the file's end."""
    for name, stated, at in _chunks(file, 8, "big", 8):
        if name == b"data":
            signed = stated - (1 << 64 if stated >> 63 else 0)
            beyond = signed > 0 and at + signed > size
            if signed > 4 and not beyond:
                return AudioSource(file, signed=True)
            header = _at(file, 0, at - 8) + b"\xff" * 8
            cut = beyond and signed < _PLACEHOLDER
            return AudioSource(
                FileView(file, at, size, header), signed=True, cut=cut, unstated=True
            )
        if at + stated > size or at > 16 * _MAX_HEADER:
            break
    return AudioSource(file, signed=True, damaged=True)
