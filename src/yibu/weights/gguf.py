"""The header of a GGUF file: metadata and tensor descriptions, never the weights.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (versions 2 and 3). The bytes
come from strangers, so every count and length is checked against what is really there before
anything is allocated, and long arrays (the tokenizer's) are walked over, not kept.
"""

from __future__ import annotations

import mmap
import struct
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from math import prod
from typing import Any

from yibu.errors import UnsupportedError, VerificationError
from yibu.messages import tr

Buffer = bytes | mmap.mmap
"""What a header is read from. No memoryview: one that an error's traceback holds keeps a map from
being closed."""

MAGIC = b"GGUF"

_MAX_ENTRIES = 65_536
"""Metadata entries and tensors; the largest published models have some 2,500 tensors."""
_MAX_DIMENSIONS = 8
_MAX_KEPT_ARRAY = 4_096
"""Longer arrays are summed up as an ``ArrayLength``; per-layer settings are far shorter."""
_MAX_ARRAY_DEPTH = 2

_SCALARS = {**dict(enumerate("BbHhIif?")), **dict(enumerate("Qqd", 10))}
"""struct codes of the scalar value types, by their number in the format."""
_STRING, _ARRAY = 8, 9

_NUMBERS = tomllib.loads(files("yibu.weights").joinpath("gguf.toml").read_text("utf-8"))
_TENSOR_TYPES: Mapping[str, tuple[str, int, int]] = _NUMBERS["tensor_types"]
_FILE_TYPES: Mapping[str, str] = _NUMBERS["file_types"]


