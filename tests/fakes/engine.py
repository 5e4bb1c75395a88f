"""A fake engine: minimal OpenAI API on the standard library alone, with a switch a failure.

Started like a real engine (``python engine.py --port P …``), so that supervision is tested with
real processes, sockets and signals, and ready within some 50 ms (so it imports little). The inner key comes in the
environment variable FAKE_API_KEY, as real engines take theirs.
"""

# pathlib would be half of the time that the start takes:
# ruff: noqa: PTH108, PTH110, PTH123

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socketserver
import sys
import threading
import time

MODEL = "fake"
TEMPLATE = 11
"""Tokens of a chat beside its words, with --count-words."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--model-name", default=MODEL)
    parser.add_argument("--tokens", type=int, default=5, help="tokens of an answer")
    parser.add_argument("--slow-tokens", type=float, default=0.0, help="seconds a token")
    parser.add_argument("--ready-after", type=float, default=0.0, help="/health is 503 until then")
    parser.add_argument("--ready-when", metavar="FILE", help="/health is 503 until FILE is there")
    parser.add_argument("--crash-after", type=float, help="exit 1 so long after the start")
    parser.add_argument("--exit-zero", action="store_true", help="crash with exit code 0")
    parser.add_argument("--exit-code", type=int, default=1, help="exit code of a crash")
    parser.add_argument("--crash-on-request", action="store_true", help="exit in mid-answer")
    parser.add_argument("--crash-after-requests", type=int, default=sys.maxsize)
    parser.add_argument("--fail-start", metavar="MESSAGE", help="print it and exit at once")
    parser.add_argument("--hang", action="store_true", help="listen, but never answer")
    parser.add_argument("--hang-generation", action="store_true", help="health 200, no token")
    parser.add_argument("--hang-after", type=int, help="hang generation after so many requests")
    parser.add_argument(
        "--fail-once", metavar="FILE", help="fail if FILE is not there, and make it"
    )
    parser.add_argument("--health-status", type=int, default=200)
    parser.add_argument("--no-chat", action="store_true", help="404 for chat")
    parser.add_argument("--ignore-sigterm", action="store_true")
    parser.add_argument("--fork-child", metavar="FILE", help="child in its own session; its pid")
    parser.add_argument("--child-port", type=int, help="the child listens here")
    parser.add_argument("--child-ignores-sigterm", action="store_true")
    parser.add_argument("--needs-child", action="store_true", help="no token without the child")
    parser.add_argument("--bind-when", metavar="FILE", help="listen once FILE is there")
    parser.add_argument("--end-when", metavar="FILE", help="no stream ends before FILE is there")
    parser.add_argument("--answer-when", metavar="FILE", help="no token before FILE is there")
    parser.add_argument("--log-lines", type=int, default=0, help="lines to print at the start")
    parser.add_argument("--chatter", type=float, help="print a line every so many seconds")
    parser.add_argument("--flood-mib", type=int, default=0, help="print so much, as fast as can be")
    parser.add_argument("--phase", action="append", default=[], metavar="FILE:LINE",
                        help="before it listens: print the line, wait for FILE, remove it")  # fmt: skip
    parser.add_argument("--shared-memory", action="append", default=[], metavar="NAME",
                        help="map /dev/shm/NAME, made if need be; {pid} is our pid")  # fmt: skip
    parser.add_argument("--hold-mib", type=int, default=0, help="memory of its own")
    parser.add_argument("--map-file", help="a file that is mapped and read whole")
    parser.add_argument("--print-env", action="store_true")
    parser.add_argument("--port-in-use", action="store_true", help="fail as if the port was taken")
    parser.add_argument("--metrics", metavar="FILE", help="/metrics answers with its bytes")
    parser.add_argument("--count-words", action="store_true", help="usage has the prompt's words")
    parser.add_argument("--tokenizer", action="store_true", help="/tokenize has a token a word")
    parser.add_argument("--slots", type=int, default=1000, help="answers at once; others wait")
    parser.add_argument("--first-token", type=float, default=0.0, help="seconds before a stream")
    parser.add_argument(
        "--deltas", metavar="FILE", help="a JSON list: what chat streams have instead"
    )
    parser.add_argument("--sleeps", action="store_true", help="vLLM's routes of its sleep mode")
    parser.add_argument("--sleep-fails", action="store_true", help="500 for /sleep")
    parser.add_argument(
        "--forgets", action="store_true", help="what level 2 drops is not loaded again"
    )
    parser.add_argument("--spin", action="store_true", help="burn CPU in a thread")
    args = parser.parse_args()
    args.crash_code = 0 if args.exit_zero else args.exit_code
    return args


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
    import subprocess

    words = [str(args.child_port or 0), str(int(args.child_ignores_sigterm))]
    child = subprocess.Popen(
        [sys.executable, "-S", "-c", CHILD, *words], start_new_session=True, stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    child.stdout.readline()
    with open(args.fork_child, "w") as file:
        file.write(str(child.pid))


def map_shared_memory(name: str) -> None:
    """As shm_open and mmap do, or as sem_open does; nothing of ours unlinks it."""
    import mmap

    path = f"/dev/shm/{name.format(pid=os.getpid())}"
    first = f"{path}.new" if name.startswith("sem.") else path
    descriptor = os.open(first, os.O_RDWR | os.O_CREAT, 0o600)
    if os.fstat(descriptor).st_size == 0:
        os.ftruncate(descriptor, 4096)
    KEPT.append(mmap.mmap(descriptor, 4096))
    os.close(descriptor)
    if first != path:
        os.link(first, path)
        os.unlink(first)


def hold_memory(args: argparse.Namespace) -> None:
    """Memory as an engine's cache takes it, and as one that maps its weights does."""
    import mmap

    KEPT.append(b"x" * (args.hold_mib << 20))
    if args.map_file:
        with open(args.map_file, "rb") as file:
            KEPT.append(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        KEPT.append(sum(KEPT[-1][:: mmap.PAGESIZE]))


KEPT: list = []


class Engine(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.started = time.monotonic()
        self.key = os.environ.get("FAKE_API_KEY")
        self.generations = 0
        self.awake = threading.Event()
        self.awake.set()
        self.weights = "t"
        """What its tokens begin with; something else when the weights were dropped."""
        self.slots = threading.Semaphore(args.slots)
        super().__init__((args.host, args.port), Connection)

    def must_hang(self) -> bool:
        """Whether this generation, the latest, gives no token."""
        args = self.args
        if args.needs_child and not alive(args.fork_child):
            return True
        return args.hang_generation or (
            args.hang_after is not None and self.generations > args.hang_after
        )


class Connection(socketserver.StreamRequestHandler):
    """One thread a connection; it reads and answers one request after the other."""

    server: Engine
    disable_nagle_algorithm = True

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # a client may go away, which is its right
            while self.one():
                pass

    def one(self) -> bool:
        line = self.rfile.readline().decode()
        if not line:
            return False
        if self.server.args.hang:
            time.sleep(3600)
        method, path, _ = line.split(" ")
        headers = {}
        while (line := self.rfile.readline().decode().strip()) != "":
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        body = self.rfile.read(int(headers.get("content-length", "0")))
        key = self.server.key
        authorized = key is None or headers.get("authorization") == f"Bearer {key}"
        path, _, self.query = path.partition("?")
        self.route(method, path, body, authorized)
        return headers.get("connection", "").lower() != "close"

    def route(self, method: str, path: str, body: bytes, authorized: bool) -> None:
        engine, args = self.server, self.server.args
        if path == "/health":
            ready = time.monotonic() - engine.started >= args.ready_after
            ready = ready and (args.ready_when is None or os.path.exists(args.ready_when))
            self.answer(args.health_status if ready else 503, {})
        elif not authorized:
            self.answer(401, error("wrong key", "invalid_api_key"))
        elif path == "/v1/models":
            model = {"id": args.model_name, "object": "model", "created": 0, "owned_by": "me"}
            self.answer(200, {"object": "list", "data": [model]})
        elif path == "/v1/chat/completions" and not args.no_chat:
            self.generate(json.loads(body), chat=True)
        elif path == "/v1/completions":
            self.generate(json.loads(body), chat=False)
        elif (answer := self.at_once(path, body)) is not None:
            self.answer(200, answer)
        elif path == "/metrics" and args.metrics is not None:
            with open(args.metrics, "rb") as file:
                self.plain(file.read())
        elif path == "/metrics":
            self.plain(METRICS.format(engine.generations, args.model_name).encode())
        else:
            self.answer(404, error(f"{method} {path}", "not_found"))

    def at_once(self, path: str, body: bytes) -> dict | None:
        """Answers that take no generation."""
        args = self.server.args
        if path == "/tokenize" and args.tokenizer:
            return {"tokens": list(range(len(json.loads(body)["prompt"].split())))}
        if args.sleeps and (answer := self.sleep(path, body)) is not None:
            return answer
        if path == "/v1/embeddings":
            vector = {"object": "embedding", "index": 0, "embedding": [0.0, 1.0]}
            return {"object": "list", "data": [vector], "model": args.model_name}
        return {"text": ""} if path == "/v1/audio/transcriptions" else None

    def sleep(self, path: str, body: bytes) -> dict | None:
        """As vLLM 0.32: it sleeps until all has been woken, and level 2 drops the weights."""
        engine, args = self.server, self.server.args
        if path == "/sleep" and not args.sleep_fails:
            engine.awake.clear()
            engine.weights = "x" if self.query == "level=2" else engine.weights
        elif path == "/wake_up" and self.query != "tags=weights":
            engine.awake.set()
        elif path == "/collective_rpc" and json.loads(body) == {"method": "reload_weights"}:
            engine.weights = engine.weights if args.forgets else "t"
        elif path == "/is_sleeping":
            return {"is_sleeping": not engine.awake.is_set()}
        elif path not in ("/wake_up", "/reset_prefix_cache"):
            return None
        return {}

    def generate(self, body: dict, *, chat: bool) -> None:
        engine, args = self.server, self.server.args
        engine.awake.wait()
        engine.generations += 1
        print(f"generation {engine.generations}", flush=True)
        if engine.must_hang():
            time.sleep(3600)
        wait_for(args.answer_when)
        most = 1 if args.crash_on_request else args.crash_after_requests
        if engine.generations > most:  # the first is the probe
            os._exit(args.crash_code)
        count = min(body.get("max_tokens") or args.tokens, args.tokens)
        words = sum(len(str(m["content"]).split()) for m in body.get("messages", ()))
        prompt = words + TEMPLATE if args.count_words else 1
        usage = {"prompt_tokens": prompt, "completion_tokens": count}
        usage["total_tokens"] = prompt + count
        if body.get("stream"):
            asked = (body.get("stream_options") or {}).get("include_usage") and args.count_words
            with engine.slots:
                time.sleep(args.first_token)
                self.stream(count, chat=chat, usage=usage if asked else None)
            return
        with engine.slots:
            time.sleep(count * args.slow_tokens)
        text = " ".join(f"{engine.weights}{i}" for i in range(count))
        choice = {"index": 0, "finish_reason": "length", "logprobs": None}
        choice |= {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
        self.answer(200, {**self.shell(chat, ""), "choices": [choice], "usage": usage})

    def stream(self, count: int, *, chat: bool, usage: dict | None) -> None:
        self.wfile.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        deltas = [{"content": f"t{index} "} for index in range(count)]
        if self.server.args.deltas and count > 1:  # a probe wants one token
            with open(self.server.args.deltas) as file:
                deltas = json.load(file)
        for index, delta in enumerate([*deltas, {"content": ""}]):
            time.sleep(self.server.args.slow_tokens if index < len(deltas) else 0)
            choice: dict = {"index": 0, "finish_reason": None if index < len(deltas) else "length"}
            choice |= {"delta": delta} if chat else {"text": delta["content"]}
            data = {**self.shell(chat, ".chunk" if chat else ""), "choices": [choice]}
            self.chunk(f"data: {json.dumps(data)}\n\n".encode())
        if usage is not None:
            data = {**self.shell(chat, ".chunk" if chat else ""), "choices": [], "usage": usage}
            self.chunk(f"data: {json.dumps(data)}\n\n".encode())
        wait_for(self.server.args.end_when)
        self.chunk(b"data: [DONE]\n\n")
        self.chunk(b"")

    def chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def shell(self, chat: bool, suffix: str) -> dict:
        kind = "chat.completion" if chat else "text_completion"
        return {
            "id": f"fake-{self.server.generations}",
            "object": kind + suffix,
            "created": int(time.time()),
            "model": self.server.args.model_name,
        }

    def answer(self, status: int, body: dict) -> None:
        self.send(status, "application/json", json.dumps(body).encode())

    def plain(self, data: bytes) -> None:
        self.send(200, "text/plain; version=0.0.4", data)

    def send(self, status: int, kind: str, data: bytes) -> None:
        self.wfile.write(
            f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\n"
            f"Content-Length: {len(data)}\r\n\r\n".encode()
            + data
        )


METRICS = """# HELP fake:generations_total Generations begun.
# TYPE fake:generations_total counter
fake:generations_total{{model="{1}"}} {0}
# HELP fake_seconds Time of a generation.
# TYPE fake_seconds histogram
fake_seconds_bucket{{le="1"}} {0}
fake_seconds_bucket{{le="+Inf"}} {0}
fake_seconds_sum 0.5
fake_seconds_count {0}
"""


def error(message: str, code: str) -> dict:
    return {"error": {"message": message, "type": "fake", "param": None, "code": code}}


def alive(pid_file: str) -> bool:
    try:
        with open(pid_file) as file, open(f"/proc/{file.read()}/stat") as stat:
            return ") Z " not in stat.read()
    except FileNotFoundError:
        return False


def wait_for(path: str | None) -> None:
    while path is not None and not os.path.exists(path):
        time.sleep(0.005)


def prepare(args: argparse.Namespace) -> None:
    """Everything that a switch does before the engine listens."""
    if args.ignore_sigterm:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for number in range(args.log_lines):
        print(f"line {number}", flush=True)
    if args.print_env:
        print(json.dumps(dict(os.environ)), flush=True)
    for phase in args.phase:
        gate, _, line = phase.partition(":")
        print(line, flush=True)
        wait_for(gate)
        os.unlink(gate)
    if args.fail_start is not None:
        print(args.fail_start, file=sys.stderr, flush=True)
        sys.exit(args.exit_code)
    if args.fail_once is not None and not os.path.exists(args.fail_once):
        with open(args.fail_once, "w"):
            sys.exit(args.exit_code)
    if args.port_in_use:
        raise OSError(98, "Address already in use")
    if args.fork_child is not None:
        fork_child(args)
    for name in args.shared_memory:
        map_shared_memory(name)
    hold_memory(args)


def later(seconds: float, code: int) -> None:
    """Crash like a process that died, without any cleaning up."""
    timer = threading.Timer(seconds, os._exit, (code,))
    timer.daemon = True
    timer.start()


def main() -> None:
    args = arguments()
    prepare(args)
    wait_for(args.bind_when)
    engine = Engine(args)
    threading.Thread(target=engine.serve_forever, daemon=True).start()
    print(f"fake engine {os.getpid()} listens on {args.port}", flush=True)
    if args.crash_after is not None:
        later(args.crash_after, args.crash_code)
    block = b"a line of a flood of them, 32 b.\n"[1:] * 32_768
    for _ in range(args.flood_mib):
        os.write(1, block)
    while args.flood_mib:  # one line may be lost between a rotation's copy and its truncation
        print("flood over", flush=True)
        time.sleep(0.2)
    while args.spin:
        pass
    while True:
        time.sleep(args.chatter or 3600)
        print("chatter", flush=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
