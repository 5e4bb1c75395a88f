"""``yibu adopt``: from a start script, a command line or a running process to a yibu.yaml.

Pure: a script is read as text and nothing of it is run. Keys found in it are taken out of what is
printed; whoever calls writes them to a key file.
"""

from __future__ import annotations

import json
import os.path
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from yibu.adopt.shell import Command, read_commands
from yibu.errors import UsageError

_PUBLIC_HOSTS = frozenset({"0.0.0.0", "::", "[::]"})  # noqa: S104 - looked for, not bound to
_VLLM_MODULES = frozenset({"vllm.entrypoints.openai.api_server", "vllm.entrypoints.api_server"})
_SECRET = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD)(_|$)")
_LLAMA_PROGRAMS = frozenset({"llama-server", "llama.cpp-server"})
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
}
_SEVERAL_VALUES = frozenset({"served_model_name", "api_key"})


@dataclass(frozen=True, slots=True)
class Adoption:
    """What a script amounts to."""

    document: Mapping[str, Any]
    """yibu.yaml as plain data."""
    keys: tuple[str, ...] = field(repr=False)
    """API keys that stood in the script, for a key file of mode 0600."""
    warnings: tuple[str, ...]
    """What was unsafe, or will differ."""

    def to_yaml(self) -> str:
        return yaml.safe_dump(dict(self.document), sort_keys=False, allow_unicode=True)


def adopt_script(text: str, env: Mapping[str, str] | None = None) -> Adoption:
    """Read a script or a command line.

    Args:
        text: The script.
        env: Variables set before it starts.

    Raises:
        UsageError: It starts no server that is known here.
    """
    return _adopt(read_commands(text, env))


def adopt_process(argv: Sequence[str], env: Mapping[str, str], directory: str = "") -> Adoption:
    """Read a running process's arguments, environment and working directory.

    Of the environment only variables about the engine, the GPUs and the hubs are taken.

    Raises:
        UsageError: It is no server that is known here.
    """
    prefixes = ("VLLM_", "CUDA_", "NCCL_", "OMP_", "HF_", "MODELSCOPE_", "PYTORCH_")
    taken = {name: value for name, value in env.items() if name.startswith(prefixes)}
    return _adopt([Command(tuple(argv), taken, directory)])