class HeaderCutShortError(VerificationError):
    """The bytes end before the header does; ``needed`` is how many there must be at least.

    Whoever fetches a header over the network fetches more and tries again.
    """

    def __init__(self, message: str, *, needed: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.needed = needed


@dataclass(frozen=True, slots=True)
class ArrayLength:
    """Stands for an array too long to keep."""

    length: int


@dataclass(frozen=True, slots=True)
class GgufTensor:
    name: str
    shape: tuple[int, ...]
    """As stored: the fastest-varying dimension first."""
    type: str
    offset: int
    """Bytes from the start of the data section."""
    size: int

    @property
    def elements(self) -> int:
        return prod(self.shape)


@dataclass(frozen=True, slots=True)
class Header:
    version: int
    metadata: Mapping[str, Any]
    tensors: tuple[GgufTensor, ...]
    data_start: int
    """Byte at which the data section begins."""

    @property
    def weight_bytes(self) -> int:
        return sum(tensor.size for tensor in self.tensors)

    @property
    def parameters(self) -> int:
        return sum(tensor.elements for tensor in self.tensors)

    @property
    def file_bytes(self) -> int:
        """Bytes the file must have at least for its tensors to be whole."""
        return self.data_start + max((t.offset + t.size for t in self.tensors), default=0)

    @property
    def quantization(self) -> str:
        """``Q4_K_M`` and the like: from the metadata, else the type most weights have."""
        if name := _FILE_TYPES.get(str(self.metadata.get("general.file_type"))):
            return name
        sizes: dict[str, int] = {}
        for tensor in self.tensors:
            sizes[tensor.type] = sizes.get(tensor.type, 0) + tensor.size
        return max(sizes, key=lambda name: sizes[name], default="")


class _Reader:
    """A cursor over bytes that never reads beyond them."""

    def __init__(self, data: Buffer, name: str) -> None:
        self.data = data
        self.name = name
        self.at = 0

    def need(self, size: int) -> None:
        if self.at + size > len(self.data):
            raise HeaderCutShortError(
                tr(
                    "{name}: the GGUF header goes on beyond byte {data_count}, where the data ends",
                    name=self.name,
                    data_count=len(self.data),
                ),
                needed=self.at + size,
                hint=tr("The file is cut short: pull it again, or run `yibu verify`"),
            )

    def scalar(self, code: str) -> Any:
        size = struct.calcsize("<" + code)
        self.need(size)
        (value,) = struct.unpack_from("<" + code, self.data, self.at)
        self.at += size
        return value

    def skip(self, size: int) -> None:
        self.need(size)
        self.at += size

    def string(self) -> str:
        length = self.scalar("Q")
        self.need(length)
        raw = self.data[self.at : self.at + length]
        self.at += length
        return raw.decode("utf-8", errors="replace")

    def skip_strings(self, count: int) -> None:
        """Walk over ``count`` strings: a tokenizer has hundreds of thousands."""
        length_at = struct.Struct("<Q").unpack_from
        data, end = self.data, len(self.data)
        for _ in range(count):
            if self.at + 8 > end:
                break
            self.at += 8 + length_at(data, self.at)[0]
        else:
            self.need(0)
            return
        self.need(8)

    def refuse(self, found: str) -> VerificationError:
        return VerificationError(
            "{name}: its GGUF header is not valid: {found}",
            name=self.name,
            found=found,
            hint="The file is damaged: pull it again, or run `yibu verify`",
        )


def parse(data: Buffer, name: str = "GGUF") -> Header:
    """Read a header from a file's first bytes (or a map of all of it).

    Args:
        data: The beginning of the file, at least as long as its header.
        name: What error messages call it.

    Raises:
        HeaderCutShortError: ``data`` ends within the header.
        VerificationError: The header contradicts itself.
        UnsupportedError: It is no GGUF, or of a version or tensor type not known here.
    """
    reader = _Reader(data, name)
    reader.need(8)
    if reader.data[:4] != MAGIC:
        raise UnsupportedError(
            "{name} is not a GGUF file: it begins with {data!r}, and {magic!r} was expected",
            name=name,
            data=reader.data[:4],
            magic=MAGIC,
        )
    reader.at = 4
    version = reader.scalar("I")
    if version not in (2, 3):
        raise UnsupportedError(
            "{name} is of GGUF version {version}; versions 2 and 3 (little-endian) are read here",
            name=name,
            version=version,
            hint="Convert it anew with llama.cpp's convert_hf_to_gguf.py",
        )
    tensor_count, entry_count = reader.scalar("Q"), reader.scalar("Q")
    for what, count in (("tensors", tensor_count), (tr("metadata entries"), entry_count)):
        if count > _MAX_ENTRIES:
            raise reader.refuse(
                tr(
                    "it claims {count} {what}, and at most {limit} are read",
                    count=count,
                    what=what,
                    limit=_MAX_ENTRIES,
                )
            )
    metadata: dict[str, Any] = {}
    for _ in range(entry_count):
        key = reader.string()
        metadata[key] = _value(reader, reader.scalar("I"), depth=0)
    tensors = tuple(_tensor(reader) for _ in range(tensor_count))
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 0 < alignment <= 1 << 20:
        raise reader.refuse(tr("general.alignment is {alignment!r}", alignment=alignment))
    data_start = -(-reader.at // alignment) * alignment
    return Header(version, metadata, tensors, data_start)


def _value(reader: _Reader, kind: int, depth: int) -> Any:
    if kind == _STRING:
        return reader.string()
    if kind == _ARRAY:
        return _array(reader, depth + 1)
    if code := _SCALARS.get(kind):
        return reader.scalar(code)
    raise reader.refuse(
        tr("value type {kind} at byte {at} is not one of the format's", kind=kind, at=reader.at)
    )


def _array(reader: _Reader, depth: int) -> Any:
    kind, count = reader.scalar("I"), reader.scalar("Q")
    if depth > _MAX_ARRAY_DEPTH:
        raise reader.refuse(
            tr(
                "arrays are nested more than {limit} deep",
                limit=_MAX_ARRAY_DEPTH,
            )
        )
    if count <= _MAX_KEPT_ARRAY:
        return [_value(reader, kind, depth) for _ in range(count)]
    if kind == _STRING:
        reader.skip_strings(count)
    elif code := _SCALARS.get(kind):
        reader.skip(count * struct.calcsize("<" + code))
    else:
        raise reader.refuse(tr("an array of {count} values of type {kind}", count=count, kind=kind))
    return ArrayLength(count)


def _tensor(reader: _Reader) -> GgufTensor:
    name = reader.string()
    dimensions = reader.scalar("I")
    if dimensions > _MAX_DIMENSIONS:
        raise reader.refuse(
            tr("tensor {name!r} has {dimensions} dimensions", name=name[:80], dimensions=dimensions)
        )
    shape = tuple(reader.scalar("Q") for _ in range(dimensions))
    kind, offset = reader.scalar("I"), reader.scalar("Q")
    if (known := _TENSOR_TYPES.get(str(kind))) is None:
        raise UnsupportedError(
            "{reader}: tensor {name!r} is of type {kind}, which this yibu does not know",
            reader=reader.name,
            name=name[:80],
            kind=kind,
            hint="Upgrade yibu, or take another quantization of the model",
        )
    type_name, block, block_bytes = known
    elements = prod(shape)
    if elements % block:
        raise reader.refuse(
            tr(
                "tensor {name!r} has {elements} elements, no multiple of {type_name}'s {block}",
                name=name[:80],
                elements=elements,
                type_name=type_name,
                block=block,
            )
        )
    return GgufTensor(name, shape, type_name, offset, elements // block * block_bytes)
