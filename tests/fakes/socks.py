"""A small SOCKS5 server (RFC 1928, RFC 1929): CONNECT alone, each connection told of."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import struct
import threading
from typing import Self


class SocksServer:
    """Whoever asks for a name under ``.internal`` is led to ``target``: only the proxy knows it."""

    def __init__(self, target: tuple[str, int], login: tuple[str, str] | None = None) -> None:
        self.target = target
        self.login = login
        self.asked: list[tuple[str, int]] = []
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.socks = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    socks: SocksServer


class _Handler(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        assert isinstance(self.server, _Server)
        socks, client = self.server.socks, self.request
        with contextlib.suppress(OSError, struct.error):
            _, count = self._read(2)
            methods = self._read(count)
            wanted = 2 if socks.login else 0
            client.sendall(bytes([5, wanted if wanted in methods else 255]))
            if socks.login and not self._logged_in(socks.login):
                return
            _, _, _, kind = self._read(4)
            if kind == 3:
                host = self._read(self._read(1)[0]).decode()
            else:
                host = socket.inet_ntop(
                    socket.AF_INET if kind == 1 else socket.AF_INET6,
                    self._read(4 if kind == 1 else 16),
                )
            (port,) = struct.unpack("!H", self._read(2))
            socks.asked.append((host, port))
            place = socks.target if host.endswith(".internal") else (host, port)
            with socket.create_connection(place) as server:
                client.sendall(b"\x05\0\0\x01" + bytes(6))
                back = threading.Thread(target=_copy, args=(server, client), daemon=True)
                back.start()
                _copy(client, server)
                back.join()

    def _logged_in(self, login: tuple[str, str]) -> bool:
        self._read(1)
        found = tuple(self._read(self._read(1)[0]).decode() for _ in range(2))
        self.request.sendall(bytes([1, found != login]))
        return found == login

    def _read(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            if not (more := self.request.recv(count - len(data))):
                raise ConnectionError
            data += more
        return data


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
