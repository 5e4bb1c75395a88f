"""Which libraries an ELF file is linked to: its ``DT_NEEDED`` entries (elf(5)).

The one library for this reads each file's sections too, and takes half a minute for torch's four
hundred; the dynamic segment alone is enough.
"""

from __future__ import annotations

import mmap
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

_PT_LOAD, _PT_DYNAMIC = 1, 2
_DT_NULL, _DT_NEEDED, _DT_STRTAB = 0, 1, 5
_ELF64 = b"\x7fELF\x02" + (b"\x01" if sys.byteorder == "little" else b"\x02")
_HEADER = struct.Struct("=16xHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("=IIQQQQQQ")
_ENTRY = struct.Struct("=qQ")


def links(file: Path) -> list[str]:
    """The names in their order; none for what is no 64-bit ELF file of this machine's byte order,
    or a damaged one."""
    with file.open("rb") as stream:
        if stream.read(len(_ELF64)) != _ELF64:
            return []
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as image:
            try:
                return list(_needed(image))
            except (struct.error, KeyError, ValueError):
                return []


def _needed(image: mmap.mmap) -> Iterator[str]:
    header = _HEADER.unpack_from(image, 0)
    offset, size, count = header[4], header[8], header[9]
    segments = [_SEGMENT.unpack_from(image, offset + n * size) for n in range(count)]
    for kind, _, start, _, _, length, _, _ in segments:
        if kind != _PT_DYNAMIC:
            continue
        entries: list[tuple[int, int]] = []
        for tag, value in _ENTRY.iter_unpack(image[start : start + length // 16 * 16]):
            if tag == _DT_NULL:
                break
            entries.append((tag, value))
        strings = _in_file(segments, dict(entries)[_DT_STRTAB])
        for tag, value in entries:
            if tag == _DT_NEEDED:
                begin = strings + value
                yield image[begin : image.find(b"\0", begin)].decode()


def _in_file(segments: list[tuple[int, ...]], address: int) -> int:
    """The offset in the file of what is loaded at an address."""
    for kind, _, start, virtual, _, length, _, _ in segments:
        if kind == _PT_LOAD and virtual <= address < virtual + length:
            return start + address - virtual
    raise ValueError(f"no segment has the address {address:#x}")
