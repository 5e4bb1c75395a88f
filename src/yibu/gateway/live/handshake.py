"""The handshakes of a live session: the client's, and the one with its engine."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from typing import Any, TypeVar
from urllib.parse import urlencode

from yibu.engines.answers import Answers
from yibu.engines.base import Endpoint
from yibu.errors import EngineGoneError, RequestError
from yibu.gateway.answers.engine_errors import error_fields, translate
from yibu.gateway.http.exchange import ClientGoneError, Exchange, Message, Send
from yibu.gateway.live.routes import LiveRoute
from yibu.routing import Route
from yibu.upstream.websocket import EngineSocket, HandshakeRefusedError

T = TypeVar("T")

KEY_PROTOCOL = "openai-insecure-api-key."
"""How a browser, which can set no header, sends a key: as a subprotocol."""


async def unless_gone(exchange: Exchange, connecting: Coroutine[Any, Any, T]) -> T:
    """What ``connecting`` returns; cancelled when the client leaves, who may wait in the queue.

    Raises:
        ClientGoneError: the client has left.
    """
    work = asyncio.create_task(connecting, name="live connect")
    receive = exchange.receive
    first: asyncio.Future[Message] = asyncio.ensure_future(receive())

    async def replay() -> Message:
        exchange.receive = receive
        return await first

    exchange.receive = replay
    try:
        await asyncio.wait((work, first), return_when=asyncio.FIRST_COMPLETED)
        if not work.done() and first.result()["type"] == "websocket.disconnect":
            raise ClientGoneError
        return await work
    except BaseException:  # cancelled too: neither may go on by itself
        work.cancel()
        first.cancel()
        await asyncio.gather(work, first, return_exceptions=True)
        raise


async def open_engine(
    exchange: Exchange,
    live: LiveRoute,
    route: Route,
    endpoint: Endpoint,
    given: Mapping[str, str],
) -> EngineSocket:
    aliases = [name for name, what in route.names.items() if what == route.model]
    names = [given.get("model") or route.model, route.model, *aliases]
    passed = {name: value for name, value in given.items() if name not in ("model", "api_key")}
    target = f"{live.path}?{urlencode(passed)}" if passed else live.path
    headers = [
        (b"x-yibu-model", ",".join(dict.fromkeys(names)).encode()),
        (b"x-yibu-usage", b"1"),
        (b"x-request-id", exchange.request_id),
    ]
    offered = [name for name in exchange.scope["subprotocols"] if not name.startswith(KEY_PROTOCOL)]
    return await EngineSocket.open(endpoint, target, headers, offered)


def keys_of(exchange: Exchange) -> tuple[bytes | None, bytes | None]:
    """The Authorization and x-api-key of a handshake, wherever its client could put the key: a header,
    a subprotocol, or, for programs that know nothing but a URL, ``ws://:KEY@host``."""
    authorization = exchange.headers.get(b"authorization")
    scheme, _, rest = (authorization or b"").partition(b" ")
    if scheme.lower() == b"basic":
        with suppress(binascii.Error):
            authorization = b"Bearer " + base64.b64decode(rest).partition(b":")[2]
    for name in exchange.scope["subprotocols"]:
        if authorization is None and name.startswith(KEY_PROTOCOL):
            authorization = b"Bearer " + name.removeprefix(KEY_PROTOCOL).encode()
    return authorization, exchange.headers.get(b"x-api-key")


def refusal(refused: HandshakeRefusedError, model: str) -> RequestError:
    """The engine's refusal of a handshake; one of the gateway's own key is the engine's fault."""
    status, said = refused.status, error_fields(refused.body).get("message")
    if status in (401, 403) or not said or not 400 <= status <= 599:
        return EngineGoneError(
            "Model {model!r}: the engine does not serve live speech (it answered {refused_status})",
            model=model,
            refused_status=status,
            hint="See why: yibu logs {model}",
        )
    return translate(
        status, refused.body, rules=Answers(), kind="transcription", model=model, inner=model
    )


def refusing(send: Send) -> Send:
    """A refusal of a handshake is an HTTP answer."""

    async def refuse(message: Message) -> None:
        await send({**message, "type": message["type"].replace("http.", "websocket.http.", 1)})

    return refuse
