"""The load: a raw asyncio protocol, and a blocking socket where one request's time counts."""

from __future__ import annotations

import asyncio
import json
import socket
import statistics
import sys
import time

import psutil
import uvloop

BODY = {
    "model": "bench",
    "messages": [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": "Hello, who are you?"},
    ],
    "max_tokens": 64,
    "temperature": 0.7,
}


def request(*, stream: bool, paced: bool = False) -> bytes:
    fields = {
        **BODY,
        **({"stream": True} if stream else {}),
        **({"user": "paced"} if paced else {}),
    }
    body = json.dumps(fields, separators=(",", ":"))
    return (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n"
        f"authorization: Bearer benchmark-key\r\ncontent-length: {len(body)}\r\n\r\n{body}"
    ).encode()


class Client(asyncio.Protocol):
    """Sends the same request again and again and counts answers and events."""

    def __init__(self, message: bytes, *, stream: bool) -> None:
        self.message = message
        self.stream = stream
        self.data = b""
        self.answers = 0
        self.events = 0

    def connection_made(self, transport) -> None:
        self.transport = transport
        transport.write(self.message)

    def data_received(self, data: bytes) -> None:
        if self.stream:
            self.events += data.count(b"data: {")
            self.data = self.data[-16:] + data
            if not self.data.endswith(b"0\r\n\r\n"):
                return
        else:
            self.data += data
            if b"\r\n\r\n" not in self.data or not self.data.endswith((b"}", b"\r\n0\r\n\r\n")):
                return
            if not self.data.startswith(b"HTTP/1.1 200"):
                raise SystemExit(self.data.decode())
        self.data = b""
        self.answers += 1
        self.transport.write(self.message)


async def throughput(port: int, clients: int, seconds: float, *, stream: bool) -> float:
    """Answers a second, or events a second of streams."""
    loop = asyncio.get_running_loop()
    message = request(stream=stream)
    protocols = [
        (await loop.create_connection(lambda: Client(message, stream=stream), "127.0.0.1", port))[1]
        for _ in range(clients)
    ]

    def count() -> int:
        return sum(client.events if stream else client.answers for client in protocols)

    await asyncio.sleep(0.3)
    before, began = count(), time.perf_counter()
    await asyncio.sleep(seconds)
    rate = (count() - before) / (time.perf_counter() - began)
    for client in protocols:
        client.transport.abort()
    return rate


def cpu_seconds(pid: int) -> float:
    """CPU time of a process and its children so far."""
    process = psutil.Process(pid)
    times = [one.cpu_times() for one in (process, *process.children(recursive=True))]
    return sum(time.user + time.system for time in times)


async def cpu(port: int, clients: int, seconds: float, pid: int) -> float:
    """Seconds of the server's CPU an answer: what other work on the machine hardly moves."""
    loop = asyncio.get_running_loop()
    message = request(stream=False)
    protocols = [
        (await loop.create_connection(lambda: Client(message, stream=False), "127.0.0.1", port))[1]
        for _ in range(clients)
    ]
    await asyncio.sleep(0.3)
    before, used = sum(client.answers for client in protocols), cpu_seconds(pid)
    await asyncio.sleep(seconds)
    used = cpu_seconds(pid) - used
    answers = sum(client.answers for client in protocols) - before
    for client in protocols:
        client.transport.abort()
    return used / answers


def latency(port: int, number: int, *, stream: bool) -> float:
    """Median seconds to the answer, or to a stream's first event; one request at a time."""
    message = request(stream=stream, paced=stream)
    times = []
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(number):
            began = time.perf_counter()
            sock.sendall(message)
            data = b""
            ended = (b"}", b"\r\n0\r\n\r\n")
            while not (b"data: {" in data if stream else data.endswith(ended)):
                data += sock.recv(65536)
            times.append(time.perf_counter() - began)
            while stream and not data.endswith(b"0\r\n\r\n"):
                data = data[-16:] + sock.recv(65536)
    return statistics.median(times)


if __name__ == "__main__":
    kind, port, amount = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    if kind == "latency":
        print(latency(port, int(amount), stream=False))
    elif kind == "cpu":
        print(uvloop.run(cpu(port, 32, amount, int(sys.argv[4]))))
    elif kind == "first":
        print(latency(port, int(amount), stream=True))
    else:
        print(uvloop.run(throughput(port, 32, amount, stream=kind == "events")))
