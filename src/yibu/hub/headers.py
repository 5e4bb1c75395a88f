"""Reading small parts of a model before it is downloaded: configs, indexes, headers of weights."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from yibu.errors import HubError, HubNotFoundError
from yibu.hub import http
from yibu.hub.pages import may_be_page
from yibu.hub.quantization import QuantizationChoice, Variant, usual
from yibu.hub.selection import RemoteFile
from yibu.hub.settings import HubSettings
from yibu.hub.types import LocalModel, Source

_READ_LIMIT = 64 * 1024 * 1024
"""Bytes: a GGUF with a large vocabulary has some ten megabytes of metadata."""


@dataclass(frozen=True, slots=True)
class RemoteHeaders:
    """The files of a model, here or at its hub, and a way to read pieces of them."""

    source: Source
    files: Mapping[str, int]
    """path → bytes (0 where the hub does not say)"""
    local: bool
    """Whether the files are on this machine; reading is free then."""
    _read: Callable[[str, int, int], bytes] = field(repr=False)
    close: Callable[[], None] = field(default=lambda: None, repr=False)
    """Ends the connections to the hub; leaving a ``with`` block does the same."""
    notes: tuple[str, ...] = ()
    """Choices made for the user among the model's files, with reasons."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        """``length`` bytes from ``start`` (to the end when None); fewer where the file ends.

        Raises:
            HubNotFoundError: no such file.
            HubError: more than 64 MiB were asked for, or the hub failed.
        """
        if path not in self.files:
            raise HubNotFoundError("{source} has no file {path!r}.", source=self.source, path=path)
        wanted = self.files[path] - start if length is None else length
        if wanted > _READ_LIMIT:
            raise HubError(
                "{path}: {wanted} bytes are no header; at most {limit} are read.",
                path=path,
                wanted=wanted,
                limit=_READ_LIMIT,
            )
        return self._read(path, start, max(wanted, 0))

    def json(self, path: str) -> Any:
        """The parsed file, or None where the model has no such file.

        Raises:
            HubError: it is not JSON.
        """
        if path not in self.files:
            return None
        try:
            return json.loads(self.read(path))
        except ValueError as error:
            raise HubError(
                "{source}: {path} is not JSON: {error}.", source=self.source, path=path, error=error
            ) from error


HeaderChooser = Callable[[Sequence[Variant], RemoteHeaders], QuantizationChoice]
"""A :data:`Chooser` that may read the headers of the files to choose from."""


def first_usual(found: Sequence[Variant], _headers: RemoteHeaders) -> QuantizationChoice:
    return usual(found)


def local_headers(model: LocalModel) -> RemoteHeaders:
    def read(path: str, start: int, length: int) -> bytes:
        with model.file(path).open("rb") as file:
            file.seek(start)
            return file.read(length)

    return RemoteHeaders(model.source, {file.path: file.size for file in model.files}, True, read)


def remote_headers(
    source: Source, files: Sequence[RemoteFile], client: http.HttpClient, settings: HubSettings
) -> RemoteHeaders:
    """Reads by Range requests; a server that ignores Range is read up to the wanted bytes."""
    by_path = {file.path: file for file in files}
    never = threading.Event()

    def read(path: str, start: int, length: int) -> bytes:
        if length == 0:
            return b""
        file = by_path[path]
        what = f"{source}: {path}"

        def attempt() -> bytes:
            wanted = {"Range": f"bytes={start}-{start + length - 1}"}
            with client.get(
                file.url, {**file.headers, **wanted}, what=what, page=may_be_page(path)
            ) as response:
                if response.status_code == 416:
                    return b""
                skip = 0 if response.status_code == 206 else start
                content = bytearray()
                for chunk in http.body(response, what):
                    content += chunk
                    if len(content) >= skip + length:
                        break
                return bytes(content[skip : skip + length])

        return http.retrying(settings, what, attempt, never)

    sizes = {file.path: file.expected.size or 0 for file in files}
    return RemoteHeaders(source, sizes, False, read, client.close)
