"""The engine's websockets: one task that receives, one that sends."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Protocol

from starlette.routing import WebSocketRoute
from starlette.types import Scope
from starlette.websockets import WebSocket, WebSocketDisconnect

from yibu.errors import InvalidRequestError, RequestError, UnknownModelError, UnsupportedError
from yibu.messages import tr
from yibu.speech.answers.responses import as_refusal, error_answer
from yibu.speech.engine import SpeechEngine
from yibu.speech.live.funasr import FunasrConnection
from yibu.speech.live.messages import Message
from yibu.speech.live.realtime import Realtime

log = logging.getLogger(__name__)

MAX_MESSAGE = 16 * 1024 * 1024
"""Bytes of one message: OpenAI takes 15 MiB."""
KEY_PROTOCOL = "openai-insecure-api-key."
"""How a browser, which can set no header, sends a key: as a subprotocol."""
NAMES_HEADER = "x-yibu-model"
"""The gateway's header with the names, comma-separated, by which its client knows the model; the first
is the one it used."""
USAGE_HEADER = "x-yibu-usage"
"""The gateway's header that asks for usage messages."""

_USAGE_SECONDS = 1.0
_QUEUED = 256
"""Messages queued for a slow client before its own are left unread."""
_CLOSED_FOR_FAULT, _CLOSED_FOR_IDLENESS = 1011, 1001


class LiveConnection(Protocol):
    """A connection of one of the protocols."""

    @property
    def seconds(self) -> float: ...

    async def handle(self, message: Message) -> None: ...

    def tell_error(self, error: RequestError) -> None: ...

    def close(self) -> None: ...


Begin = Callable[[Callable[[Message], None]], LiveConnection]


def live_routes(engine: SpeechEngine) -> list[WebSocketRoute]:
    """Both protocols, bound to one engine."""
    live = _Live(engine)
    return [
        WebSocketRoute("/v1/realtime", live.realtime),
        WebSocketRoute("/ws", live.funasr),
    ]


def foreign_origin(scope: Scope) -> str | None:
    """The origin of the web page that opened it, if it is another site's."""
    headers = dict(scope["headers"])
    origin = headers.get(b"origin", b"").decode("latin-1").lower()
    host = headers.get(b"host", b"").decode("latin-1").lower()
    return None if not origin or origin.partition("://")[2] == host else origin[:200]


