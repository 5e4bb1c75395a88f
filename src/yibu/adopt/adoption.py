"""``yibu adopt``: from a start script, a command line or a running process to a yibu.yaml.

Pure: a script is read as text and nothing of it is run. Keys found in it are taken out of what is
printed; whoever calls writes them to a key file.
"""

from __future__ import annotations

import dataclasses
import os.path
import re
from collections.abc import Mapping, Sequence
from typing import Any

from yibu.adopt.bash import Command, Setting, read_commands
from yibu.adopt.findings import Adoption, Findings, gateway, name_of
from yibu.adopt.funasr import read_python
from yibu.adopt.manifests import Service, read_manifest, refuse_gaps
from yibu.adopt.others import of_speech, read_others
from yibu.adopt.pasted import tidy
from yibu.adopt.servers import Server, find_servers, in_container, judge, read_flags
from yibu.adopt.units import is_unit, read_unit
from yibu.errors import UsageError

_SECRET = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD)(_|$)")
_DEFAULT_HOSTS = {"vllm": "0.0.0.0"}  # noqa: S104 - vLLM's own default, judged below
# What start scripts export that means nothing to a process yibu starts.
_SHELL_VARIABLES = frozenset({"PATH", "HOME", "PWD", "PYTHONUNBUFFERED", "CUDA_VISIBLE_DEVICES"})

# The engines' flags that yibu has a name of its own for.
_OPTION_NAMES = {
    "max_model_len": "context",
    "max_num_seqs": "parallel",
    "tensor_parallel_size": "tensor_parallel",
    "tp": "tensor_parallel",
    "ctx_size": "context",
    "c": "context",
    "np": "parallel",
    "t": "threads",
    "O": "optimization_level",
}
_LEFT_OUT: Mapping[str, str] = {
    "ssl_keyfile": "the gateway speaks plain HTTP: put a proxy with the certificate before it",
    "ssl_certfile": "the gateway speaks plain HTTP: put a proxy with the certificate before it",
    "ssl_ca_certs": "the gateway speaks plain HTTP: put a proxy with the certificate before it",
    "uds": "the gateway listens on an address, not on a socket file",
    "root_path": "the gateway serves at /v1 alone",
    "headless": "a server without a door of its own is no server here",
    "config": "what stands in that file was not read: write it under options:",
    "hf_token": "a secret stood on the command line: set HF_TOKEN in yibu's environment instead",
    "allowed_origins": "pages of other sites are let in by gateway.cors_origins",
}
"""Flags of vLLM's that yibu refuses, or that mean nothing behind its gateway, and why."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]*")
"""What a model of yibu's may be called; an alias may be called anything."""


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
    if (services := read_manifest(text, setting)) is not None:
        return _adopt_manifest(services)
    if (speech := read_python(text)) is not None:
        return of_speech(speech)
    warnings: list[str] = []
    if is_unit(text):
        text, warnings = read_unit(text)
    commands, notes = read_commands(tidy(text), setting, judge)
    adoption = read_others(commands, setting) or _adopt(commands)
    return dataclasses.replace(adoption, warnings=(*adoption.warnings, *warnings, *notes))


def _adopt_manifest(services: Sequence[Service]) -> Adoption:
    servers: list[Server] = []
    warnings: list[str] = []
    for service in services:
        started = Command(("container", service.where), {}, "")
        found = in_container(service.container, started, service.replicas)
        if found:
            refuse_gaps(service)
            warnings += service.warnings
        servers += found
    if not servers:
        raise UsageError(
            "nothing to adopt: no container of this file runs a server that is known here (found: "
            + (", ".join(service.container.image for service in services) or "none")
            + ")"
        )
    adoption = adopt_servers(servers)
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
    prefixes = ("VLLM_", "CUDA_", "NCCL_", "OMP_", "HF_", "MODELSCOPE_", "PYTORCH_")
    taken = {name: value for name, value in env.items() if name.startswith(prefixes)}
    return Command(tuple(argv), taken, directory)


