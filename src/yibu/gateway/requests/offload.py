"""A process for work that would block the event loop: parsing and checking large bodies.

A thread does not do: the JSON parser and pydantic hold the interpreter's lock all the while. The
process is started when it is first needed, works on one call after another, and ends when it has
had nothing to do for a while, or when the gateway's end of its pipes is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar, TypeVarTuple

from yibu.errors import NotReadyError, RequestError

IDLE_SECONDS = 30.0
"""Seconds without work after which the process ends: it keeps the memory of a large body."""

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class OffloadProcess:
    """Runs functions in the other process. Bound to one event loop."""

    def __init__(self) -> None:
        # Writes to and reads from the process, so that neither holds the event loop up.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="gateway-offload")
        self._process: subprocess.Popen[bytes] | None = None
        self._waiting = 0
        self._rest: asyncio.TimerHandle | None = None

    async def run(self, function: Callable[[*Ts], T], *arguments: *Ts) -> T:
        """What ``function(*arguments)`` returns; all three are pickled, the function by name.

        Raises:
            RequestError: the function raised it, or the process ended.
        """
        loop = asyncio.get_running_loop()
        if self._rest is not None:
            self._rest.cancel()
            self._rest = None
        self._waiting += 1
        try:
            return await loop.run_in_executor(self._thread, self._ask, function, arguments)
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._rest = loop.call_later(IDLE_SECONDS, self._thread.submit, self._end)

    async def aclose(self) -> None:
        """End the process; work in progress fails."""
        if self._rest is not None:
            self._rest.cancel()
        if self._process is not None:
            self._process.kill()
        self._thread.submit(self._end)
        await asyncio.to_thread(self._thread.shutdown, cancel_futures=False)

    @property
    def pid(self) -> int | None:
        """The process's pid, while there is one."""
        return None if self._process is None else self._process.pid

    def _ask(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        if self._process is None or self._process.poll() is not None:
            self._end()
            self._process = _start()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            pickle.dump((function, arguments), self._process.stdin, pickle.HIGHEST_PROTOCOL)
            self._process.stdin.flush()
            refused, value = pickle.load(self._process.stdout)  # noqa: S301  (our own process)
        except (OSError, EOFError, pickle.UnpicklingError) as error:
            self._end()
            raise NotReadyError(
                "The process that reads large requests ended while it read this one",
                code="out_of_resources",
                hint="See why in the node's log; when memory is short, gateway.max_body "
                "bounds what a request may take",
                retry_after=5,
            ) from error
        if refused:
            kind, message, fields = value
            raise kind(message, **fields)
        return value

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):  # what was not read any more
                pipe.close()  # type: ignore[union-attr]
        process.wait()


def _start() -> subprocess.Popen[bytes]:
    command = [sys.executable, "-P", "-m", "yibu.gateway.requests.offload"]
    try:
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    except OSError as error:
        raise NotReadyError(
            "The process that reads large requests cannot be started: {error}",
            error=error,
            code="out_of_resources",
            hint="Send a smaller request, or free memory and processes on the gateway's machine",
            retry_after=5,
        ) from error


def main() -> None:
    """Answer calls until the gateway is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the node's to act on
    gc.disable()  # parsed JSON has no cycles, and millions of objects
    calls = sys.stdin.buffer
    with os.fdopen(os.dup(sys.stdout.fileno()), "wb") as answers:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        while True:
            try:
                function, arguments = pickle.load(calls)  # noqa: S301  (the gateway's)
            except EOFError:
                return
            try:
                answer = (False, function(*arguments))
            except RequestError as error:
                fields = {"hint": error.hint, "param": error.param, "code": error.code}
                answer = (True, (type(error), error.message, fields))
            pickle.dump(answer, answers, pickle.HIGHEST_PROTOCOL)
            answers.flush()
            del function, arguments, answer
            gc.collect()


if __name__ == "__main__":
    main()
