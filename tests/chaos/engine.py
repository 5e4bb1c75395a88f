"""An engine that misbehaves by prompt: ``python -m tests.chaos.engine --port P``.

A thread a connection; what an answer is stands in the prompt (:mod:`tests.chaos.acts`).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socketserver
import sys
import time
from pathlib import Path

from tests.chaos.acts import ACTS, Talk

WEIGHTS = "model.safetensors"
WRONG_WEIGHTS = 77
"""The exit code of an engine that was given other files than the hub has."""


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 256


class Connection(socketserver.StreamRequestHandler):
    disable_nagle_algorithm = True

    def handle(self) -> None:
        with contextlib.suppress(OSError):  # the gateway may hang up at any time
            while self.one():
                pass

    def one(self) -> bool:
        line = self.rfile.readline().decode()
        if not line:
            return False
        path = line.split(" ")[1]
        length = 0
        while (line := self.rfile.readline().decode().strip()) != "":
            name, _, value = line.partition(":")
            length = int(value) if name.lower() == "content-length" else length
        body = self.rfile.read(length)
        if path == "/health":
            self.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
            return True
        talk = Talk(self.connection, path, json.loads(body) if body else {"prompt": ""})
        return ACTS[talk.order.act].run(talk)


def main() -> None:
    port = int(sys.argv[sys.argv.index("--port") + 1])
    if "--weights" in sys.argv:
        weights, right = sys.argv[sys.argv.index("--weights") + 1 :][:2]
        found = hashlib.sha256((Path(weights) / WEIGHTS).read_bytes()).hexdigest()
        if found != right:
            sys.exit(WRONG_WEIGHTS)
    with Server(("127.0.0.1", port), Connection) as server:
        print(f"{time.time():.3f} chaos engine {os.getpid()} listens on {port}", flush=True)
        server.serve_forever(poll_interval=3600)


if __name__ == "__main__":
    main()
