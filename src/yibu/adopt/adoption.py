"""``yibu adopt``: from a start script, a command line or a running process to a yibu.yaml.

Pure: a script is read as text and nothing of it is run. Keys found in it are taken out of what is
printed; whoever calls writes them to a key file.
"""

from __future__ import annotations

import dataclasses
import os.path
from collections.abc import Mapping, Sequence
from typing import Any

from yibu.adopt.bash import Command, Gap, Setting, UnknownScriptError, read_commands
from yibu.adopt.findings import Adoption, Findings, gateway
from yibu.adopt.funasr import read_python
from yibu.adopt.llama_swap import Swap, read_llama_swap
from yibu.adopt.manifests import read_manifest
from yibu.adopt.modelfile import read_modelfile
from yibu.adopt.others import of_speech, read_others
from yibu.adopt.parts import environment_of, gpus_of, names_of, options_of, sources_of
from yibu.adopt.pasted import tidy
from yibu.adopt.servers import StartedServer, find_servers, in_container, judge
from yibu.adopt.services import ManifestService, refuse_gaps
from yibu.adopt.units import is_unit, read_unit
from yibu.config import ModelConfig
from yibu.config.keys import key_fault
from yibu.engines.gpu_variables import GPU_VARIABLES
from yibu.engines.registry import by_name, servers
from yibu.engines.servers import Lifted
from yibu.errors import ConfigError, SourceError, UsageError, YibuError
from yibu.messages import tr
from yibu.redaction import redact

_CONTAINERS = frozenset({"docker", "podman", "nerdctl", "container"})


def adopt_script(text: str, setting: Setting | None = None) -> Adoption:
    """Read a script, a systemd unit or a command line.

    Args:
        text: The script.
        setting: Where it would be started: its environment, arguments and files.

    Raises:
        UsageError: It starts no server that is known here, or one in a way that only running it would
            tell.
    """
    setting = setting or Setting()
    if (swap := read_llama_swap(text, setting)) is not None:
        return _adopt_swap(swap)
    if (modelfile := read_modelfile(text)) is not None:
        return modelfile
    if (services := read_manifest(text, setting)) is not None:
        return _adopt_manifest(services)
    if (speech := read_python(text)) is not None:
        return of_speech(speech)
    warnings: list[str] = []
    if is_unit(text):
        text, warnings = read_unit(text, setting.variables.get("HOME", ""))
    commands, notes = read_commands(tidy(text), setting, judge)
    adoption = read_others(commands, setting) or _adopt(commands)
    return dataclasses.replace(adoption, warnings=(*adoption.warnings, *warnings, *notes))


def _adopt_swap(swap: Swap) -> Adoption:
    known = [server for server in swap.servers if server is not None]
    if not known:
        raise UsageError(
            "nothing to adopt: no model of this llama-swap file is run by a server that "
            "is known here"
        )
    adoption = adopt_servers(known, swap.keys, port=8080)
    adopted = iter(adoption.document["models"])
    models = [
        dict(rest) if server is None else {**next(adopted), **rest}
        for server, rest in zip(swap.servers, swap.entries, strict=True)
    ]
    return dataclasses.replace(
        adoption,
        document={**adoption.document, "models": models},
        warnings=(*adoption.warnings, *swap.warnings),
    )


def _adopt_manifest(services: Sequence[ManifestService]) -> Adoption:
    all_found: list[StartedServer] = []
    warnings: list[str] = []
    for service in services:
        started = Command(("container", service.where), {}, "", line=service.line)
        found = in_container(service.container, started, service.replicas)
        if found:
            refuse_gaps(service)
            warnings += service.warnings
        all_found += found
    if not all_found:
        raise UsageError(
            "nothing to adopt: no container of this file runs a server that is known "
            "here (found: {images})",
            images=", ".join(service.container.image for service in services) or "-",
        )
    adoption = adopt_servers(all_found)
    return dataclasses.replace(adoption, warnings=(*adoption.warnings, *warnings))


def adopt_process(argv: Sequence[str], env: Mapping[str, str], directory: str = "") -> Adoption:
    """Read a running process's arguments, environment and working directory.

    Of the environment only variables about the engine, the GPUs and the hubs are taken.

    Raises:
        UsageError: It is no server that is known here.
    """
    return _adopt([process_command(argv, env, directory)])


def process_command(argv: Sequence[str], env: Mapping[str, str], directory: str) -> Command:
    """A running process as the command that would start it."""
    own = {prefix for server in servers() for prefix in server.prefixes}
    shared = ("CUDA_", "NCCL_", "OMP_", "HF_", "MODELSCOPE_", "PYTORCH_", *GPU_VARIABLES)
    prefixes = (*own, *shared)
    taken = {name: value for name, value in env.items() if name.startswith(prefixes)}
    return Command(tuple(argv), taken, directory)


def adopt_servers(
    started: Sequence[StartedServer], keys: Sequence[str] = (), port: int | None = None
) -> Adoption:
    """The adoption of several servers; ``keys`` and ``port`` are those of a proxy in front of them."""
    found = Findings(keys=list(keys))
    for server in started:
        _read_server(server, found)
    first = started[0].command_line
    host = found.addresses[0][0] or first.host
    return Adoption(
        document={"gateway": gateway(found, host, port or first.port), "models": found.models},
        keys=tuple(dict.fromkeys(found.keys)),
        warnings=tuple(found.warnings),
        secrets=found.secrets,
        servers=tuple(started),
        host=host,
    )


