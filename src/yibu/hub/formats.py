"""Checks a file against its format where no hash is known: magic bytes, lengths, well-formedness."""

from __future__ import annotations

import json
import mmap
import zipfile
from collections.abc import Callable
from pathlib import Path

from yibu.errors import UnsupportedError, VerificationError
from yibu.messages import tr
from yibu.weights import gguf, safetensors

_LARGEST_JSON = 256 * 1024 * 1024
_PICKLES = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
"""How torch.save began before it wrote zip files, by the pickle protocol."""
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


def check_format(name: str, path: Path, file_name: str) -> bool:
    """Compare a file with its format; whether its format can be checked.

    ``file_name`` is the file's real one: ``path`` may be a temporary file.

    Raises:
        VerificationError: it is cut short, damaged, or something else altogether.
    """
    with path.open("rb") as file:
        start = file.read(512)
    if start.startswith(_LFS_POINTER):
        raise VerificationError(
            "{name} is a Git LFS pointer, which stands for the file, and not the file itself.",
            name=name,
            hint="The mirror keeps repositories without their large files: use another one",
        )
    checker = _checker(file_name.rpartition("/")[2].lower())
    if checker is None:
        return False
    if not start:
        raise VerificationError("{name} is empty.", name=name, hint="Run the same command again")
    try:
        checker(path, start)
    except VerificationError as error:
        raise VerificationError(
            "{file}: {reason}.", file=name, reason=error.message, hint=_AGAIN
        ) from error
    except UnsupportedError:
        return False  # a version of the format that is not known here
    return True


def _checker(file_name: str) -> Callable[[Path, bytes], None] | None:
    if file_name.endswith(".bin"):  # of torch; CTranslate2 and others use the same ending
        return _torch if file_name.startswith(("pytorch_model", "adapter_model")) else None
    if file_name == "tokenizer.model":
        return _tokenizer
    return _CHECKERS.get(Path(file_name).suffix)


_AGAIN = tr("Run the same command again; if it stays so, the file is broken where it comes from")


def _gguf(path: Path, start: bytes) -> None:
    if not start.startswith(gguf.MAGIC):
        raise VerificationError(
            "it does not begin as a GGUF file does, but with {start!r}", start=start[:8]
        )
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        header = gguf.parse(data, "the file")
        if header.file_bytes > len(data):
            raise VerificationError(
                "it is cut short: {data_count} bytes came, and its header describes "
                "tensors up to byte {file_bytes}",
                data_count=len(data),
                file_bytes=header.file_bytes,
            )


def _safetensors(path: Path, _start: bytes) -> None:
    tensors = safetensors.read_header(path)
    with path.open("rb") as file:
        length = 8 + int.from_bytes(file.read(8), "little")
    end = length + max((tensor.end for tensor in tensors), default=0)
    if end != path.stat().st_size:
        raise VerificationError(
            "{st_size} bytes came, and its header describes {end}",
            st_size=path.stat().st_size,
            end=end,
        )


def _torch(path: Path, start: bytes) -> None:
    """A zip archive, whose directory is at its end; before torch 1.6 a bare pickle."""
    if start.startswith(_PICKLES):
        return
    if not start.startswith(b"PK\x03\x04") or not zipfile.is_zipfile(path):
        raise VerificationError("it is no whole archive of torch.save")


def _onnx(_path: Path, start: bytes) -> None:
    # ModelProto's first field is ir_version, a small number.
    if start[:1] != b"\x08":
        raise VerificationError(
            "it does not begin as an ONNX model does, but with {start!r}", start=start[:8]
        )


def _tokenizer(_path: Path, start: bytes) -> None:
    # SentencePiece's protobuf begins with its first piece; tiktoken's is base64, line by line.
    if start[:1] != b"\n" and not (start.isascii() and start[:1].isalnum()):
        raise VerificationError(
            "it does not begin as a tokenizer does, but with {start!r}", start=start[:8]
        )


def _json(path: Path, _start: bytes) -> None:
    if path.stat().st_size > _LARGEST_JSON:
        raise VerificationError("it is larger than any JSON file of a model")
    try:
        json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise VerificationError("it is not JSON ({error})", error=error) from error


_CHECKERS: dict[str, Callable[[Path, bytes], None]] = {
    ".gguf": _gguf,
    ".safetensors": _safetensors,
    ".pt": _torch,
    ".pth": _torch,
    ".ckpt": _torch,
    ".onnx": _onnx,
    ".json": _json,
}
