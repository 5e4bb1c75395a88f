"""What a request costs the gateway in Python alone: no socket, no system call, one engine that
answers at once. What a busy machine hardly moves: the lowest of many rounds, the sides in turn.

    python benchmarks/gateway_python.py [--rounds 300] [--turns 3] [TREE …]

A TREE is a checkout; without one it is this one. ``git worktree add /tmp/before COMMIT`` makes another.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
REQUESTS, CLIENTS = 500, 32


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("trees", nargs="*", type=Path, default=[HERE.parent])
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    found: dict[tuple[Path, str], list[float]] = {}
    for _ in range(options.turns):
        for tree in map(Path.resolve, options.trees):
            for conforming in ("yes", "no"):
                value = subprocess.run(
                    [sys.executable, __file__, "--one", str(options.rounds), conforming],
                    env={**os.environ, "PYTHONPATH": f"{tree / 'src'}:{tree / 'benchmarks' / 'gateway'}"},
                    check=True, stdout=subprocess.PIPE, text=True,
                ).stdout  # fmt: skip
                found.setdefault((tree, conforming), []).append(float(value))
    print("| | µs a request | normalizing |\n|---|---|---|")
    for tree in map(Path.resolve, options.trees):
        plain, other = (statistics.median(found[tree, kind]) for kind in ("yes", "no"))
        print(f"| {tree} | {plain:.1f} | {other:.1f} |")


class Wire:
    """A transport that goes nowhere."""

    def __init__(self, named: socket.socket) -> None:
        self._named = named
        self.written = 0

    def get_extra_info(self, name: str, default: object = None) -> object:
        names = {"socket": self._named, "peername": ("::1", 1), "sockname": ("::1", 2)}
        return names.get(name, default)

    def write(self, data: bytes) -> None:
        if data.startswith(b"HTTP/1.1 ") and not data.startswith(b"HTTP/1.1 200"):
            sys.exit(f"not answered with 200: {data!r}")
        self.written += len(data)
        self.answered()

    def writelines(self, parts: list[bytes]) -> None:
        self.write(b"".join(parts))

    def answered(self) -> None:
        """Something was written whole."""

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    def ignore(self, *_: object, **__: object) -> None:
        pass

    pause_reading = resume_reading = close = abort = set_write_buffer_limits = ignore


async def one(rounds: int, *, conforming: bool) -> float:
    """The lowest of the rounds' µs a request."""
    import load
    import ours

    import upstream
    from yibu.accounts.live import LiveAccounts
    from yibu.config import GatewayConfig
    from yibu.gateway import collector
    from yibu.gateway.app import create_app
    from yibu.gateway.deps import GatewayDeps
    from yibu.gateway.http.connection import HttpConnection
    from yibu.gateway.http.connections import Connections
    from yibu.gateway.server import _settings
    from yibu.log import configure
    from yibu.upstream import pool
    from yibu.upstream.connection import EngineConnection

    loop = asyncio.get_running_loop()
    message = load.request(stream=False)
    done = 0

    class Client(Wire):
        def answered(self) -> None:
            nonlocal done
            done += 1
            loop.call_soon(self.protocol.data_received, message)

    class Engine(Wire):
        def answered(self) -> None:
            loop.call_soon(self.protocol.data_received, upstream.WHOLE)

    async def connect(host: str, port: int, *_alive: object) -> EngineConnection:
        made, wire = EngineConnection(loop, (host, port)), Engine(named)
        wire.protocol = made
        made.connection_made(wire)
        return made

    pool.connect = connect
    named, _other = socket.socketpair()
    configure(stream=io.StringIO())
    with tempfile.TemporaryDirectory() as folder:
        backend = ours.OneReplica(1, conforming=conforming)
        accounts = LiveAccounts(Path(folder, "none.db"))
        app = create_app(GatewayDeps(backend, GatewayConfig(port=0), (ours.KEY,), accounts))
        state = Connections(1000)
        state.tick(loop.time())
        config = _settings(app)
        collector.settle()
        for _ in range(CLIENTS):
            client, wire = HttpConnection(config, state, {}, loop), Client(named)
            wire.protocol = client
            client.connection_made(wire)
            client.data_received(message)
        lowest = float("inf")
        for _ in range(rounds):
            before, began = done, time.thread_time()
            while done - before < REQUESTS:
                await asyncio.sleep(0)
            lowest = min(lowest, (time.thread_time() - began) / (done - before))
    return lowest * 1e6


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        import uvloop

        print(uvloop.run(one(int(sys.argv[2]), conforming=sys.argv[3] == "yes")), flush=True)
        os._exit(0)  # the requests never end
    main()
