"""Start the node's process when none runs on this home."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from typing import IO, Any, Self

from yibu import sockets
from yibu.config import Config
from yibu.config.settings import settings_of
from yibu.errors import AlreadyRunningError, YibuError
from yibu.management.context import Context
from yibu.messages import unpack
from yibu.node.handover.holder import command as holder_command
from yibu.plain_errors import rebuild_error

_OTHER_NODE = 10.0
"""Seconds to wait for a node that another command has started."""
_POLL = 0.05


class NodeLaunch:
    """A node that is being started while the command still reads its configuration.

    Both take some tenths of a second to import what they need, so they do it side by side: the
    process is spawned at once, and told what to do when that is known.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self.runs_already = context.client.running()
        self._process = None if self.runs_already else _spawn(context)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Without ``finish`` the process gets no settings, and ends."""
        if self._process is not None:
            for pipe in filter(None, (self._process.stdin, self._process.stdout)):
                pipe.close()
            self._process.wait()

    def finish(self, config: Config, *, listen_later: bool = False) -> bool:
        """Have a node that listens; returns whether this command started it.

        ``listen_later``: its gateway takes the address only when it is told to (``open``).

        Raises:
            YibuError: the node could not start (the port is in use, for instance).
        """
        if self._process is None:
            return False
        settings, keys = settings_of(config, self._context.env)
        process, self._process = self._process, None
        assert process.stdin is not None
        assert process.stdout is not None
        with process.stdout as stdout:
            try:
                process.stdin.write(settings.as_input(keys, listen_later=listen_later))
                process.stdin.close()
                answer = _first_line(stdout)
            except KeyboardInterrupt:  # a node that serves nothing is not left behind
                with contextlib.suppress(OSError):  # what was not written yet
                    process.stdin.close()
                process.terminate()
                process.wait()
                raise
        if answer is None:
            raise YibuError(
                "The node ended before it listened, with exit code {wait}.",
                wait=process.wait(),
                node_log=self._context.paths.node_log,
                hint="Its log says why: {node_log}",
            )
        if "error" in answer:
            process.wait()
            error = rebuild_error(answer["error"])
            # Two commands at once: the node of whichever was first serves both.
            if (
                isinstance(error, AlreadyRunningError)
                and not listen_later
                and self._other_answers()
            ):
                return False
            raise error
        return True

    def _other_answers(self) -> bool:
        """Whether the node that holds this home answers within a while."""
        deadline = time.monotonic() + _OTHER_NODE
        while not (answers := self._context.client.running()):
            if time.monotonic() > deadline:
                break
            time.sleep(_POLL)
        return answers


def _spawn(context: Context) -> subprocess.Popen[bytes]:
    """Start the holder, which starts the node, in a session of its own: Ctrl-C reaches this command alone.

    The gateway's settings go in by a pipe, for they hold keys; one line of JSON comes out when
    the node listens, or says why it does not. A listening socket that systemd gave is handed on.
    """
    context.paths.make()
    env = dict(context.env)
    given = [("gateway", fd) for fd in sockets.handed(env).get("gateway", ())]
    with open(context.paths.node_log, "ab", opener=_private) as log:
        process = subprocess.Popen(
            holder_command(given),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
            pass_fds=tuple(fd for _, fd in given),
            env=env,
            cwd="/",
        )
    for _, fd in given:
        os.close(fd)
    return process


def _private(path: str, flags: int) -> int:
    """Open a log for its owner alone, even one made by an earlier version."""
    descriptor = os.open(path, flags, 0o600)
    os.fchmod(descriptor, 0o600)
    return descriptor


def _first_line(stdout: IO[bytes]) -> dict[str, Any] | None:
    line = stdout.readline()
    return unpack(json.loads(line)) if line else None
