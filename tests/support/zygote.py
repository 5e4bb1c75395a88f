"""A process that has imported all of yibu, and forks for each `yibu` that a test starts.

To import yibu costs a third of a second of processor time for a command and half of one for a
node. A fork has its own process number, streams, environment (in /proc too), signals and exit code, and
ends as Python ends. A node that a command starts is forked from here as well, not from the command.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import ctypes
import gc
import importlib
import io
import json
import os
import pkgutil
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from yibu.messages import ENGLISH
from yibu.node.handover.holder import Holder

ROOT = Path(__file__).parents[2]
ROOM = 65536
"""Bytes in /proc/PID/environ for what a fork's environment has; a fork cannot make it larger."""

NODE = ["-P", "-m", "yibu.daemon"]
HOLDER = "yibu.node.handover.holder"
TARGETS = ("tests.node.node_process", "tests.fakes.pull", "tests.fakes.locker")
"""Programs of the tests; each has a ``main()``."""
_CLIENT = 100
"""The number under which a command's fork keeps its way to ask for a node."""

_NUMBER = struct.Struct("i")
_PROGRAM = f"""
import runpy, sys
from yibu.messages import use
use(sys.argv[1])
runpy.run_module({__name__!r}, run_name="__main__")
"""


class Forked(subprocess.Popen[Any]):
    """A Popen whose process is a fork of the zygote: it asks for it, and is told how it ended."""

    def __init__(
        self, zygote: socket.socket, target: str, words: Sequence[str], **how: Any
    ) -> None:
        self._zygote, self._target, self._exit = zygote, target, -1
        super().__init__(list(words), **how)

    def _execute_child(self, args: Any, *more: Any) -> None:
        # As the standard library's _execute_child is called in Python 3.11 and later.
        cwd, env = more[4], more[5]
        read_in, write_in, read_out, write_out, read_err, write_err = more[9:15]
        new_session = more[20]
        self._exit, told = os.pipe()
        streams = [read_in, write_out, write_err]
        wanted = {
            "target": self._target,
            "argv": [os.fspath(word) for word in args],
            "cwd": os.fspath(cwd or Path.cwd()),
            "env": dict(os.environ if env is None else env),
            "session": bool(new_session),
        }
        passed = [number if fd == -1 else fd for number, fd in enumerate(streams)]
        socket.send_fds(self._zygote, [json.dumps(wanted).encode()], [*passed, told])
        os.close(told)
        for fd, other in ((read_in, write_in), (write_out, read_out), (write_err, read_err)):
            if fd != -1 and other != -1:
                os.close(fd)
        if getattr(self, "_devnull", None) is not None:
            os.close(self._devnull)
        self._child_created = True
        self.pid = self._told()

    def _told(self) -> int:
        said = os.read(self._exit, _NUMBER.size)
        if not said:
            raise RuntimeError("the process that forks for these tests is gone")
        return int(_NUMBER.unpack(said)[0])

    def _try_wait(self, wait_flags: int) -> tuple[int, int]:
        if wait_flags & os.WNOHANG and not select.select([self._exit], [], [], 0)[0]:
            return 0, 0
        status = self._told()
        os.close(self._exit)
        return self.pid, status

    def _internal_poll(self, *_: Any, **__: Any) -> int | None:
        if self.returncode is None and self._child_created:
            pid, status = self._try_wait(os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def __del__(self) -> None:
        """Nothing is left to be reaped: the zygote does it."""
        if self.returncode is None and self._exit != -1:
            os.close(self._exit)


class Zygote:
    """One process of a test worker; it starts with the first command and ends with the tests.

    Texts are made when modules are imported, so each language has a process of its own.
    """

    def __init__(self, language: str = ENGLISH) -> None:
        self._language = language
        self._socket: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def popen(self, words: Sequence[str], **how: Any) -> Forked:
        """Begin ``yibu WORDS``."""
        return self._fork("yibu.cli.main", "yibu", words, **how)

    def module(self, name: str, *words: str, **how: Any) -> subprocess.Popen[Any]:
        """Begin ``python -m NAME WORDS``, NAME being the node or one of :data:`TARGETS`."""
        how.setdefault("cwd", ROOT)
        if sys.platform != "linux" or how.get("preexec_fn"):
            return subprocess.Popen([sys.executable, "-m", name, *words], **how)
        return self._fork(name, name, words, **how)

    def node(self, argv: Sequence[str], **how: Any) -> subprocess.Popen[Any]:
        """The holder of a node, and with it the node, as a command in this process starts it."""
        if sys.platform != "linux" or how.pop("pass_fds", ()):
            raise AssertionError("a holder with descriptors is started as it is")
        assert [*argv[-3:]] == NODE, argv
        return self._fork(HOLDER, HOLDER, (), **how)

    def _fork(self, target: str, name: str, words: Sequence[str], **how: Any) -> Forked:
        if self._socket is None:
            self._start()
        assert self._socket is not None
        return Forked(self._socket, target, [sys.executable, "-P", "-m", name, *words], **how)

    def run(
        self,
        *words: str,
        given: str | None = None,
        timeout: float = 300,
        check: bool = False,
        **how: Any,
    ) -> subprocess.CompletedProcess[str]:
        """Run ``yibu WORDS`` to its end, as subprocess.run does."""
        pipe = subprocess.PIPE
        how |= {"stdout": pipe, "stderr": pipe, "text": True}
        how |= {} if given is None else {"stdin": pipe}
        with self.popen(words, **how) as process:
            try:
                out, err = process.communicate(given, timeout)
            except BaseException:
                process.kill()
                raise
        done = subprocess.CompletedProcess(list(words), process.returncode, out, err)
        if check:
            done.check_returncode()
        return done

    def _start(self) -> None:
        self._socket, server = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._process = subprocess.Popen(
            [
                sys.executable, "-c", _PROGRAM, self._language,
                str(server.fileno()), str(self._socket.fileno()),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            cwd=ROOT,
            env={"YIBU_ZYGOTE_ROOM": "." * ROOM, **os.environ},
            pass_fds=(server.fileno(), self._socket.fileno()),
        )  # fmt: skip
        server.close()

    def close(self) -> None:
        if self._socket is None or self._process is None or self._process.stdin is None:
            return
        self._socket.close()
        self._process.stdin.close()  # it ends with it
        self._process.wait(60)


ZYGOTE = Zygote()
CHINESE = Zygote("zh_CN")
for _each in (ZYGOTE, CHINESE):
    atexit.register(_each.close)


def serve(server: socket.socket, client: int) -> Callable[[], None]:
    """Fork for each request and tell how each fork ended. Returns in forks, with what they run."""
    woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    told: dict[int, int] = {}
    while True:
        ready, _, _ = select.select([server, woken, 0], [], [])
        if woken in ready:
            os.read(woken, 65536)
            _reap(told)
        if server in ready:
            said, fds, _, _ = socket.recv_fds(server, 1 << 20, 4)
            wanted = json.loads(said)
            pid = os.fork()
            if pid == 0:
                return become(wanted, fds, client)
            told[pid] = fds[3]
            for fd in fds[:3]:
                os.close(fd)
        elif 0 in ready:
            sys.exit()


def _reap(told: dict[int, int]) -> None:
    with contextlib.suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            fd = told.pop(found[0])
            with contextlib.suppress(BrokenPipeError):  # a command that is gone asks for nothing
                os.write(fd, _NUMBER.pack(found[1]))
            os.close(fd)


def become(wanted: Mapping[str, Any], streams: Sequence[int], client: int) -> Callable[[], None]:
    """Bring a fork into the state in which Python would have started there."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if wanted["session"]:
        os.setsid()
    for number, fd in enumerate(streams[:3]):
        os.dup2(fd, number)
    os.chdir(wanted["cwd"])
    os.environ.clear()
    os.environ.update(wanted["env"])
    show(wanted["env"])
    os.write(streams[3], _NUMBER.pack(os.getpid()))  # all that others see of it is right now
    os.dup2(client, _CLIENT, inheritable=False)
    os.closerange(3, _CLIENT)
    os.closerange(_CLIENT + 1, 1024)
    open_streams()
    argv = wanted["argv"]
    sys.orig_argv[:] = argv
    sys.argv[:] = ["-c", *argv[4:]]
    if wanted["target"] == HOLDER:
        os.close(_CLIENT)
        return lambda: sys.exit(ForkingHolder(argv, ()).run())
    module = importlib.import_module(wanted["target"])
    if wanted["target"] == "yibu.daemon":
        os.close(_CLIENT)
    else:
        from yibu.cli import launch

        launch.subprocess = types.SimpleNamespace(PIPE=subprocess.PIPE, Popen=_popen)  # type: ignore[attr-defined]
    target: Callable[[], None] = module.main
    return target


def open_streams() -> None:
    sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)), encoding="utf-8")
    for name, number in (("stdout", 1), ("stderr", 2)):
        raw = io.BufferedWriter(io.FileIO(number, "w", closefd=False))
        how = "strict" if number == 1 else "backslashreplace"
        at_once = number == 2 or os.isatty(number)
        text = io.TextIOWrapper(raw, encoding="utf-8", errors=how, line_buffering=at_once)
        setattr(sys, name, text)


class ForkingHolder(Holder):
    """The holder, but its nodes are forks of it, which has imported all of yibu."""

    def execute(self, command: list[str], env: Mapping[str, str]) -> None:
        os.closerange(3 + int(env["LISTEN_FDS"]), 1024)  # what an exec would have closed
        os.environ.clear()
        os.environ.update(env)
        show(env)
        open_streams()
        from yibu import daemon

        leave(daemon.main)


def _popen(argv: list[str], **how: Any) -> subprocess.Popen[Any]:
    if how.pop("pass_fds", ()):
        raise AssertionError("a holder with descriptors is started as it is")
    assert argv[-3:] == NODE, argv
    return Forked(socket.socket(fileno=os.dup(_CLIENT)), HOLDER, argv, **how)


def show(env: Mapping[str, str]) -> None:
    """Let /proc/PID/environ say this: the kernel reads it out of the memory of the process."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    begin, end = int(fields[47]), int(fields[48])  # proc(5): env_start, env_end
    block = b"".join(os.fsencode(f"{name}={value}") + b"\0" for name, value in env.items())
    assert len(block) <= end - begin, "the environment is larger than ROOM"
    ctypes.memset(begin, 0, end - begin)
    ctypes.memmove(begin, block, len(block))


def leave(work: Callable[[], None]) -> NoReturn:
    """End as Python ends: with its exit code, or a traceback, or by the signal."""
    code: Any = 0
    try:
        work()
    except SystemExit as done:
        code = done.code
        if isinstance(code, str):
            print(code, file=sys.stderr)
    except BaseException as error:  # noqa: BLE001 - Python's own exit
        sys.excepthook(*sys.exc_info())
        code = 1
        if isinstance(error, KeyboardInterrupt):
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:  # noqa: BLE001 - as Python's own exit has it
            code = 120
    os._exit(code if isinstance(code, int) else int(code is not None))


def import_all() -> None:
    """Everything that a command or a node may import or build: no fork must do it again. Not the
    hubs' SDKs, which read their environment when they are imported, but what those import."""
    import yibu.cli
    from yibu.gateway.operations import build_validators

    commands = (module.name for module in pkgutil.walk_packages(yibu.cli.__path__, "yibu.cli."))
    more = ("yibu.daemon", "yibu.gateway.surface.routes", "yibu.gateway.http.connection",
            "httpx2", "httpcore2", "requests", "tqdm.auto", "pynvml", "pydantic.v1")  # fmt: skip
    for name in (*commands, *more, *TARGETS):
        importlib.import_module(name)
    asyncio.run(build_validators())
    gc.collect()
    gc.freeze()  # a fork's own collections would copy every page


if __name__ == "__main__":
    import_all()
    sys.path.pop(0)  # the folder that holds these tests
    leave(serve(socket.socket(fileno=int(sys.argv[2])), int(sys.argv[3])))
