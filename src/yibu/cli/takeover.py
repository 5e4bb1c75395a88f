"""``yibu adopt --replace``: start engines beside running servers, then take their place.

The order, and why: our engines become ready on inner ports while the old servers answer, so that
a start that fails leaves those as they are. Then the old ones are told to end, and the gateway
takes their address as soon as they let go of it, which a server does before all else. Then one
token is asked for through the gateway. ``stop_first`` is for machines without memory for both: the
weights and the environment are made ready, the old ones end, and the gateway answers that the
models are starting until they have.
"""

from __future__ import annotations

import asyncio
import shlex
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from yibu.accounts.store import FILE, holds_keys
from yibu.adopt import Adoption, StartedServer, adopt_servers, find_servers, process_command
from yibu.cli import output
from yibu.cli.connect import access
from yibu.cli.exits import DONE
from yibu.cli.launch import NodeLaunch
from yibu.cli.progress import installing, pulling
from yibu.cli.session import bring_up, handling, shut_down, sigterm_interrupts
from yibu.config import Config, ModelConfig
from yibu.config.file import parse, resolve
from yibu.config.keys import KEYS_VARIABLE, check_exposure, load_keys
from yibu.errors import DoesNotFitError, HungNodeError, NotRunningError, UsageError, YibuError
from yibu.gateway.listening import PortTakenError, bind
from yibu.hub.source import parse_source
from yibu.management.context import Context, open_environments, open_resolver, open_store
from yibu.management.planning import Planned, plan_models
from yibu.messages import tr
from yibu.node.launch import foreign
from yibu.node.launch.foreign import Foreign
from yibu.node.launch.probe import one_token, token_requests
from yibu.node.machine.hardware import probe
from yibu.planner.text import size
from yibu.planner.types import Machine
from yibu.redaction import redact

_SPARE = 60.0
"""Seconds beyond the old servers' grace for their address to become free."""
_FIRST_TOKEN = 60.0
"""Seconds for the first answer through the gateway."""
_RANK = {"fits": 0, "fits_reduced": 1, "cannot_tell": 1, "does_not_fit": 2}


def server_of(process: Foreign) -> StartedServer | None:
    """The server that a process is, or None for any other process."""
    command = process_command(process.argv, process.env, process.directory)
    try:
        return next(iter(find_servers([command])), None) if process.argv else None
    except UsageError:  # its words are none that a server takes
        return None


def find_running(adoption: Adoption) -> list[Foreign]:
    """The processes that run what a script or a command line starts, one for each server.

    Raises:
        UsageError: for one of them there is none, or there are several.
    """
    known = [(process, server_of(process)) for process in foreign.every()]
    running = [(process, server) for process, server in known if server is not None]
    top = foreign.topmost([process for process, _ in running])
    found = []
    for model, wanted in zip(adoption.document["models"], adoption.servers, strict=True):
        same = [p for p, server in running if p in top and server.same_as(wanted)]
        if len(same) == 1:
            found.append(same[0])
            continue
        others = ", ".join(str(process.pid) for process in same or top)
        raise _not_one(model["name"], several=bool(same), others=others)
    return found


def _not_one(name: str, *, several: bool, others: str) -> UsageError:
    text = (
        tr("several processes run exactly the command line of {name}", name=name)
        if several
        else tr("no process of yours runs exactly the command line of {name}", name=name)
    )
    if not others:
        return UsageError(
            "{text}, nor any other server.", text=text, hint="Start it, or serve it with: yibu up"
        )
    return UsageError(
        "{text}; servers that run: {others}.",
        text=text,
        others=others,
        hint="Look at them with ps, and name the one that is meant: yibu adopt --pid PID --replace",
    )


def read_running(pid: int) -> Foreign:
    """The running server with that pid.

    Raises:
        UsageError: it may not be taken over, is no server that is known, or is part of one.
    """
    process = foreign.read(pid)
    if server_of(process) is None:
        return process
    top = foreign.topmost([p for p in foreign.every() if server_of(p) is not None])
    if process in top:
        return process
    owner = next(p for p in top if process.identity in p.family())
    raise UsageError(
        "The process {pid} is a part of the server {server}.",
        pid=pid,
        server=owner.pid,
        hint=tr("yibu adopt --pid {pid} --replace", pid=owner.pid),
    )


