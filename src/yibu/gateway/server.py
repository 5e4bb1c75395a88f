"""The gateway's HTTP server, run and stopped by the owner of the event loop.

The server is uvicorn's, connection by connection (``connection``). Signals are the owner's. ``start`` binds or says why not; ``stop`` drains: requests in flight
finish within ``drain_timeout``, those that arrive meanwhile get 503, then everything is closed. Where
another process goes on with the listening sockets, ``pause`` and ``retire`` lose nothing.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from yibu import descriptors
from yibu.config.keys import check_exposure
from yibu.errors import ConfigError
from yibu.gateway.listening import open_listeners

if TYPE_CHECKING:  # `yibu adopt` only asks whether the address can be had
    from uvicorn.config import Config

    from yibu.config import GatewayConfig
    from yibu.gateway.app import Gateway
    from yibu.gateway.http.connections import Connections

logger = logging.getLogger("yibu.gateway")

_BACKLOG = 1024
_LOOK = 0.05
"""Seconds between two checks whether all clients have left."""
_MAX_MESSAGE = 16 * 1024 * 1024
"""Bytes of one websocket message: OpenAI's clients may send 15 MiB."""
_PONG_SECONDS = 60.0
"""Seconds for a websocket's client to answer a ping; a slow reader answers late."""


class GatewayServer:
    """Serves one gateway between ``start`` and ``stop``."""

    def __init__(self, app: Gateway, listeners: Sequence[socket.socket] = ()) -> None:
        """``listeners`` come from ``open_listeners``, for owners who bind the ports early."""
        self._app = app
        self._listeners = list(listeners)
        self._config = app.config
        self._servers: list[asyncio.Server] = []
        self._protocols: list[Callable[[], asyncio.Protocol]] = []
        self._state: Connections | None = None
        self._ticker: asyncio.TimerHandle | None = None
        self._hurried = False
        self.port = self._config.port
        """The real port once started, even where the configuration says 0."""
        self.funasr_port = self._config.funasr_port
        """The port on which every websocket is FunASR's; None without one."""

    @property
    def url(self) -> str:
        """The URL for clients on this machine."""
        host = self._config.host
        if host in {"0.0.0.0", "::", ""}:  # noqa: S104  (compared, not bound)
            host = "127.0.0.1"
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    @property
    def connections(self) -> int:
        """The number of connected clients."""
        return len(self._state.connections) if self._state is not None else 0

    async def start(self) -> None:
        """Accept connections; binds the port unless it was bound before.

        Raises:
            ConfigError: the host is public and there is no key.
            ListenError: the port is in use, or the address cannot be bound.
        """
        check_exposure(self._config.host, (), accounts=self._app.has_keys)
        from yibu.gateway.http.connection import HttpConnection
        from yibu.gateway.http.connections import Connections
        from yibu.gateway.live.sessions import FUNASR_PORT

        loop = asyncio.get_running_loop()
        config = _settings(self._app)
        state = Connections(descriptors.clients(self._config.max_connections))
        self._protocols = [
            partial(HttpConnection, config, state, {FUNASR_PORT: funasr}, loop)
            for funasr in (False, True)
        ]
        self._state = state
        await self._listen(self._listeners or open_listeners(self._config))
        self._tick()

    async def _listen(self, listeners: Sequence[socket.socket]) -> None:
        """Accept connections on these sockets."""
        self._listeners = list(listeners)
        await self.accept()
        self.port, *others = [listener.getsockname()[1] for listener in listeners]
        self.funasr_port = others[0] if others else None
        logger.info("gateway listens on %s", self.url)

    async def configure(self, config: GatewayConfig, digests: Sequence[str]) -> None:
        """Use other settings from now on; open connections go on.

        Raises:
            ConfigError: they cannot be used, or the address cannot be had; nothing has changed.
        """
        accounts = self._app.deps.accounts
        check_exposure(config.host, digests, accounts=accounts is not None and accounts.closed)
        moves = self._state is not None and _address(config) != _address(self._config)
        listeners: list[socket.socket] = []
        if moves:
            given = [os.dup(descriptor) for descriptor in self.descriptors()]
            listeners = open_listeners(config, given, self._listeners)
        try:
            self._app.configure(config, digests)
        except ConfigError:
            for listener in listeners:
                listener.close()
            raise
        self._config = config
        if self._state is not None:
            self._state.limit = descriptors.clients(config.max_connections)
        if moves:
            await self._move(listeners)

    async def _move(self, listeners: Sequence[socket.socket]) -> None:
        """Accept connections on these sockets, and no longer on the others."""
        servers, self._servers = self._servers, []
        old, stay = self._listeners, {listener.getsockname() for listener in listeners}
        await self._listen(listeners)
        for server in servers:
            server.close()
        for listener in old:
            if listener.getsockname() not in stay:
                with suppress(OSError):
                    # Other processes may have it too: it must not listen on in one that accepts nothing.
                    listener.shutdown(socket.SHUT_RD)
            listener.close()

    def descriptors(self) -> list[int]:
        """The listening sockets' descriptors, for another process."""
        return [listener.fileno() for listener in self._listeners]

    async def accept(self) -> None:
        """Accept connections, after ``pause`` too."""
        loop = asyncio.get_running_loop()
        for listener, protocol in zip(self._listeners, self._protocols, strict=False):
            server = await loop.create_server(protocol, sock=listener.dup(), backlog=_BACKLOG)
            self._servers.append(server)

    def pause(self) -> None:
        """Stop accepting; new connections wait in the listening sockets, open ones go on."""
        servers, self._servers = self._servers, []
        for server in servers:
            server.close()

    async def retire(self) -> None:
        """Serve the connections that are open, the next answer on each being its last, until all
        clients have left or ``drain_timeout`` is over.

        A client may be sending on a connection that it kept open just when it would be closed. So
        an idle one is not closed: it is answered, told to connect anew, and meets the next process.
        """
        self.pause()
        self._app.leaving = True
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._patience
        while self.connections and loop.time() < deadline:  # noqa: ASYNC110  (uvicorn's set tells nobody)
            await asyncio.sleep(_LOOK)

    def hurry(self) -> None:
        """Let ``stop`` not wait any longer: requests in flight have had their time."""
        self._hurried = True

    @property
    def _patience(self) -> float:
        """Seconds to wait for requests in flight."""
        return 0.0 if self._hurried else self._config.drain_timeout

    async def stop(self) -> None:
        """Drain and close. Calling it again, or before ``start``, does nothing."""
        state, self._state = self._state, None
        if state is None:
            return
        self._app.drain()
        try:
            await _wait_idle(state, self._patience)
        finally:
            self.pause()
            for listener in self._listeners:
                listener.close()
            if self._ticker is not None:
                self._ticker.cancel()
            for connection in list(state.connections):
                connection.shutdown()
            await self._app.aclose()

    def _tick(self) -> None:
        if self._state is not None:
            loop = asyncio.get_running_loop()
            self._state.tick(loop.time())
            self._ticker = loop.call_later(1.0, self._tick)