@dataclass(slots=True)
class _Findings:
    """What is gathered over all servers of a script."""

    models: list[dict[str, Any]] = field(default_factory=list)
    doors: list[tuple[str | None, int | None]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def warn(self, text: str) -> None:
        if text not in self.warnings:
            self.warnings.append(text)


def _adopt(commands: Sequence[Command]) -> Adoption:
    found = _Findings()
    for command in commands:
        if (server := _server(command)) is not None:
            _read_server(command, *server, found)
    if not found.models:
        seen = ", ".join(sorted({c.argv[0] for c in commands})[:8]) or "no command"
        raise UsageError(
            f"nothing to adopt: no vLLM or llama.cpp server is started (found: {seen})",
            hint="for any other server write `engine: command` with its command: `yibu init`",
        )
    document = {"gateway": _gateway(found), "models": found.models}
    return Adoption(document, tuple(dict.fromkeys(found.keys)), tuple(found.warnings))


def _server(command: Command) -> tuple[str, list[str]] | None:
    """The engine that a command starts and that engine's own arguments; None for any other."""
    program = os.path.basename(command.argv[0])  # noqa: PTH119 - another machine's path
    rest = list(command.argv[1:])
    if program == "vllm" and rest[:1] == ["serve"]:
        return "vllm", _positional_model(rest[1:])
    if program in _LLAMA_PROGRAMS:
        return "llama.cpp", rest
    if re.fullmatch(r"python[\d.]*", program):
        while rest and rest[0].startswith("-") and rest[0] != "-m":
            rest = rest[1:]  # -u and the like
        if len(rest) >= 2 and rest[0] == "-m" and rest[1] in _VLLM_MODULES:
            return "vllm", rest[2:]
        if rest and rest[0].endswith(("vllm/entrypoints/openai/api_server.py", "/vllm")):
            arguments = rest[1:]
            if arguments[:1] == ["serve"]:
                return "vllm", _positional_model(arguments[1:])
            return "vllm", arguments
    return None


def _positional_model(words: list[str]) -> list[str]:
    if words and not words[0].startswith("-"):
        return ["--model", *words]
    return words


def _read_server(command: Command, engine: str, words: list[str], found: _Findings) -> None:
    flags = _flags(words)
    env = dict(command.env)
    source = _text(flags, "model", "m", "model_path", "hf_repo", "hf")
    names = flags.pop("served_model_name", None) or flags.pop("alias", None) or flags.pop("a", None)
    names = (
        [str(name) for name in names] if isinstance(names, list) else [str(names)] if names else []
    )
    model: dict[str, Any] = {"name": names[0] if names else _name_of(source)}
    if len(names) > 1:
        found.warn(f"{model['name']}: its other names ({', '.join(names[1:])}) are not kept")
    if source:
        model["source"] = _source(source, engine, env, command.directory, found)
    else:
        found.warn(f"{model['name']}: the command names no model; fill in `source:`")
    model["engine"] = engine
    _door(flags, env, model["name"], found)
    gpus = _gpus(env.pop("CUDA_VISIBLE_DEVICES", None), env)
    if gpus is not None:
        model["gpus"] = gpus
    options = {_OPTION_NAMES.get(name, name): value for name, value in flags.items()}
    if options:
        model["options"] = options
    if kept := _environment(env, model["name"], found):
        model["env"] = kept
    _warn_of_command(command, options, env, found)
    found.models.append(model)


def _flags(words: Sequence[str]) -> dict[str, Any]:
    """``--a-b 1 --c --d=x`` as {a_b: 1, c: True, d: "x"}; a flag given twice becomes a list."""
    flags: dict[str, list[Any]] = {}
    name: str | None = None
    for word in words:
        if word.startswith("-") and not re.fullmatch(r"-\d+(\.\d+)?", word):
            flag, equals, value = word.lstrip("-").partition("=")
            name = flag.replace("-", "_")
            flags.setdefault(name, [])
            if equals:
                flags[name].append(_value(name, value))
        elif name is not None:
            flags[name].append(_value(name, word))
    result: dict[str, Any] = {}
    for flag, values in flags.items():
        if flag in _SEVERAL_VALUES:
            result[flag] = values
        else:
            result[flag] = True if not values else values[0] if len(values) == 1 else values
    return result


def _value(name: str, text: str) -> Any:
    """Numbers and JSON as such; names, paths and keys stay text."""
    if name in {*_SEVERAL_VALUES, "model", "host"}:
        return text
    if re.fullmatch(r"-?\d+", text):
        return int(text)
    if re.fullmatch(r"-?\d*\.\d+", text):
        return float(text)
    if text[:1] in "{[":
        try:
            return json.loads(text)
        except ValueError:
            return text
    return text


def _text(flags: dict[str, Any], *names: str) -> str:
    """Take the first of some flags that is there, and forget the others."""
    values = [flags.pop(name) for name in names if name in flags]
    return str(values[0]) if values and values[0] is not True else ""


def _name_of(source: str) -> str:
    base = source.rstrip("/").rsplit("/", 1)[-1].removesuffix(".gguf")
    return re.sub(r"[^\w.-]+", "-", base) or "model"


def _source(source: str, engine: str, env: dict[str, str], directory: str, found: _Findings) -> str:
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


def _door(flags: dict[str, Any], env: dict[str, str], name: str, found: _Findings) -> None:
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


def _environment(env: Mapping[str, str], name: str, found: _Findings) -> dict[str, str]:
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
    command: Command, options: Mapping[str, Any], env: Mapping[str, str], found: _Findings
) -> None:
    if options.get("trust_remote_code"):
        found.warn("--trust-remote-code runs Python that comes with the model: keep it only if"
                   " you know its authors")  # fmt: skip
    if env.get("VLLM_SERVER_DEV_MODE") == "1":
        found.warn("VLLM_SERVER_DEV_MODE=1 opens administrative paths of vLLM's: leave it out")
    if "sudo" in command.wrappers:
        found.warn("it ran as another user through sudo; yibu runs engines as the user it runs as")
    if "nohup" in command.wrappers or command.background:
        found.warn("nothing restarted it after a crash or a reboot; `yibu up -d` watches over it")
    if command.output and command.output != "/dev/null":
        found.warn(f"its log {command.output} grew without bound; yibu rotates: `yibu logs`")


def _gateway(found: _Findings) -> dict[str, Any]:
    host, port = found.doors[0]
    gateway: dict[str, Any] = {"host": host or "0.0.0.0", "port": port or 8000}  # noqa: S104 - vLLM's own default, judged below
    if found.models[0]["engine"] == "llama.cpp":
        gateway = {"host": host or "127.0.0.1", "port": port or 8080}
    if gateway["host"] in _PUBLIC_HOSTS and not found.keys:
        gateway["host"] = "127.0.0.1"
        found.warn(
            "it listened on every interface without a key: anyone on the network could use it."
            " The gateway stays on loopback until a key is set (YIBU_API_KEYS, or a key file)"
        )
    for model, (_, other) in zip(found.models[1:], found.doors[1:], strict=True):
        if other is not None and other != gateway["port"]:
            found.warn(
                f"{model['name']} was at port {other}; it is now asked for by its name at port"
                f" {gateway['port']}"
            )
    return gateway