def adopt_servers(servers: Sequence[Server]) -> Adoption:
    """What some servers amount to together."""
    found = Findings()
    for server in servers:
        _read_server(server, found)
    host = found.doors[0][0] or _DEFAULT_HOSTS.get(servers[0].engine, "127.0.0.1")
    return Adoption(
        document={"gateway": gateway(found, host), "models": found.models},
        keys=tuple(dict.fromkeys(found.keys)),
        warnings=tuple(found.warnings),
        servers=tuple(servers),
        host=host,
    )


def _adopt(commands: Sequence[Command]) -> Adoption:
    servers = find_servers(commands)
    if not servers:
        seen = ", ".join(sorted({c.argv[0] for c in commands})[:8]) or "no command"
        raise UsageError(
            f"nothing to adopt: no vLLM or llama.cpp server is started (found: {seen})",
            hint="for any other server write `engine: command` with its command: `yibu init`",
        )
    return adopt_servers(servers)


def _read_server(server: Server, found: Findings) -> None:
    command, engine = server.command, server.engine
    flags = read_flags(server.words)
    env = dict(command.env)
    source = _text(flags, "model", "m", "model_path", "hf_repo", "hf")
    name, *aliases = _names(flags, source, engine)
    model: dict[str, Any] = {"name": name}
    if aliases:
        model["aliases"] = aliases
    lora = _adapters(flags.pop("lora_modules", None), env, command.directory, found)
    if source:
        model["source"] = _source(source, engine, env, command.directory, found)
    else:
        found.warn(f"{model['name']}: the command names no model; fill in `source:`")
    model["engine"] = engine
    _door(flags, env, model["name"], found)
    for flag in [one for one in _LEFT_OUT if one in flags] if engine == "vllm" else []:
        del flags[flag]
        found.warn(f"{name}: --{flag.replace('_', '-')} is left out: {_LEFT_OUT[flag]}")
    if server.replicas > 1:
        model["replicas"] = server.replicas
    gpus = _gpus(env.pop("CUDA_VISIBLE_DEVICES", None), env)
    if gpus is not None:
        model["gpus"] = gpus
    options = {_OPTION_NAMES.get(name, name): value for name, value in flags.items()}
    if lora:
        options.pop("enable_lora", None)
        options["lora"] = lora
    if options:
        model["options"] = options
    if kept := _environment(env, model["name"], found):
        model["env"] = kept
    _warn_of_command(command, options, env, found)
    found.models.append(model)


def _text(flags: dict[str, Any], *names: str) -> str:
    """Take the first of some flags that is there, and forget the others."""
    values = [flags.pop(name) for name in names if name in flags]
    return str(values[0]) if values and values[0] is not True else ""


def _names(flags: dict[str, Any], source: str, engine: str) -> list[str]:
    """What clients may ask for: the served names, or as vLLM has it the model as it was typed."""
    names: list[str] = []
    for flag in ("served_model_name", "alias", "a"):
        given = flags.pop(flag, [])
        names += [str(one) for one in (given if isinstance(given, list) else [given])]
    if not names and engine == "vllm":
        names = [source] if source else []
    name = (
        names[0]
        if names and _served_as(names[0], source)
        else name_of(names[0] if names else source)
    )
    return list(dict.fromkeys((name, *names)))


def _served_as(name: str, source: str) -> bool:
    """Whether a name can stand as the model's own: not a path, nor the whole id of a hub."""
    return name != source and _NAME.fullmatch(name) is not None


def _adapters(
    given: Any, env: Mapping[str, str], directory: str, found: Findings
) -> dict[str, str]:
    """``--lora-modules name=path {"name": …, "path": …}`` as names and sources."""
    adapters = {}
    for module in given if isinstance(given, list) else [given] if given else []:
        if isinstance(module, dict):
            name, path = str(module.get("name", "")), str(module.get("path", ""))
        else:
            name, _, path = str(module).partition("=")
        if name and path:
            adapters[name] = _source(path, "vllm", dict(env), directory, found)
        else:
            found.warn(f"--lora-modules {module}: no name=path; fill in options.lora")
    return adapters


