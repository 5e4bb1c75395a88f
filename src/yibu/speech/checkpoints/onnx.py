"""Reads the operators and the weights of an ONNX file with nothing but numpy.

An ONNX file is a protobuf message. Of it only what names the operators and holds the tensors is
read here (field numbers from ``onnx.proto``); nothing in it is run.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from yibu.errors import VerificationError
from yibu.messages import tr
from yibu.speech.checkpoints.protobuf import fields, signed, varints

Tensor = npt.NDArray[Any]

_TYPES: dict[int, np.dtype[Any]] = {
    1: np.dtype("<f4"),
    2: np.dtype("<u1"),
    3: np.dtype("<i1"),
    6: np.dtype("<i4"),
    7: np.dtype("<i8"),
    10: np.dtype("<f2"),
    11: np.dtype("<f8"),
}
"""``TensorProto.DataType`` by number."""
_PACKED: dict[int, np.dtype[Any]] = {4: np.dtype("<f4"), 10: np.dtype("<f8")}
"""How the fields of packed floats hold them; field 9 has a tensor as it lies in memory."""
_MOST_BYTES = 2**28
"""The networks read here are of a few megabytes; a wrong file is not read into memory."""
_DAMAGE = (OSError, ValueError, UnicodeDecodeError, struct.error, OverflowError, MemoryError)


@dataclass(frozen=True, slots=True)
class Operator:
    """A node of the graph: its type and the names of the tensors it takes."""

    type: str
    inputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class OnnxGraph:
    """Operators in the order in which they can run, and the constant tensors by name."""

    operators: tuple[Operator, ...]
    tensors: dict[str, Tensor]


def read_onnx(path: Path) -> OnnxGraph:
    """The graph in ``path``.

    Raises ``VerificationError`` where the file is missing, damaged, or keeps its tensors in
    other files.
    """
    hint = tr("Download the model again, and check its size against the hub's")
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError(f"more than the {_MOST_BYTES} that are read here")
        return _graph(memoryview(path.read_bytes()))
    except FileNotFoundError as error:
        raise VerificationError("{path} is missing", path=path, hint=hint) from error
    except _DAMAGE as error:
        raise VerificationError(
            "{path}: {st_size} bytes that are no readable ONNX model: {error}",
            path=path,
            st_size=path.stat().st_size,
            error=error,
            hint=hint,
        ) from error


def _graph(model: memoryview) -> OnnxGraph:
    graphs = [value for number, value in _messages(model) if number == 7]
    if len(graphs) != 1:
        raise ValueError(f"{len(graphs)} graphs in it, 1 expected")
    operators: list[Operator] = []
    tensors: dict[str, Tensor] = {}
    for number, value in _messages(graphs[0]):
        if number == 1:
            operators.append(_operator(value))
        elif number == 5:
            name, tensor = _tensor(value)
            tensors[name] = tensor
    return OnnxGraph(tuple(operators), tensors)


def _operator(node: memoryview) -> Operator:
    inputs = []
    kind = ""
    for number, value in _messages(node):
        if number == 1:
            inputs.append(_text(value))
        elif number == 4:
            kind = _text(value)
    return Operator(kind, tuple(inputs))


def _tensor(message: memoryview) -> tuple[str, Tensor]:
    name, type_number = "", 0
    shape: list[int] = []
    values: list[Tensor] = []
    for number, value in fields(message):
        if number == 1:
            shape += [value] if isinstance(value, int) else varints(value)
        elif number == 2 and isinstance(value, int):
            type_number = value
        elif number == 8 and isinstance(value, memoryview):
            name = _text(value)
        elif number == 14 and value == 1:
            raise ValueError(f"tensor {name!r} is kept in another file")
        elif number in (4, 5, 7, 9, 10):
            values.append(_values(number, value, _type(type_number, name)))
    dtype = _type(type_number, name)
    flat = np.concatenate(values) if values else np.empty(0, dtype)
    if any(size < 0 for size in shape) or math.prod(shape) != len(flat):
        raise ValueError(f"tensor {name!r} has {len(flat)} values, its shape is {shape}")
    return name, flat.reshape(shape)


def _type(number: int, name: str) -> np.dtype[Any]:
    if number not in _TYPES:
        raise ValueError(f"tensor {name!r} is of type {number}, which is not read here")
    return _TYPES[number]


def _values(number: int, value: int | memoryview, dtype: np.dtype[Any]) -> Tensor:
    """Values of field ``number``: 5 and 7 hold varints, packed or one alone (small integers
    too), the others bytes."""
    if number in (5, 7):
        numbers = [signed(value)] if isinstance(value, int) else varints(value)
        return np.array(numbers, dtype=np.int64).astype(dtype)
    if isinstance(value, int):
        raise ValueError("a number where packed values were expected")
    return np.frombuffer(value, _PACKED.get(number, dtype)).astype(dtype)


def _text(value: memoryview) -> str:
    return bytes(value).decode("utf-8")


def _messages(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """The fields that hold bytes: texts and messages."""
    return ((n, value) for n, value in fields(message) if isinstance(value, memoryview))
