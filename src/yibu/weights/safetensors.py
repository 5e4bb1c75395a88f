"""The header of a safetensors file: names, types, shapes and places of tensors.

Format: https://huggingface.co/docs/safetensors (eight bytes of little-endian length, that many
bytes of JSON, then the data). The length is bounded as the format's own library bounds it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from yibu.errors import VerificationError
from yibu.messages import tr

MAX_HEADER_BYTES = 100_000_000
"""The limit of the safetensors library itself."""

# Bits an element of each dtype takes. F4 and F6 are packed.
_BITS: Mapping[str, int] = {
    "BOOL": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "C64": 64,
    "F64": 64,
    "I64": 64,
    "U64": 64,
}


@dataclass(frozen=True, slots=True)
class SafetensorsTensor:
    name: str
    dtype: str
    shape: tuple[int, ...]
    size: int
    """Bytes, by the header's own offsets."""
    end: int
    """Byte of the data section at which it ends."""

    @property
    def elements(self) -> int:
        return prod(self.shape)


def read_header(path: Path) -> tuple[SafetensorsTensor, ...]:
    """Read one file's header and check that the file is as long as the header says.

    Raises:
        VerificationError: The file is cut short or its header is not valid.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = header_length(start, path.name)
        if 8 + length > size:
            raise _cut_short(path.name, 8 + length, size)
        tensors = parse_header(load_header(file.read(length), path.name), path.name)
    wanted = 8 + length + max((tensor.end for tensor in tensors), default=0)
    if wanted > size:
        raise _cut_short(path.name, wanted, size)
    return tensors


def header_length(start: bytes, name: str) -> int:
    """Bytes of JSON that follow a file's first eight bytes.

    Raises:
        VerificationError: Fewer than eight bytes, or an impossible length.
    """
    if len(start) < 8:
        raise _cut_short(name, 8, len(start))
    length = int.from_bytes(start[:8], "little")
    if not 2 <= length <= MAX_HEADER_BYTES:
        raise VerificationError(
            "{name} is not a safetensors file: its header would be {length} bytes long "
            "(2 to {limit} are valid)",
            name=name,
            length=length,
            limit=MAX_HEADER_BYTES,
            hint="The file is damaged or a Git LFS pointer: pull it again",
        )
    return length


def parse_header(header: Mapping[str, Any], name: str) -> tuple[SafetensorsTensor, ...]:
    """Turn a header's JSON object into tensors.

    Raises:
        VerificationError: An entry lacks a field or contradicts itself.
    """
    tensors = []
    for key, entry in header.items():
        if key == "__metadata__":
            continue
        try:
            dtype, shape = str(entry["dtype"]), tuple(int(size) for size in entry["shape"])
            begin, end = (int(offset) for offset in entry["data_offsets"])
        except (KeyError, TypeError, ValueError) as error:
            raise _invalid(name, key, f"{error!r}") from error
        tensor = SafetensorsTensor(key, dtype, shape, end - begin, end)
        bits = _BITS.get(dtype)
        if begin < 0 or end < begin or any(size < 0 for size in shape):
            raise _invalid(
                name,
                key,
                tr(
                    "offsets {begin}..{end}, shape {shape}", begin=begin, end=end, shape=list(shape)
                ),
            )
        if bits is not None and tensor.size * 8 != tensor.elements * bits:
            raise _invalid(
                name,
                key,
                tr(
                    "{tensor_size} bytes for {elements} × {dtype}",
                    tensor_size=tensor.size,
                    elements=tensor.elements,
                    dtype=dtype,
                ),
            )
        tensors.append(tensor)
    return tuple(tensors)


def load_header(raw: bytes, name: str) -> Mapping[str, Any]:
    """The JSON object behind a file's first eight bytes.

    Raises:
        VerificationError: It is none.
    """
    try:
        header = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise VerificationError(
            "{name}: its safetensors header is not JSON: {error}",
            name=name,
            error=error,
            hint="The file is damaged: pull it again, or run `yibu verify`",
        ) from error
    if not isinstance(header, dict):
        raise _invalid(
            name, "(header)", tr("a JSON {name} instead of an object", name=type(header).__name__)
        )
    return header


def _cut_short(name: str, wanted: int, found: int) -> VerificationError:
    return VerificationError(
        "{name} is cut short: {found} bytes are here, its header asks for {wanted}",
        name=name,
        found=found,
        wanted=wanted,
        hint="Pull it again: an interrupted download resumes",
    )


def _invalid(name: str, key: str, found: str) -> VerificationError:
    return VerificationError(
        "{name}: its safetensors header is not valid at {key!r}: {found}",
        name=name,
        key=key[:120],
        found=found,
        hint="The file is damaged: pull it again, or run `yibu verify`",
    )
