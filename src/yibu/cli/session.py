"""What ``yibu up`` does with the node: start it, bring models up, watch, take down."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from yibu.cli import display, output
from yibu.cli.connect import access
from yibu.cli.context import Context
from yibu.cli.exits import DONE
from yibu.cli.launch import NodeLaunch, is_alive
from yibu.cli.logs import follow_models
from yibu.config import Config, ModelConfig
from yibu.errors import UsageError, YibuError
from yibu.node.client import Client

_DOWN_TIMEOUT = 120.0
"""Seconds that a node gets to drain and end before a command gives up waiting."""


@dataclass(frozen=True, slots=True)
class Session:
    """One command's dealings with the node of this home."""

    context: Context
    config: Config
    node: NodeLaunch

    def up_detached(self, models: Sequence[ModelConfig]) -> int:
        """Return when everything is ready; the first model that fails is an error."""
        self.ensure_node()
        try:
            bring_up(self.context, models)
        except KeyboardInterrupt:
            names = " ".join(model.name for model in models)
            output.talk(f"\n{names}: goes on starting. See it: yibu ps. Stop it: yibu down {names}")
            raise
        self._say_where(models)
        return DONE

    def up_attached(self, models: Sequence[ModelConfig]) -> int:
        """Stay in the foreground; Ctrl-C takes down what this command brought up."""
        with self.running(models):
            self._say_where(models)
            output.talk("Ctrl-C stops it.")
            follow_models(self.context, [model.name for model in models])
        return DONE

    @contextmanager
    def running(self, models: Sequence[ModelConfig]) -> Iterator[None]:
        """The models are up inside the block; leaving it takes down what it brought up.

        An interrupt (Ctrl-C, SIGTERM) once all is ready is how the block is meant to end; one
        before that is raised.
        """
        with sigterm_interrupts():
            started = self.ensure_node()
            ready = False
            try:
                bring_up(self.context, models)
                ready = True
                yield
            except KeyboardInterrupt:
                output.talk("\nStopping…")
                if not ready:
                    raise
            finally:
                self._take_down(models, node=started)

    def ensure_node(self) -> bool:
        """Start the node unless one runs; returns whether it was started.

        Raises:
            UsageError: one runs already, and not at the address that a flag asks for.
        """
        if self.node.finish(self.config.gateway):
            return True
        url = access(self.context).url
        gateway = self.config.gateway
        asked: dict[str, Callable[[], bool]] = {
            "gateway.host": lambda: f"//{gateway.host}:" in url,
            "gateway.port": lambda: url.endswith(f":{gateway.port}"),
            "gateway.api_keys": lambda: _locked_by(url, gateway.api_keys),
        }
        for setting, as_asked in asked.items():
            if self.config.origins.get(setting) == "flag" and not as_asked():
                raise UsageError(
                    f"A node already runs here at {url}, and {setting} cannot change under it.",
                    hint="Stop it first: yibu down",
                )
        return False

    def _take_down(self, models: Sequence[ModelConfig], *, node: bool) -> None:
        if node:
            shut_down(self.context)
        else:
            take_down(self.context, [model.name for model in models])

    def _say_where(self, models: Sequence[ModelConfig]) -> None:
        names = ", ".join(model.name for model in models)
        output.talk(f"Serving {names} at {access(self.context).url}/v1")


def _locked_by(url: str, keys: Sequence[str]) -> bool:
    """Whether the gateway opens to each of the keys, and not without one."""
    from yibu.cli.api import Api

    def opens(key: str | None) -> bool:
        try:
            Api(url, key).get("/v1/models")
        except YibuError:
            return False
        return True

    return all(map(opens, keys)) and not opens(None)


def bring_up(context: Context, models: Sequence[ModelConfig]) -> None:
    """Ask the node for the models and show how they come up.

    Raises:
        YibuError: a model failed; the error is the first one's.
    """
    from yibu.config.wire import plain_config

    _watch(context, "up", models=[plain_config(model) for model in models])


def take_down(context: Context, models: Sequence[str]) -> None:
    """Drain and stop some models."""
    _watch(context, "down", models=list(models))


def restart(context: Context, models: Sequence[str]) -> None:
    """Stop some models and start them again; return when they are ready."""
    _watch(context, "restart", models=list(models))


def _watch(context: Context, operation: str, **fields: Any) -> None:
    with display.choose() as lines:
        for message in Client(context.paths).stream(operation, **fields):
            if "event" in message:
                lines.show(message)


def shut_down(context: Context) -> None:
    """Drain the node, stop everything, and wait until its process is gone.

    Ctrl-C while it drains cuts requests in flight off; a second one leaves the node to itself.
    """
    pid = Client(context.paths).call("shutdown")["pid"]
    try:
        _wait_gone(context, pid)
    except KeyboardInterrupt:
        output.talk("\nStopping at once: requests in flight are cut off.")
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        _wait_gone(context, pid)


def _wait_gone(context: Context, pid: int) -> None:
    deadline = time.monotonic() + _DOWN_TIMEOUT
    while is_alive(pid):
        if time.monotonic() > deadline:
            raise YibuError(
                f"The node (pid {pid}) still runs {_DOWN_TIMEOUT:.0f} s after it was asked to stop.",
                hint=f"Its log says what it waits for: {context.paths.node_log}",
            )
        time.sleep(0.02)


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """Let SIGTERM (systemd) and SIGHUP (a closed terminal) do what Ctrl-C does."""

    def interrupt(_signal: int, _frame: object) -> None:
        raise KeyboardInterrupt

    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