def _address(config: GatewayConfig) -> tuple[str, int, int | None]:
    return config.host, config.port, config.funasr_port


def _settings(app: Gateway) -> Config:
    """uvicorn's settings for the gateway's connections."""
    from uvicorn.config import Config

    from yibu.gateway.http.connection import KEEP_ALIVE_SECONDS, HttpConnection

    config = Config(
        app,
        http=HttpConnection,
        ws=_websocket,  # type: ignore[arg-type]  # called like the class that it imports
        interface="asgi3",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        timeout_keep_alive=round(KEEP_ALIVE_SECONDS),
        ws_max_size=_MAX_MESSAGE,
        ws_ping_timeout=_PONG_SECONDS,
        ws_per_message_deflate=False,  # audio does not shrink, and a bomb would grow
    )
    config.load()
    return config


def _websocket(**settings: Any) -> asyncio.Protocol:
    """The protocol class of websockets; imported when the first is opened."""
    from uvicorn.protocols.websockets.wsproto_impl import WSProtocol

    return WSProtocol(**settings)


async def _wait_idle(state: Connections, seconds: float) -> None:
    """Wait for the requests in flight; cancel those that take longer than ``seconds``."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while state.tasks and (left := deadline - loop.time()) > 0:
        await asyncio.wait(state.tasks, timeout=left)
    if late := list(state.tasks):
        logger.warning("%d requests did not finish within %g s: cut off", len(late), seconds)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
