"""A fake engine: minimal OpenAI API on the standard library alone, with a switch a failure.

Started like a real engine (``python engine.py --port P …``), so that supervision is tested with
real processes, sockets and signals, and ready within some 60 ms. The inner key comes in the
environment variable FAKE_API_KEY, as real engines take theirs.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

MODEL = "fake"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--model-name", default=MODEL)
    parser.add_argument("--tokens", type=int, default=5, help="tokens of an answer")
    parser.add_argument("--slow-tokens", type=float, default=0.0, help="seconds a token")
    parser.add_argument("--ready-after", type=float, default=0.0, help="/health is 503 until then")
    parser.add_argument("--crash-after", type=float, help="exit 1 so long after the start")
    parser.add_argument("--crash-once", metavar="FILE", help="crash only if FILE is not there yet")
    parser.add_argument("--exit-zero", action="store_true", help="crash with exit code 0")
    parser.add_argument("--exit-code", type=int, default=1, help="exit code of a crash")
    parser.add_argument("--crash-on-request", action="store_true", help="exit in mid-answer")
    parser.add_argument("--fail-start", metavar="MESSAGE", help="print it and exit at once")
    parser.add_argument("--hang", action="store_true", help="listen, but never answer")
    parser.add_argument("--hang-generation", action="store_true", help="health 200, no token")
    parser.add_argument("--hang-after", type=int, help="hang generation after so many requests")
    parser.add_argument("--hang-once", metavar="FILE", help="hang only if FILE is not there yet")
    parser.add_argument("--health-status", type=int, default=200)
    parser.add_argument("--no-chat", action="store_true", help="404 for chat")
    parser.add_argument("--ignore-sigterm", action="store_true")
    parser.add_argument("--fork-child", metavar="FILE", help="child in its own session; its pid")
    parser.add_argument("--child-port", type=int, help="the child listens here")
    parser.add_argument("--child-ignores-sigterm", action="store_true")
    parser.add_argument("--needs-child", action="store_true", help="no token without the child")
    parser.add_argument("--bind-after", type=float, default=0.0, help="listen so much later")
    parser.add_argument("--log-lines", type=int, default=0, help="lines to print at the start")
    parser.add_argument("--chatter", type=float, help="print a line every so many seconds")
    parser.add_argument("--print-env", action="store_true")
    parser.add_argument("--port-in-use", action="store_true", help="fail as if the port was taken")
    parser.add_argument("--spin", action="store_true", help="burn CPU in a thread")
    return parser.parse_args()


CHILD = """
import signal, socket, sys, time
if sys.argv[2] == "1":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if int(sys.argv[1]):
    holder = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("child ready", flush=True)
time.sleep(600)
"""


def fork_child(args: argparse.Namespace) -> None:
    """Like vLLM's EngineCore: another process, in a session of its own, that outlives us."""
    child = subprocess.Popen(
        [
            sys.executable,
            "-c",
            CHILD,
            str(args.child_port or 0),
            str(int(args.child_ignores_sigterm)),
        ],
        start_new_session=True,
        stdout=subprocess.PIPE,
    )
    assert child.stdout is not None
    child.stdout.readline()
    Path(args.fork_child).write_text(str(child.pid))