def _adopt(commands: Sequence[Command]) -> Adoption:
    started = find_servers(commands)
    if not started:
        seen = ", ".join(sorted({c.argv[0] for c in commands})[:8]) or tr("no command")
        raise UsageError(
            "nothing to adopt: no vLLM or llama.cpp server is started (found: {seen})",
            seen=seen,
            hint="For any other server write `engine: command` with its command: `yibu init`",
        )
    return adopt_servers(started)


def _read_server(server: StartedServer, found: Findings) -> None:
    command, own = server.command, server.command_line
    gap = Gap(command.line, _shown(command))
    try:
        lifted = own.lift(server.words, env=command.env)
        options = options_of(own, lifted, command.directory, found)
    except ConfigError as error:
        raise UnknownScriptError(
            gap,
            tr("cannot be read: {error}", error=error.message),
            error.hint or "",
        ) from error
    variables = own.table.variables
    env = {name: value for name, value in lifted.env.items() if name not in variables}
    source = lifted.hub_model or lifted.model or ""
    if server.names:  # a proxy has the address, and says who is asked for
        lifted = dataclasses.replace(lifted, host=None, port=None, names=server.names)
    name, *aliases = found.free_names(names_of(lifted.names, source, own))
    model: dict[str, Any] = {"name": name}
    if aliases:
        model["aliases"] = aliases
    try:
        model |= sources_of(lifted, own, command.directory, options, found)
    except SourceError as error:
        raise UnknownScriptError(
            gap,
            tr(
                "names a model that yibu cannot fetch: {error_message}", error_message=error.message
            ),
            tr("Fetch it into a folder, and name that in its place."),
        ) from error
    env.pop(own.hub_variable, None)
    model["engine"] = server.engine
    _gateway_settings(lifted, gap, name, found)
    if server.replicas > 1:
        model["replicas"] = server.replicas
    if (gpus := gpus_of(env)) is not None:
        model["gpus"] = gpus
    if options:
        model["options"] = options
    if kept := environment_of(env, name, found):
        model["env"] = kept
    _check(model, server, gap)
    if not source:
        raise UnknownScriptError(
            gap,
            tr("names no model: it takes its models from elsewhere, or its own default"),
            tr("Write an entry for each model: yibu init; or name one: yibu adopt -- COMMAND…"),
        )
    _warn_of_command(command, options, env, found)
    found.models.append(model)


def _shown(command: Command) -> str:
    return redact(" ".join(command.argv[:6]))


def _check(model: dict[str, Any], server: StartedServer, gap: Gap) -> None:
    """Refuse what the engine's plan would refuse; names a user's own program where the script starts
    one.

    Raises:
        UnknownScriptError: with the engine's own reason.
    """
    engine, own, options = by_name(server.engine), server.command_line, model.get("options", {})
    entry = ModelConfig(
        name=model["name"],
        source=model.get("source", ""),
        options=options,
        env=model.get("env", {}),
    )
    try:
        engine.request(entry, None)
        engine.check(entry)
    except YibuError as error:
        program = server.command.argv[0]
        if own.program_option and "/" in program and not _CONTAINERS & set(server.command.wrappers):
            path = (
                program
                if program.startswith(("/", "~"))
                else os.path.join(  # noqa: PTH118
                    server.command.directory, program
                )
            )
            model["options"] = {own.program_option: path, **options}
            return
        said = error.message.removeprefix(f"model {entry.name!r}: ")
        raise UnknownScriptError(
            gap, tr("cannot be served as it stands: {said}", said=said), error.hint or ""
        ) from error


def _gateway_settings(lifted: Lifted, gap: Gap, name: str, found: Findings) -> None:
    """Host, port and keys belong to the gateway."""
    for key in lifted.api_keys:
        if fault := key_fault(key):
            raise UnknownScriptError(
                gap,
                tr("has an API key that cannot be used: {fault}", fault=fault),
                tr(
                    "Give it another: python3 -c 'import secrets; print(secrets.token_urlsafe(32))'"
                ),
            )
    if lifted.keys_on_command_line:
        found.warn(
            tr(
                "{name}: its API key stood on the command line, where every user of the "
                "machine could read it; it goes to a key file, and should be changed",
                name=name,
            )
        )
    found.keys += lifted.api_keys
    found.addresses.append((lifted.host, lifted.port))
    if lifted.key_file is not None:
        found.warn(
            tr(
                "{name}: the keys in {key_file} are not read; name them anew",
                name=name,
                key_file=lifted.key_file,
            )
        )


def _warn_of_command(
    command: Command, options: Mapping[str, Any], env: Mapping[str, str], found: Findings
) -> None:
    if options.get("trust_remote_code"):
        found.warn(
            tr(
                "--trust-remote-code runs Python that comes with the model: keep it only if you "
                "know its authors"
            )
        )
    if env.get("VLLM_SERVER_DEV_MODE") == "1":
        found.warn(tr("VLLM_SERVER_DEV_MODE=1 opens administrative paths of vLLM's: leave it out"))
    if _CONTAINERS & set(command.wrappers):
        found.warn(
            tr(
                "it ran in a container with a server of its own; yibu runs the version that it "
                "has pinned (another: yibu engine install ENVIRONMENT --version V), and none of "
                "the container's other options is carried over"
            )
        )
    if "sudo" in command.wrappers:
        found.warn(
            tr("it ran as another user through sudo; yibu runs engines as the user it runs as")
        )
    if "nohup" in command.wrappers or command.background:
        found.warn(
            tr("nothing restarted it after a crash or a reboot; `yibu up -d` watches over it")
        )
    if command.output and command.output != "/dev/null":
        found.warn(
            tr(
                "its log {output} grew without bound; yibu rotates: `yibu logs`",
                output=command.output,
            )
        )
