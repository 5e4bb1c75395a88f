"""A small client of yibu's own gateway, on the standard library alone so that verbs start fast."""

from __future__ import annotations

import http.client
import json
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from yibu.errors import NotRunningError, OverloadedError, YibuError
from yibu.messages import active, tr

_ANSWER_TIMEOUT = 900.0
"""Seconds: a long answer of a slow model on a laptop is still an answer."""
_FILE_TIMEOUT = 4 * 3600.0
"""Seconds until the answer to a file of hours, which comes in one piece."""
_PIECE = 1 << 20
"""Bytes of a file that are held at once."""


@dataclass(frozen=True, slots=True)
class Api:
    """One gateway and its key."""

    url: str
    key: str | None = field(default=None, repr=False)
    timeout: float = _ANSWER_TIMEOUT
    language: str = field(default_factory=active)
    """The language of the gateway's error messages."""

    def get(self, path: str) -> Any:
        """GET JSON. Raises YibuError with the gateway's own message."""
        with self._send("GET", path, None, {}) as response:
            return json.loads(response.read())

    def text(self, path: str) -> str:
        """GET text."""
        with self._send("GET", path, None, {}) as response:
            return response.read().decode("utf-8", "replace")

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """POST JSON, return the whole answer."""
        with self._send("POST", path, json.dumps(body).encode(), _JSON) as response:
            return json.loads(response.read())

    def stream(self, path: str, body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """POST JSON and yield each server-sent event's object until ``[DONE]``.

        Raises:
            YibuError: the gateway refused, or sent an error in the middle of the stream.
        """
        with self._send("POST", path, json.dumps(body).encode(), _JSON) as response:
            for line in response:
                if not line.startswith(b"data:"):
                    continue
                payload = line[5:].strip()
                if payload == b"[DONE]":
                    return
                event = json.loads(payload)
                if "error" in event:
                    raise _refusal(event, 200)
                yield event
        raise YibuError(
            "The answer broke off before its end.", hint="See what happened with: yibu logs"
        )

    def upload(self, path: str, file: Path, fields: Mapping[str, str]) -> bytes:
        """POST a multipart form with one file and return the body of the answer.

        Raises OverloadedError where the engine has too much to do and says when to come again.
        """
        boundary = secrets.token_hex(16)
        head = "".join(
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
            for name, value in fields.items()
        )
        quoted = file.name.replace("\\", "\\\\").replace('"', '\\"')
        head += (
            f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{quoted}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        )
        start, tail = head.encode(), f"\r\n--{boundary}--\r\n".encode()
        with file.open("rb") as opened:
            size = os.fstat(opened.fileno()).st_size
            headers = {
                "Content-Type": f"multipart/form-data; boundary={boundary}",
                "Content-Length": str(len(start) + size + len(tail)),
            }
            body = chain([start], iter(partial(opened.read, _PIECE), b""), [tail])
            patient = replace(self, timeout=_FILE_TIMEOUT)
            with patient._send("POST", path, body, headers) as response:  # noqa: SLF001 - of this class
                return response.read()

    @contextmanager
    def _send(
        self,
        method: str,
        path: str,
        body: bytes | Iterable[bytes] | None,
        headers: Mapping[str, str],
    ) -> Iterator[http.client.HTTPResponse]:
        parts = urlsplit(self.url)
        connection = http.client.HTTPConnection(
            parts.hostname or "127.0.0.1", parts.port or 80, timeout=self.timeout
        )
        asked = {"Accept-Language": self.language.replace("_", "-")}
        if self.key:
            asked["Authorization"] = f"Bearer {self.key}"
        try:
            # A gateway that refuses an upload closes before it has read it all, and has answered.
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.request(method, path, body, {**headers, **asked})
            response = connection.getresponse()
            if response.status >= 400:
                raise _refusal(
                    _read_json(response), response.status, response.getheader("retry-after")
                )
            yield response
        except ConnectionRefusedError as error:
            raise NotRunningError(
                "Nothing answers at {url}.", url=self.url, hint="Start it with: yibu up"
            ) from error
        except (TimeoutError, ConnectionError, http.client.HTTPException) as error:
            raise YibuError(
                "{url}{path} did not answer properly: {error!r}.",
                url=self.url,
                path=path,
                error=error,
                hint="See its state with: yibu ps",
            ) from error
        finally:
            connection.close()


_JSON = {"Content-Type": "application/json"}


def _read_json(response: http.client.HTTPResponse) -> Any:
    text = response.read()
    try:
        return json.loads(text)
    except ValueError:
        return {"error": {"message": text.decode("utf-8", "replace")[:500]}}


def _refusal(body: Any, status: int, retry_after: str | None = None) -> YibuError:
    error = body.get("error") if isinstance(body, dict) else None
    message = error.get("message") if isinstance(error, dict) else error
    text = tr(
        "{message} (HTTP {status})",
        message=message or tr("The gateway refused the request."),
        status=status,
    )
    if status == 429 and retry_after is not None and retry_after.isdecimal():
        return OverloadedError(text, retry_after=float(retry_after))
    return YibuError(text)
