"""``yibu up``'s work with the node: start it, bring models up, watch, take down."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from yibu.cli import display, notify, output
from yibu.cli.connect import access
from yibu.cli.exits import DONE
from yibu.cli.launch import NodeLaunch
from yibu.cli.logs import follow_models
from yibu.config import Config, ModelConfig
from yibu.errors import NotRunningError, YibuError
from yibu.management.changes import changes_of_up
from yibu.management.context import Context
from yibu.messages import tr
from yibu.node.lock import ProcessId, holder_of

_DOWN_TIMEOUT = 120.0
"""Seconds a node may take to drain and end before a command gives up."""


@dataclass(frozen=True, slots=True)
class NodeSession:
    """One command's work with the node of this home."""

    context: Context
    config: Config
    node: NodeLaunch
    whole_file: bool = False
    """Whether no model was named: models that the file no longer has count too."""

    def up_detached(self, models: Sequence[ModelConfig]) -> int:
        """Return when everything is ready; the first model that fails is an error.

        A node that this command started and that then serves nothing is not left behind.
        """
        started = self.ensure_node()
        try:
            bring_up(self.context, models, start=not self.whole_file)
        except KeyboardInterrupt:
            names = " ".join(model.name for model in models)
            how = tr(
                "{names}: goes on starting. See it: yibu ps. Stop it: yibu down {names}",
                names=names,
            )
            output.talk(f"\n{how}")
            raise
        except YibuError:
            models = self.context.client.call("ps")["models"] if started else ()
            if started and all(one["state"] in ("failed", "stopped") for one in models):
                shut_down(self.context)
            raise
        self._say_where(models)
        return DONE

    def up_attached(self, models: Sequence[ModelConfig]) -> int:
        """Stay in the foreground; Ctrl-C takes down what this command brought up."""
        with self.running(models) as node:
            self._say_where(models)
            output.say("Ctrl-C stops it.")
            names = [model.name for model in models]
            with notify.serving(self.context, tr("serving {names}", names=", ".join(names))):
                follow_models(self.context, names, node.ended)
            node.check()
        return DONE

    @contextmanager
    def running(self, models: Sequence[ModelConfig]) -> Iterator[NodeWatch]:
        """The models are up inside the block; leaving it takes down what it brought up.

        An interrupt (Ctrl-C, SIGTERM) once all is ready is how the block is meant to end; one
        before that is raised.
        """
        with sigterm_interrupts():
            started = self.ensure_node()
            notify.keep_listeners(self.context)
            node = None
            ready = False
            try:
                node = NodeWatch(self.context)
                bring_up(self.context, models, start=not self.whole_file)
                ready = True
                yield node
            except KeyboardInterrupt:
                output.talk("\n" + tr("Stopping…"))
                if not ready:
                    raise
            finally:
                if node is None:
                    self._take_down(None if started else [], None)
                elif not node.ended.is_set():
                    names = None if started else [model.name for model in models]
                    self._take_down(names, node.instance)

    def ensure_node(self) -> bool:
        """Start the node, or apply this command's settings to the running one; returns whether it was
        started.

        Raises:
            UsageError: one runs already, whose settings cannot become those of this command.
        """
        if self.node.finish(self.config):
            return True
        told = self.context.client.call("settings")
        settings = changes_of_up(self.config, told, self.context, whole_file=self.whole_file)
        if settings.changes:
            watch(self.context, "apply", models=[], **settings.request)
            for change in settings.changes:
                output.talk(change.line())
        return False

    def _take_down(self, models: Sequence[str] | None, instance: str | None) -> None:
        """Take down the models, or the whole node; leaves another node that took its place alone."""
        with contextlib.suppress(NotRunningError):
            if models is None:
                shut_down(self.context, instance)
            elif models:
                watch(self.context, "down", models=list(models), instance=instance)

    def _say_where(self, models: Sequence[ModelConfig]) -> None:
        names = ", ".join(model.name for model in models)
        output.say("Serving {names} at {url}/v1", names=names, url=access(self.context).url)