class _Live:
    def __init__(self, engine: SpeechEngine) -> None:
        self._engine = engine

    async def realtime(self, websocket: WebSocket) -> None:
        """OpenAI's Realtime API, transcription."""

        def begin(send: Callable[[Message], None]) -> LiveConnection:
            serving = self._engine.serving()
            used, names = self._names(websocket)
            intent = websocket.query_params.get("intent", "transcription")
            if intent != "transcription":
                raise InvalidRequestError(
                    "intent is {intent!r}; 'transcription' is what is served",
                    intent=intent[:32],
                    param="intent",
                )
            connection = Realtime(serving.live, serving.recognizer, names, used, send)
            connection.greet()
            return connection

        await self._serve(websocket, "realtime", begin)

    async def funasr(self, websocket: WebSocket) -> None:
        """FunASR's websocket protocol."""
        python = "binary" in websocket.scope["subprotocols"]

        def begin(send: Callable[[Message], None]) -> LiveConnection:
            serving = self._engine.serving()
            self._names(websocket)
            return FunasrConnection(
                serving.live,
                serving.transcriber,
                serving.recognizer,
                self._engine.settings.limits,
                send,
                python=python,
            )

        await self._serve(websocket, "binary", begin)

    def _names(self, websocket: WebSocket) -> tuple[str, frozenset[str]]:
        """The model's name in use, and all that it may be called by.

        Raises:
            UnknownModelError: the URL names another model.
        """
        served = self._engine.settings.served_name
        told = [name for name in websocket.headers.get(NAMES_HEADER, "").split(",") if name]
        names = frozenset([served, *told])
        used = websocket.query_params.get("model") or (told[0] if told else served)
        if used not in names:
            raise UnknownModelError(
                "The model {used!r} is not served here; {served!r} is",
                used=used[:128],
                served=served,
                param="model",
            )
        return used, names

    async def _serve(self, websocket: WebSocket, subprotocol: str, begin: Begin) -> None:
        sender = _Sender(websocket)
        try:
            with self._engine.session():
                connection = begin(sender.put)
                try:
                    offered = websocket.scope["subprotocols"]
                    await websocket.accept(subprotocol if subprotocol in offered else None)
                    await sender.run(self._receive(websocket, sender, connection))
                finally:
                    connection.close()
                    self._engine.metrics.live_seconds.add(connection.seconds)
        except UnsupportedError as error:
            await self._refuse(websocket, InvalidRequestError(str(error)))
        except RequestError as error:
            await self._refuse(websocket, error)

    async def _refuse(self, websocket: WebSocket, error: RequestError) -> None:
        if error.status == 429:
            self._engine.metrics.rejected.add()
        await error_answer(error)(websocket.scope, websocket.receive, websocket.send)

    async def _receive(
        self, websocket: WebSocket, sender: _Sender, connection: LiveConnection
    ) -> tuple[int, str]:
        """Handle messages until the client leaves; the code and reason to close with."""
        counted = USAGE_HEADER in websocket.headers
        # of the gateway's sessions the gateway knows when they are idle
        idle = None if counted else self._engine.settings.limits.idle_seconds
        told = 0.0
        while True:
            await sender.room()
            try:
                message = await asyncio.wait_for(websocket.receive(), idle)
            except TimeoutError:
                connection.tell_error(_idle(idle or 0.0))
                return _CLOSED_FOR_IDLENESS, tr("no message came for too long")
            if message["type"] == "websocket.disconnect":
                return 1000, ""
            text, data = message.get("text"), message.get("bytes")
            try:
                await connection.handle(text if text is not None else data or b"")
            except Exception as error:  # a fault of ours ends this session alone, and says so
                log.exception("a live session failed")
                connection.tell_error(as_refusal(error))
                return _CLOSED_FOR_FAULT, tr("the server failed")
            if counted and connection.seconds - told >= _USAGE_SECONDS:
                told = connection.seconds
                sender.put({"type": "yibu.usage", "audio_seconds": round(told, 3)})


class _Sender:
    """Messages queued for one client, which may read slowly."""

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket
        self._queue: asyncio.Queue[Message | None] = asyncio.Queue()
        self._moved = asyncio.Event()

    def put(self, message: Message) -> None:
        self._queue.put_nowait(message)

    async def room(self) -> None:
        """Wait while too many messages are queued."""
        while self._queue.qsize() > _QUEUED:
            self._moved.clear()
            await self._moved.wait()

    async def run(self, receiving: Awaitable[tuple[int, str]]) -> None:
        """Send until ``receiving`` ends, or the client has gone."""
        receiver = asyncio.ensure_future(receiving)
        sending = asyncio.create_task(self._send(), name="live sender")
        try:
            await asyncio.wait({receiver, sending}, return_when=asyncio.FIRST_COMPLETED)
            if receiver.done() and not receiver.cancelled():
                code, reason = receiver.result()
                self._queue.put_nowait(None)
                await sending
                with suppress(WebSocketDisconnect, RuntimeError):  # it has gone already
                    await self._websocket.close(code, reason)
        finally:
            for task in (receiver, sending):
                task.cancel()
            await asyncio.gather(receiver, sending, return_exceptions=True)

    async def _send(self) -> None:
        with suppress(WebSocketDisconnect):
            while (message := await self._queue.get()) is not None:
                if not isinstance(message, str | bytes):
                    text = json.dumps(message, ensure_ascii=False, separators=(",", ":"))
                    # half a surrogate pair that the client sent cannot be sent back
                    message = text.encode("utf-8", "replace").decode()
                if isinstance(message, bytes):
                    await self._websocket.send_bytes(message)
                else:
                    await self._websocket.send_text(message)
                self._moved.set()


def _idle(seconds: float) -> RequestError:
    return InvalidRequestError(
        "The session is closed: nothing came for {seconds:g} s",
        seconds=seconds,
        code="session_idle",
    )
