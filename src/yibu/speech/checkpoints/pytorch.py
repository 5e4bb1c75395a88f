"""Reads the tensors of a PyTorch checkpoint without PyTorch and without running its pickle.

A ``torch.save`` file is a zip archive: ``NAME/data.pkl`` describes the tensors and
``NAME/data/KEY`` holds the bytes of each storage, uncompressed. A pickle can name any function
to be called; here it can name only the few that make tensors and dictionaries, all of them
replaced by functions of this module, and anything else is refused.
"""

from __future__ import annotations

import collections
import mmap
import pickle
import shlex
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from yibu.errors import VerificationError
from yibu.messages import tr

Weights = dict[str, npt.NDArray[Any]]

_HALVES = np.dtype("<u2")
_STORAGES: dict[str, np.dtype[Any]] = {
    "FloatStorage": np.dtype("<f4"),
    "DoubleStorage": np.dtype("<f8"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": _HALVES,
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("<i1"),
    "ByteStorage": np.dtype("<u1"),
    "BoolStorage": np.dtype("?"),
}
_DAMAGE = (
    OSError,
    zipfile.BadZipFile,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    EOFError,
    MemoryError,
    OverflowError,
    RecursionError,
    struct.error,
)
"""What reading a file of other bytes can end in; ``pickle`` documents several of them."""
_BEFORE_1_6 = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)
"""How a file that ``torch.save`` wrote before PyTorch 1.6 begins; it is no zip archive."""
_CONVERT = (
    "import sys, torch; p = sys.argv[1]; "
    "torch.save(torch.load(p, map_location='cpu', weights_only=True), p)"
)
_LOCAL_HEADER = struct.Struct("<4s22xHH")
"""Signature, then the lengths of the name and of the extra field, of a zip's local header."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint's tensors, as views of the file mapped into memory."""

    tensors: Weights
    _mapped: mmap.mmap

    def release(self) -> None:
        """Give back the memory of what was read; it comes from disk again when it is used."""
        if hasattr(self._mapped, "madvise"):
            self._mapped.madvise(mmap.MADV_DONTNEED)


def read_checkpoint(path: Path) -> Checkpoint:
    """Name → array of every tensor in the state dictionary that ``path`` holds.

    A state dictionary under ``state_dict``, ``model_state_dict`` or ``model`` is found, as
    FunASR finds it. The arrays are read from disk when they are used, and what is written to
    them stays in memory. Raises ``VerificationError`` where the file is missing, cut short,
    not a checkpoint of this format, or names anything but tensors.
    """
    hint = tr("Download the model again, and check its size against the hub's")
    try:
        with zipfile.ZipFile(path) as archive, path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            content = _load(archive, np.frombuffer(mapped, dtype=np.uint8))
    except FileNotFoundError as error:
        raise VerificationError("{path} is missing", path=path, hint=hint) from error
    except pickle.UnpicklingError as error:
        raise VerificationError(
            "{path}: refused: {error}",
            path=path,
            error=error,
            hint="A checkpoint of weights names tensors only; do not load this file elsewhere",
        ) from error
    except _DAMAGE as error:
        _refuse_legacy(path)
        size = path.stat().st_size
        raise VerificationError(
            "{path}: {size} bytes that are no readable PyTorch checkpoint (zip format): {error!r}",
            path=path,
            size=size,
            error=error,
            hint=hint,
        ) from error
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict):
        raise VerificationError(
            "{path}: holds a {kind}, a dictionary of tensors expected",
            path=path,
            kind=type(content).__name__,
            hint=hint,
        )
    tensors = {str(k): v for k, v in content.items() if isinstance(v, np.ndarray)}
    return Checkpoint(tensors, mapped)


def _refuse_legacy(path: Path) -> None:
    if not path.is_file():
        return
    with path.open("rb") as file:
        if file.read(len(_BEFORE_1_6)) != _BEFORE_1_6:
            return
    raise VerificationError(
        "{path} was saved by PyTorch before 1.6, as a bare pickle, which is not read here; "
        "a zip archive expected",
        path=path,
        hint=tr(
            'Write it again: $(yibu engine install speech-torch) -c "{code}" {file}',
            code=_CONVERT,
            file=shlex.quote(str(path)),
        ),
    )


def _load(archive: zipfile.ZipFile, mapped: npt.NDArray[np.uint8]) -> object:
    names = [name for name in archive.namelist() if name.endswith("/data.pkl")]
    if len(names) != 1:
        raise ValueError(f"{len(names)} files named data.pkl in it, 1 expected")
    prefix = names[0].removesuffix("data.pkl")
    order = f"{prefix}byteorder"
    if order in archive.namelist() and archive.read(order) != b"little":
        raise ValueError("written on a big-endian machine")
    with archive.open(names[0]) as description:
        return _TensorUnpickler(description, archive, mapped, prefix).load()


@dataclass(frozen=True, slots=True)
class _StorageType:
    """Stands for a class such as ``torch.FloatStorage``."""

    name: str


@dataclass(frozen=True, slots=True)
class _Storage:
    type: _StorageType
    values: npt.NDArray[Any]


class _TensorUnpickler(pickle.Unpickler):
    """Unpickles dictionaries of tensors, and refuses every other name."""

    def __init__(
        self,
        description: IO[bytes],
        archive: zipfile.ZipFile,
        mapped: npt.NDArray[np.uint8],
        prefix: str,
    ) -> None:
        super().__init__(description)
        self._archive = archive
        self._mapped = mapped
        self._prefix = prefix

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return _rebuild_parameter
        if module in ("torch", "torch.storage") and name in _STORAGES:
            return _StorageType(name)
        raise pickle.UnpicklingError(f"it names {module}.{name}, which is no tensor")

    def persistent_load(self, pid: Any) -> _Storage:
        kind, storage_type, key, _device, count = pid
        if kind != "storage" or not isinstance(storage_type, _StorageType):
            raise pickle.UnpicklingError(f"it refers to {pid!r}, which is no storage")
        dtype = _STORAGES[storage_type.name]
        entry = self._archive.getinfo(f"{self._prefix}data/{key}")
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != count * dtype.itemsize:
            raise ValueError(
                f"storage {key} has {entry.file_size} bytes, {count * dtype.itemsize} expected"
            )
        header = self._mapped[entry.header_offset : entry.header_offset + _LOCAL_HEADER.size]
        _signature, name_length, extra_length = _LOCAL_HEADER.unpack(header.tobytes())
        start = entry.header_offset + _LOCAL_HEADER.size + name_length + extra_length
        data = self._mapped[start : start + entry.file_size]
        if len(data) != entry.file_size:
            raise ValueError(f"storage {key} ends beyond the file")
        return _Storage(storage_type, data.view(dtype))


def _rebuild_tensor(
    storage: _Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_rest: object
) -> npt.NDArray[Any]:
    """A tensor as a view of its storage; bfloat16 is widened to float32."""
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if 0 not in size and not 0 <= offset <= last < len(storage.values):
        raise ValueError(f"a tensor reaches element {last} of {len(storage.values)}")
    width = storage.values.itemsize
    view = np.lib.stride_tricks.as_strided(
        storage.values[offset:], size, [step * width for step in stride]
    )
    if storage.type.name == "BFloat16Storage":
        return (view.astype(np.uint32) << 16).view(np.float32)
    return view


def _rebuild_parameter(tensor: npt.NDArray[Any], *_rest: object) -> npt.NDArray[Any]:
    return tensor