class NodeWatch:
    """Notices the end of the node that runs now: its socket closes with its process. The one that
    comes in its place, after a crash or an upgrade, is watched from then on."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.instance = ""
        self._pid = 0
        self._meet()
        self.ended = threading.Event()
        self._died: YibuError | None = None
        threading.Thread(target=self._wait, name="watch the node", daemon=True).start()

    def _meet(self) -> None:
        node = self._context.client.call("ping")
        self.instance, self._pid = node["instance"], node["pid"]

    def _wait(self) -> None:
        try:
            while self._goes_on():
                pass
        except YibuError as error:
            self._died = error
        self.ended.set()

    def _goes_on(self) -> bool:
        """Wait for the node's end; whether another one has taken its place."""
        client, old = self._context.client, self._pid
        try:
            if not client.call("wait", timeout=None, instance=self.instance).get("replaced"):
                return False
            self._meet()
            output.say(
                "The node was upgraded: process {pid} is in the place of {old}.",
                pid=self._pid,
                old=old,
            )
        except NotRunningError:
            if holder_of(self._context.paths.node_lock) is None:
                raise
            output.say(
                "! The node (process {old}) ended, and nobody had asked it to. Its engines "
                "go on, connections wait, and it is started again.",
                old=old,
            )
            self._meet()
            output.say("! It is back as process {pid}. Why it ended: yibu logs node", pid=self._pid)
        return True

    def check(self) -> None:
        """Raises YibuError where the node ended without being told to."""
        if self._died is not None:
            raise YibuError(
                "The node ended while this command watched it, and nobody had asked it to.",
                node_log=self._context.paths.node_log,
                hint="Its log says why: {node_log}. Its engines may still run: yibu up takes "
                "them over, yibu down ends them",
            )
        if self.ended.is_set():
            output.say("The node was told to stop.")


def bring_up(context: Context, models: Sequence[ModelConfig], *, start: bool = True) -> None:
    """Bring the models up; ``start``: also load those that are loaded on demand."""
    from yibu.config.wire import plain_config

    watch(context, "up", models=[plain_config(model) for model in models], start=start)


def watch(context: Context, operation: str, **fields: Any) -> None:
    """Run an operation of the node on models, and show its progress.

    Raises:
        YibuError: it failed with a model; the error is the first one's.
    """
    with display.choose() as lines:
        for message in context.client.stream(operation, **fields):
            if "event" in message:
                lines.show(message)


def shut_down(context: Context, instance: str | None = None) -> None:
    """Drain the node, stop everything, and wait until its process is gone.

    Ctrl-C while it drains cuts requests in flight off; a second one leaves the node to itself.
    ``instance``: only that node is meant, and another one in its place refuses.
    """
    client = context.client
    node: dict[str, Any] = {"instance": instance}
    processes: list[ProcessId] = []
    try:
        node = client.call("shutdown", instance=instance)
        processes = _processes(node)
        _wait_gone(context, processes)
    except KeyboardInterrupt:  # it may come before the answer does: the node drains by then
        how = tr("Stopping at once: requests in flight are cut off.")
        output.talk(f"\n{how}")
        with contextlib.suppress(NotRunningError):
            node = client.call("shutdown", instance=node["instance"], hurry=True)
            processes = _processes(node)
        _wait_gone(context, processes)


def end_left(context: Context, models: Sequence[str] = ()) -> int:
    """End engines whose node was killed, and what tries to start it; how many engines' processes there
    were."""
    from yibu.node.fleet.left_behind import end_all

    if (holder := holder_of(context.paths.node_lock)) is not None and not models:
        os.kill(holder.pid, signal.SIGTERM)
        _wait_gone(context, [holder])
    return end_all(context.paths, models)


def _processes(node: Mapping[str, Any]) -> list[ProcessId]:
    """The node's process and its holder's."""
    return [ProcessId.of(pid) for pid in (node["pid"], node.get("holder")) if pid is not None]


def _wait_gone(context: Context, processes: Sequence[ProcessId]) -> None:
    deadline = time.monotonic() + _DOWN_TIMEOUT
    for process in processes:
        while process.alive():
            if time.monotonic() > deadline:
                raise YibuError(
                    "The node (pid {pid}) still runs {seconds:.0f} s after it was asked to stop.",
                    pid=process.pid,
                    seconds=_DOWN_TIMEOUT,
                    node_log=context.paths.node_log,
                    hint="Its log says what it waits for: {node_log}",
                )
            time.sleep(0.02)


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """Make SIGTERM (systemd) and SIGHUP (a closed terminal) act like Ctrl-C."""

    def interrupt(_signal: int, _frame: object) -> None:
        raise KeyboardInterrupt

    with handling(interrupt, signal.SIGTERM, signal.SIGHUP):
        yield


@contextmanager
def handling(handler: Callable[[int, Any], None], *numbers: signal.Signals) -> Iterator[None]:
    """Install a handler for these signals inside the block."""
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