def _source(source: str, engine: str, env: dict[str, str], directory: str, found: Findings) -> str:
    """A path as a path; ``ORG/NAME`` with the hub that the script would have used."""
    modelscope = env.pop("VLLM_USE_MODELSCOPE", "").lower() in ("true", "1")
    is_id = re.fullmatch(r"[\w.-]+/[\w.-]+", source) and not source.startswith(".")
    if is_id and not (engine == "llama.cpp" and source.endswith(".gguf")):
        hub = "modelscope" if modelscope else "hf"
        found.warn(f"{source} is read as a model of {hub}; write ./{source} if it is a directory")
        return f"{hub}:{source}"
    if source.startswith(("/", "~")):
        return source
    joined = os.path.normpath(os.path.join(directory, source))  # noqa: PTH118 - another's path
    return joined if joined.startswith(("/", "~", "..")) else f"./{joined}"


def _door(flags: dict[str, Any], env: dict[str, str], name: str, found: Findings) -> None:
    """Host, port and keys belong to the gateway."""
    host, port = flags.pop("host", None), flags.pop("port", None)
    keys = [str(key) for key in flags.pop("api_key", []) if key is not True]
    if keys:
        found.warn(
            f"{name}: its API key stood on the command line, where every user of the machine could"
            " read it; it goes to a key file, and should be changed"
        )
    if inherited := env.pop("VLLM_API_KEY", ""):
        keys.append(inherited)
    found.keys += keys
    found.doors.append((host, port if isinstance(port, int) else None))
    if "api_key_file" in flags:
        found.warn(f"{name}: the keys in {flags.pop('api_key_file')} are not read; name them anew")


def _gpus(value: str | None, env: dict[str, str]) -> list[int] | None:
    if value is None:
        return None
    parts = [part.strip() for part in value.split(",") if part.strip()]
    if all(part.isdigit() for part in parts):
        return [int(part) for part in parts]
    env["CUDA_VISIBLE_DEVICES"] = value  # by UUID, which yibu's `gpus:` cannot say
    return None


def _environment(env: Mapping[str, str], name: str, found: Findings) -> dict[str, str]:
    kept = {}
    for variable, value in env.items():
        if variable in _SHELL_VARIABLES and not value.startswith("GPU-"):
            continue
        if _SECRET.search(variable):
            kept[variable] = f"${{env.{variable}}}"
            found.warn(f"{name}: {variable} is a secret; set it in yibu's environment instead")
        else:
            kept[variable] = value
    return kept


def _warn_of_command(
    command: Command, options: Mapping[str, Any], env: Mapping[str, str], found: Findings
) -> None:
    if options.get("trust_remote_code"):
        found.warn("--trust-remote-code runs Python that comes with the model: keep it only if"
                   " you know its authors")  # fmt: skip
    if env.get("VLLM_SERVER_DEV_MODE") == "1":
        found.warn("VLLM_SERVER_DEV_MODE=1 opens administrative paths of vLLM's: leave it out")
    if {"docker", "podman", "nerdctl", "container"} & set(command.wrappers):
        found.warn("it ran in a container with a vLLM of its own; yibu runs the version that it has"
                   " pinned (another: yibu engine install vllm-cuda --version V), and none of the"
                   " container's other options is carried over")  # fmt: skip
    if "sudo" in command.wrappers:
        found.warn("it ran as another user through sudo; yibu runs engines as the user it runs as")
    if "nohup" in command.wrappers or command.background:
        found.warn("nothing restarted it after a crash or a reboot; `yibu up -d` watches over it")
    if command.output and command.output != "/dev/null":
        found.warn(f"its log {command.output} grew without bound; yibu rotates: `yibu logs`")