class FakeEngine:
    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.started = time.monotonic()
        self.key = os.environ.get("FAKE_API_KEY")
        self.generations = 0
        self.hang_generation = args.hang_generation
        if args.hang_once is not None:
            self.hang_generation = not _exists_or_make(args.hang_once)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self.one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client went away, which is its right
        finally:
            writer.close()

    async def one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        if self.args.hang:
            await asyncio.sleep(3600)
        lines = head.decode().split("\r\n")
        method, path, _ = lines[0].split(" ")
        headers = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines[1:] if line)
        }
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        keep = headers.get("connection", "").lower() != "close"
        authorized = self.key is None or headers.get("authorization") == f"Bearer {self.key}"
        await self.route(method, path.split("?")[0], body, authorized, writer)
        return keep

    async def route(
        self, method: str, path: str, body: bytes, authorized: bool, writer: asyncio.StreamWriter
    ) -> None:
        if path == "/health":
            ready = time.monotonic() - self.started >= self.args.ready_after
            await answer(writer, self.args.health_status if ready else 503, {})
        elif not authorized:
            await answer(writer, 401, error("wrong key", "invalid_api_key"))
        elif path == "/v1/models":
            model = {"id": self.args.model_name, "object": "model", "created": 0, "owned_by": "me"}
            await answer(writer, 200, {"object": "list", "data": [model]})
        elif path == "/v1/chat/completions" and not self.args.no_chat:
            await self.generate(json.loads(body), writer, chat=True)
        elif path == "/v1/completions":
            await self.generate(json.loads(body), writer, chat=False)
        elif path == "/v1/embeddings":
            vector = {"object": "embedding", "index": 0, "embedding": [0.0, 1.0]}
            await answer(writer, 200, {"object": "list", "data": [vector], "model": MODEL})
        elif path == "/v1/audio/transcriptions":
            await answer(writer, 200, {"text": ""})
        elif path == "/pid":
            await answer(writer, 200, {"pid": os.getpid()})
        else:
            await answer(writer, 404, error(f"{method} {path}", "not_found"))

    async def generate(self, body: dict, writer: asyncio.StreamWriter, *, chat: bool) -> None:
        self.generations += 1
        if self.args.needs_child and not _alive(int(Path(self.args.fork_child).read_text())):
            await asyncio.sleep(3600)
        hang_after = self.args.hang_after
        if self.hang_generation or (hang_after is not None and self.generations > hang_after):
            await asyncio.sleep(3600)
        if self.args.crash_on_request and self.generations > 1:  # the first is the probe
            os._exit(self.args.exit_code)
        count = min(body.get("max_tokens") or self.args.tokens, self.args.tokens)
        if body.get("stream"):
            await self.stream(count, writer, chat=chat)
            return
        await asyncio.sleep(count * self.args.slow_tokens)
        text = " ".join(f"t{i}" for i in range(count))
        choice = {"index": 0, "finish_reason": "length", "logprobs": None}
        choice |= {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
        usage = {"prompt_tokens": 1, "completion_tokens": count, "total_tokens": count + 1}
        await answer(writer, 200, {**self.shell(chat, ""), "choices": [choice], "usage": usage})

    async def stream(self, count: int, writer: asyncio.StreamWriter, *, chat: bool) -> None:
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        for index in range(count + 1):
            await asyncio.sleep(self.args.slow_tokens if index < count else 0)
            text = f"t{index} " if index < count else ""
            choice: dict = {"index": 0, "finish_reason": None if index < count else "length"}
            choice |= {"delta": {"content": text}} if chat else {"text": text}
            data = {**self.shell(chat, ".chunk" if chat else ""), "choices": [choice]}
            await chunk(writer, f"data: {json.dumps(data)}\n\n".encode())
        await chunk(writer, b"data: [DONE]\n\n")
        await chunk(writer, b"")

    def shell(self, chat: bool, suffix: str) -> dict:
        kind = "chat.completion" if chat else "text_completion"
        return {
            "id": f"fake-{self.generations}",
            "object": kind + suffix,
            "created": int(time.time()),
            "model": self.args.model_name,
        }


async def chunk(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
    await writer.drain()


def error(message: str, code: str) -> dict:
    return {"error": {"message": message, "type": "fake", "param": None, "code": code}}


async def answer(writer: asyncio.StreamWriter, status: int, body: dict) -> None:
    data = json.dumps(body).encode()
    head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(data)}"
    writer.write(head.encode() + b"\r\n\r\n" + data)
    await writer.drain()


def _alive(pid: int) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    return False


def _exists_or_make(path: str) -> bool:
    if Path(path).exists():
        return True
    Path(path).touch()
    return False


def prepare(args: argparse.Namespace) -> None:
    """Everything that a switch does before the engine listens."""
    if args.ignore_sigterm:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for number in range(args.log_lines):
        print(f"line {number}", flush=True)
    if args.print_env:
        print(json.dumps(dict(os.environ)), flush=True)
    if args.fail_start is not None:
        print(args.fail_start, file=sys.stderr, flush=True)
        sys.exit(args.exit_code)
    if args.port_in_use:
        socket.create_server((args.host, args.port))
        raise OSError(98, "Address already in use")
    if args.fork_child is not None:
        fork_child(args)


async def serve(args: argparse.Namespace) -> None:
    prepare(args)
    crash = args.crash_after is not None
    if crash and args.crash_once is not None:
        crash = not _exists_or_make(args.crash_once)
    await asyncio.sleep(args.bind_after)
    server = await asyncio.start_server(FakeEngine(args).handle, args.host, args.port)
    print(f"fake engine {os.getpid()} listens on {args.port}", flush=True)
    loop = asyncio.get_running_loop()
    if crash:
        code = 0 if args.exit_zero else args.exit_code
        loop.call_later(args.crash_after, os._exit, code)
    if args.spin:
        loop.run_in_executor(None, _spin)
    async with server:
        while True:
            await asyncio.sleep(args.chatter or 3600)
            print("chatter", flush=True)


def _spin() -> None:
    while True:
        pass


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(arguments()))
