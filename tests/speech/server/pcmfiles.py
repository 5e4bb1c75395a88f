"""PCM files written by hand, with every size in their headers free to be wrong."""

from __future__ import annotations

import struct

import numpy as np

from tests.speech.server.media import tone

PCM = (tone(440, 2.0) * 32767).astype("<i2").tobytes()
BIG = np.frombuffer(PCM, "<i2").astype(">i2").tobytes()
ID3 = b"ID3\x04\0\0\0\0\x01\x7f" + bytes(255)
ID3V1 = b"TAG" + b"x" * 125
APE = (
    b"APETAGEX" + struct.pack("<IIII8x", 2000, 52, 1, 0xA0000000) + b"\5\0\0\0\0\0\0\0Title\0hello1"
)
APE += b"APETAGEX" + struct.pack("<IIII8x", 2000, 52, 1, 0x80000000)
LYRICS = b"LYRICSBEGININD0000210000021LYRICS200"
LIST = b"LIST" + struct.pack("<I", 16) + b"INFOISFT\4\0\0\0abcd"


def chunk(
    name: bytes, content: bytes, size: int | None = None, order: str = "<", *, padded: bool = True
) -> bytes:
    length = struct.pack(order + "I", len(content) if size is None else size)
    return name + length + content + bytes(len(content) % 2 if padded else 0)


def fmt(byte_rate: int = 32_000, order: str = "<", rate: int = 16_000) -> bytes:
    return chunk(b"fmt ", struct.pack(order + "HHIIHH", 1, 1, rate, byte_rate, 2, 16), order=order)


def wav(
    size: int | None = None,
    riff: int = 0,
    *,
    head: bytes | None = None,
    before: bytes = b"",
    after: bytes = b"",
    data: bytes = PCM,
) -> bytes:
    body = (fmt() if head is None else head) + before + chunk(b"data", data, size, padded=False)
    return b"RIFF" + struct.pack("<I", riff) + b"WAVE" + body + after


def rf64(wide: int, size: int = 0xFFFFFFFF, kind: bytes = b"RF64", after: bytes = b"") -> bytes:
    sizes = chunk(b"ds64", struct.pack("<QQQI", wide, wide, 0, 0))
    return kind + b"\xff" * 4 + b"WAVE" + sizes + fmt() + chunk(b"data", PCM, size) + after


def rifx() -> bytes:
    return b"RIFX\0\0\0\0WAVE" + fmt(order=">") + chunk(b"data", BIG, order=">")


def w64(size: int, after: bytes = b"") -> bytes:
    guid = bytes.fromhex("f3acd3118cd100c04f8edb8a")
    head = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\0\0" + bytes(8) + b"wave" + guid
    form = b"fmt " + guid + struct.pack("<Q", 40) + fmt()[8:]
    return head + form + b"data" + guid + struct.pack("<Q", size) + PCM + after


def aiff(
    size: int | None = None,
    frames: int = len(PCM) // 2,
    *,
    after: bytes = b"",
    common_last: bool = False,
) -> bytes:
    rate = struct.pack(">HQ", 16383 + 13, 16_000 << 50)  # 80-bit float
    common = chunk(b"COMM", struct.pack(">hIh", 1, frames, 16) + rate, order=">")
    sound = chunk(b"SSND", bytes(8) + BIG, size, ">")
    return b"FORM\0\0\0\0AIFF" + (sound + common if common_last else common + sound) + after


def au(size: int, after: bytes = b"") -> bytes:
    return b".snd" + struct.pack(">IIIII", 28, size, 3, 16_000, 1) + bytes(4) + BIG + after


def caf(size: int, after: bytes = b"") -> bytes:
    description = struct.pack(">d4sIIIII", 16_000.0, b"lpcm", 0, 2, 1, 1, 16)
    head = b"caff\0\1\0\0desc" + struct.pack(">q", 32) + description
    return head + b"data" + struct.pack(">q", size) + bytes(4) + BIG + after


def caf_with_layout(tag: int, channels: int) -> bytes:
    """A CAF that names its channels' layout by its number in Apple's table."""
    description = struct.pack(">d4sIIIII", 16_000.0, b"lpcm", 0, 2 * channels, 1, channels, 16)
    data = PCM[: len(PCM) // (2 * channels) * 2 * channels]
    chunks = [(b"desc", description), (b"chan", struct.pack(">III", tag, 0, 0))]
    chunks += [(b"data", bytes(4) + data)]
    return b"caff\0\1\0\0" + b"".join(
        name + struct.pack(">q", len(content)) + content for name, content in chunks
    )


def aiff_of(bits: int, frames: int) -> bytes:
    """A mono AIFF, without the byte behind data of odd length."""
    samples = (tone(440, frames / 16_000 + 1) * (1 << 31)).astype(">i4")[:frames]
    width = bits // 8
    data = np.frombuffer(samples.tobytes(), np.uint8).reshape(-1, 4)[:, :width].tobytes()
    common = struct.pack(">hIhHQ", 1, frames, bits, 16383 + 13, 16_000 << 50)
    sound = chunk(b"SSND", bytes(8) + data, order=">", padded=False)
    return b"FORM\0\0\0\0AIFF" + chunk(b"COMM", common, order=">") + sound