def as_it_runs(
    adoption: Adoption, old: Sequence[Foreign], env: Mapping[str, str], host: str | None
) -> Adoption:
    """The same with what only the running processes tell: the folder that paths begin in, and
    that ``ORG/NAME`` is a folder there. The gateway is to listen where they do.

    Raises:
        UsageError: they listen on the network without a key, which yibu does not.
    """
    placed = [
        replace(server, command=replace(server.command, directory=process.directory))
        for server, process in zip(adoption.servers, old, strict=True)
    ]
    found = adopt_servers(placed)
    models = [dict(model) for model in found.document["models"]]
    for model, process in zip(models, old, strict=True):
        scheme, _, name = model.get("source", "").partition(":")
        if scheme in ("hf", "modelscope") and (folder := Path(process.directory, name)).is_dir():
            model["source"] = str(folder)
    gateway = dict(found.document["gateway"])
    if host is not None:
        gateway["host"] = host
    elif gateway["host"] != found.host:
        if not env.get(KEYS_VARIABLE):
            raise UsageError(
                "The old server listens on {host} without a key; yibu does not listen on "
                "the network without one.",
                host=found.host,
                variable=KEYS_VARIABLE,
                hint="Give it a key that its clients then send ({variable}=…), or serve "
                "this machine alone: --host 127.0.0.1",
            )
        gateway["host"] = found.host
    document = {**found.document, "gateway": gateway, "models": models}
    return replace(found, document=document, warnings=adoption.warnings)


def configuration(
    adoption: Adoption, old: Sequence[Foreign], file: Path | None, env: Mapping[str, str]
) -> Config:
    """The adopted file as a Config. Address and port are the old server's, whatever
    ``YIBU_HOST`` says; variables that it refers to may be set for the old server alone."""
    variables = {k: v for process in old for k, v in process.env.items() if k[:5] != "YIBU_"}
    name = str(file or tr("the adopted configuration"))
    schema = parse(adoption.to_yaml().encode(), name, env={**variables, **env})
    gateway = adoption.document["gateway"]
    flags = {"host": gateway["host"], "port": gateway["port"]}
    return resolve(schema, file, env=env, flags=flags)


