"""The gateway's listening sockets: bound here, or those that this process was started with."""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Sequence

from yibu.config import GatewayConfig
from yibu.errors import ConfigError

logger = logging.getLogger("yibu.gateway")

_BACKLOG = 1024


class ListenError(ConfigError):
    """The gateway cannot listen on its host and port: in use, not allowed, or not here."""


class PortTakenError(ListenError):
    """Another program listens on the port."""


def open_listeners(
    config: GatewayConfig, given: Sequence[int] = (), beside: Sequence[socket.socket] = ()
) -> list[socket.socket]:
    """The listening sockets, that of ``gateway.port`` first, then that of ``gateway.funasr_port``.

    ``given`` are descriptors of sockets that systemd, or the holder of a node that was killed, kept;
    ``beside`` are this process's own, which may have a port on another address until they are closed.

    Raises:
        ListenError: a port is in use, or cannot be bound.
    """
    ports = [port for port in (config.port, config.funasr_port) if port is not None]
    were = [socket.socket(fileno=descriptor) for descriptor in given]
    left = list(were)
    found: list[socket.socket] = []
    try:
        for number, port in enumerate(ports):
            family, host = address_of(config.host, port)
            # For 0, which any free one suits, only what it had: not the socket of the other port.
            same = were[number : number + 1]
            fits = [
                one for one in left if _is_on(one, family, host, port) and (port or one in same)
            ]
            kept = next(iter(fits), None)
            if kept is not None:
                left.remove(kept)
            found.append(kept or bind(config.host, port, beside))
    except BaseException:  # whatever kept one from being had, the others must not stay open
        for one in found:
            one.close()
        raise
    finally:
        for one in left:
            logger.warning("not asked for by the configuration, and closed: %s", one)
            one.close()
    return found


def _is_on(listener: socket.socket, family: int, host: str, port: int) -> bool:
    listens = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if not listens or listener.family != family:
        return False
    found = listener.getsockname()
    return bool(found[0] == host) and port in (0, found[1])


def address_of(host: str, port: int) -> tuple[socket.AddressFamily, str]:
    """The first address that the name has, as a client on this machine would take it.

    Raises:
        ListenError: it has none.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise _listen_error(host, port, error) from error
    return family, str(address[0])


def bind(host: str, port: int, beside: Sequence[socket.socket] = ()) -> socket.socket:
    """Take the port. Connections wait in the kernel's queue until a server accepts them.

    ``beside`` are sockets of this process that may have the port already, on another address.

    Raises:
        ListenError: it is in use, or the address cannot be bound.
    """
    family, address = address_of(host, port)
    # 0.0.0.0:8000 beside 127.0.0.1:8000 is refused by the kernel unless both sockets allow it.
    shared = [one for one in beside if port and one.getsockname()[1] == port]
    for one in shared:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        return socket.create_server(
            (address, port), family=family, backlog=_BACKLOG, reuse_port=bool(shared)
        )
    except OSError as error:
        raise _listen_error(host, port, error) from error


def _listen_error(host: str, port: int, error: OSError) -> ListenError:
    if error.errno == errno.EADDRINUSE:
        return PortTakenError(
            "port {port} on {host} is in use by another program",
            port=port,
            host=host,
            hint="Find it with: ss -ltnp 'sport = :{port}'; or set gateway.port (--port)",
        )
    if error.errno == errno.EACCES:
        return ListenError(
            "port {port} on {host} is not allowed for this user",
            port=port,
            host=host,
            hint="Use a port above 1023 (--port 8000)",
        )
    return ListenError(
        "the gateway cannot listen on {host}:{port}: {strerror}",
        host=host,
        port=port,
        strerror=error.strerror or error,
        hint="gateway.host must be an address of this machine: 127.0.0.1, or 0.0.0.0 for all",
    )
