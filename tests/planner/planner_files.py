"""Small files with real headers, written by hand: GGUF and safetensors without weights' meaning."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def gguf_string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def gguf_value(value: Any) -> bytes:
    """Type number and bytes of a metadata value."""
    if isinstance(value, bool):
        return struct.pack("<I?", 7, value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    if isinstance(value, str):
        return struct.pack("<I", 8) + gguf_string(value)
    if isinstance(value, list):
        items = [gguf_value(item) for item in value]
        kind = items[0][:4] if items else struct.pack("<I", 4)
        body = b"".join(item[4:] for item in items)
        return struct.pack("<I", 9) + kind + struct.pack("<Q", len(items)) + body
    raise TypeError(value)


def gguf_bytes(
    metadata: Mapping[str, Any],
    tensors: Sequence[tuple[str, tuple[int, ...], int, int]] = (),
    *,
    version: int = 3,
    data: int = 0,
) -> bytes:
    """A GGUF file.

    Args:
        tensors: Name, shape, type number and offset of each.
        data: Bytes of (empty) tensor data that follow the header.
    """
    out = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(metadata))
    for key, value in metadata.items():
        out += gguf_string(key) + gguf_value(value)
    for name, shape, kind, offset in tensors:
        out += gguf_string(name) + struct.pack("<I", len(shape))
        out += b"".join(struct.pack("<Q", size) for size in shape)
        out += struct.pack("<IQ", kind, offset)
    out += b"\0" * (-len(out) % 32)
    return out + b"\0" * data


def with_metadata(file: bytes, metadata: Mapping[str, int]) -> bytes:
    """A GGUF file with further keys before its own; as many bytes longer as keep its tensors aligned."""
    version, tensors, keys = struct.unpack_from("<IQQ", file, 4)
    added = b"".join(gguf_string(key) + gguf_value(value) for key, value in metadata.items())
    padding = gguf_string("padding") + gguf_value(" " * (-(len(added) + 27) % 32))
    head = b"GGUF" + struct.pack("<IQQ", version, tensors, keys + len(metadata) + 1)
    return head + added + padding + file[24:]


LLAMA = {
    "general.architecture": "llama",
    "general.file_type": 2,
    "llama.block_count": 2,
    "llama.context_length": 4096,
    "llama.embedding_length": 64,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
}


def safetensors_header(tensors: Mapping[str, tuple[str, Sequence[int]]]) -> dict[str, Any]:
    """A header's JSON for tensors that lie one after another."""
    sizes = {"BF16": 2, "F16": 2, "F32": 4, "I32": 4, "F8_E4M3": 1, "U8": 1, "I64": 8}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, (dtype, shape) in tensors.items():
        size = sizes[dtype]
        for dimension in shape:
            size *= dimension
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    return header


def write_safetensors(path: Path, tensors: Mapping[str, tuple[str, Sequence[int]]]) -> None:
    header = safetensors_header(tensors)
    raw = json.dumps(header).encode()
    end = max((e["data_offsets"][1] for k, e in header.items() if k != "__metadata__"), default=0)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        file.truncate(8 + len(raw) + end)