@dataclass(frozen=True, slots=True)
class Takeover:
    """One replacement: the servers, the adopted configuration, and timeouts."""

    context: Context
    config: Config
    """The configuration; its gateway has the old servers' address."""
    models: Sequence[ModelConfig]
    old: Sequence[Foreign]
    grace: float
    """Seconds from SIGTERM to SIGKILL for each old server."""
    stop_first: bool = False
    measure: Callable[[], Machine] = probe

    def run(self) -> int:
        """Replace them; return when a token has come through the gateway.

        Raises:
            UsageError: the address cannot be taken over.
            DoesNotFitError: both do not fit at once (or not even the new one alone).
            YibuError: our own engines did not start: the old ones run on, unless ``stop_first``.
        """
        self._check_address()
        self._check_memory()
        with sigterm_interrupts():
            if self.stop_first:
                self._stop_then_start()
            else:
                self._start_then_stop()
        self._check_token()
        self._say()
        return DONE

    # Before anything is changed.

    def _check_address(self) -> None:
        gateway = self.config.gateway
        if self.context.client.running():
            raise UsageError(
                "A node already runs here, with a gateway of its own.",
                hint="Stop it first (yibu down), or give this one another home: YIBU_HOME=/dir",
            )
        keys = load_keys(gateway, self.context.env, gateway.api_key_file)
        accounts = holds_keys(self.context.paths.state / FILE)
        check_exposure(gateway.host, keys, accounts=accounts)
        port, pids = gateway.port, self._pids()
        try:
            bind(gateway.host, port).close()
        except PortTakenError as error:
            if all(server.listens(port) is False for server in self.old):
                raise UsageError(
                    "Port {port} is held by another process than {pids}.",
                    port=port,
                    pids=pids,
                    hint="Find it with: ss -ltnp 'sport = :{port}'",
                ) from error
        else:
            output.say("! {pids} does not listen on port {port} yet.", pids=pids, port=port)

    def _check_memory(self) -> None:
        machine = self.measure()
        store = open_store(self.context)
        resolver = open_resolver(self.context)
        without = foreign.without(machine, list(self.old))
        alone = plan_models(self.models, store, without, resolver)
        if any(one.plan.verdict == "does_not_fit" for one in alone):
            _show(alone)
            raise DoesNotFitError("It does not fit on this machine, even without the old server.")
        if self.stop_first:
            return
        together = plan_models(self.models, store, machine, resolver)
        for now, later in zip(together, alone, strict=True):
            if _RANK[now.plan.verdict] > _RANK[later.plan.verdict]:
                _show(together)
                held = size(sum(server.rss_bytes() for server in self.old))
                raise DoesNotFitError(
                    "{model} does not fit beside the old server as it does without it: "
                    "{reasons} The old one ({pids}) holds {held} of main memory and what "
                    "the GPUs' lines above say.",
                    model=now.model.name,
                    reasons=" ".join(now.plan.reasons),
                    pids=self._pids(),
                    held=held,
                    hint="Stop the old one before the new one starts, with a gap of as long "
                    "as that takes: --stop-first",
                )

    # The two orders.

    def _start_then_stop(self) -> None:
        with self._ours_end_on_failure():
            self._start_node()
            bring_up(self.context, self.models)
        self._cut_over()

    def _stop_then_start(self) -> None:
        self._prepare()
        self._start_node()
        self._cut_over()
        with self._ours_end_on_failure():
            bring_up(self.context, self.models)

    @contextmanager
    def _ours_end_on_failure(self) -> Iterator[None]:
        try:
            yield
        except BaseException:  # an interrupt too: nothing of ours may stay beside the old server
            with suppress(NotRunningError, HungNodeError):  # the node may be what failed
                shut_down(self.context)
            self._say_what_is_left()
            raise

    def _say_what_is_left(self) -> None:
        if not self.stop_first:
            output.say("The old server ({pids}) was left as it was.", pids=self._pids())
            return
        for server in self.old:
            output.say(
                "The old server is stopped. It was: cd {directory} && {line}",
                directory=server.directory,
                line=redact(shlex.join(server.argv)),
            )

    def _start_node(self) -> None:
        with NodeLaunch(self.context) as node:
            node.finish(self.config, listen_later=True)

    def _prepare(self) -> None:
        """Prepare everything possible while the old servers still answer."""
        store = open_store(self.context)
        environments = open_environments(self.context)
        sources = [s for m in self.models for s in (m.source, *m.adapters.values()) if s]
        for source in sources:
            with pulling(source) as progress:
                store.pull(parse_source(source), progress=progress)
        machine = foreign.without(self.measure(), list(self.old))
        for one in plan_models(self.models, store, machine, open_resolver(self.context)):
            if one.launch is not None and (name := one.launch.environment) is not None:
                environments.ensure(name, progress=installing(name))

    def _cut_over(self) -> None:
        """End the old servers and listen in their place; this cannot be undone."""
        patience = self.grace * len(self.old) + _SPARE
        client = self.context.client
        # Interrupts are held off: half a replacement would leave nobody to answer.
        waiting = handling(_not_now, signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        with waiting, ThreadPoolExecutor(1) as pool:
            # Asked before the old ones are: the node tries until the address is free.
            opening = pool.submit(client.call, "open", timeout=None, patience=patience)
            for server in self.old:
                if not foreign.end(server, self.grace):
                    output.say(
                        "! {pid} had not ended {grace:g} s after SIGTERM, and was killed.",
                        pid=server.pid,
                        grace=self.grace,
                    )
            opening.result()

    # Afterwards.

    def _check_token(self) -> None:
        reach = access(self.context)
        for model in self.models:
            refused = ""
            capabilities = frozenset(reach.capabilities[model.name])
            for request in token_requests(capabilities, model.name):  # type: ignore[arg-type]
                answer = asyncio.run(one_token(reach.endpoint, request, _FIRST_TOKEN))
                if answer.ok:
                    refused = ""
                    break
                refused = f"{request.path}: HTTP {answer.status}: {answer.excerpt()}"
            if refused:
                raise YibuError(
                    "{model} is in the old server's place, and gave no token: {refused}",
                    model=model.name,
                    refused=refused,
                    hint="See why: yibu logs {model}",
                )

    def _say(self) -> None:
        output.say(
            "Serving {names} at {url}/v1, in place of {pids}.",
            names=", ".join(model.name for model in self.models),
            url=access(self.context).url,
            pids=self._pids(),
        )
        again = [p.pid for p in foreign.every() if any(_same(p, server) for server in self.old)]
        if again:
            output.say(
                "! The old server was started again (pid {str}), by systemd, cron or a "
                "loop of a script: stop that.",
                str=", ".join(map(str, again)),
            )

    def _pids(self) -> str:
        return "pid " + ", ".join(str(server.pid) for server in self.old)


def _same(process: Foreign, old: Foreign) -> bool:
    one, other = server_of(process), server_of(old)
    return one is not None and other is not None and one.same_as(other)


def _show(planned: Sequence[Planned]) -> None:
    for one in planned:
        output.talk(one.model.name)
        for row in one.rows:
            output.talk(f"  {row.label}  {row.value}  {row.note}".rstrip())


def _not_now(_signal: int, _frame: object) -> None:
    output.say("The old server is being replaced just now; this ends in a moment.")
