"""From bytes to Config: read yibu.yaml, fill in the environment, lay flags over it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from yibu.config.schema import FileSchema, GatewaySchema, ModelSchema
from yibu.config.types import Config, GatewayConfig, ModelConfig, Origin
from yibu.errors import ConfigError

DEFAULT_FILE = "yibu.yaml"
_MAX_FILE_BYTES = 1024 * 1024
_REFERENCE = re.compile(r"\$\{env\.([^}]*)\}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def load(
    path: Path | None,
    *,
    env: Mapping[str, str],
    flags: Mapping[str, Any] | None = None,
) -> Config:
    """Read one file (None: none) and resolve it: flag over environment over file over default.

    ``flags`` are gateway settings by name; those that are None were not given. The environment
    has ``YIBU_HOST``, ``YIBU_PORT`` and ``YIBU_API_KEY_FILE``; ``YIBU_API_KEYS`` is added to the
    keys of the file, comma-separated.

    Raises:
        ConfigError: the file is missing, is not YAML, or holds something that cannot be used.
    """
    schema = parse(path.read_bytes(), str(path), env=env) if path else FileSchema()
    return resolve(schema, path, env=env, flags=flags)


def resolve(
    schema: FileSchema,
    path: Path | None,
    *,
    env: Mapping[str, str],
    flags: Mapping[str, Any] | None = None,
) -> Config:
    """Lay the environment and the flags over a file that was parsed; as :func:`load`."""
    given: dict[str, tuple[Any, Origin]] = {
        name: (getattr(schema.gateway, name), "file") for name in schema.gateway.model_fields_set
    }
    given |= {name: (value, "environment") for name, value in _from_environment(env).items()}
    given |= {name: (value, "flag") for name, value in (flags or {}).items() if value is not None}
    if path is not None and given.get("api_key_file", (None, ""))[1] == "file":
        beside = path.absolute().parent / Path(given["api_key_file"][0] or "").expanduser()
        given["api_key_file"] = (str(beside), "file")
    return Config(
        gateway=_gateway(schema.gateway, {name: value for name, (value, _) in given.items()}, env),
        models=tuple(_model(model, path) for model in schema.models),
        path=path.absolute() if path else None,
        origins={f"gateway.{name}": origin for name, (_, origin) in given.items()},
    )


def find(explicit: Path | None, directory: Path) -> Path | None:
    """The file to use: the one that was named, else ``yibu.yaml`` in ``directory``, else None.

    Raises:
        ConfigError: the named file does not exist.
    """
    if explicit is None:
        candidate = directory / DEFAULT_FILE
        return candidate if candidate.is_file() else None
    if not explicit.is_file():
        raise ConfigError(
            f"The configuration file {explicit} does not exist.",
            hint="Write one with: yibu init",
        )
    return explicit


def parse(text: bytes, name: str, *, env: Mapping[str, str]) -> FileSchema:
    """Parse and check one file's bytes; ``name`` stands in messages.

    Raises:
        ConfigError: with every fault found, one a line, each with its place.
    """
    if len(text) > _MAX_FILE_BYTES:
        raise ConfigError(f"{name} has {len(text)} bytes; a configuration has at most 1 MiB.")
    try:
        tree = yaml.load(text, Loader=_StrictLoader)  # noqa: S506, a SafeLoader underneath
    except yaml.YAMLError as error:
        raise ConfigError(f"{name} is not valid YAML: {_yaml_fault(error)}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{name} is not UTF-8 text: {error.reason}.") from error
    if tree is None:
        tree = {}
    if not isinstance(tree, dict):
        raise ConfigError(
            f"{name} holds a {type(tree).__name__} where the keys gateway and models are expected.",
            hint="See an example with: yibu init --print",
        )
    try:
        schema = FileSchema.model_validate(_interpolate(tree, env, name))
    except ValidationError as error:
        faults = "\n".join(f"  {_fault(fault)}" for fault in error.errors())
        raise ConfigError(
            f"{name} cannot be used:\n{faults}", hint="Every key: yibu config schema"
        ) from error
    _refuse_twins(schema.models, name)
    return schema


class _StrictLoader(yaml.SafeLoader):
    """YAML's safe loader, refusing a key that stands twice in one mapping."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str) and key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands twice", key_node.start_mark
                )
            if isinstance(key, str):
                seen.add(key)
        return super().construct_mapping(node, deep=deep)


def _yaml_fault(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error)
    if mark is None:
        return f"{problem}."
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}."


def _interpolate(value: Any, env: Mapping[str, str], name: str) -> Any:
    """Replace ``${env.NAME}`` in every string of the tree."""
    if isinstance(value, dict):
        return {key: _interpolate(item, env, name) for key, item in value.items()}
    if isinstance(value, list):
        return [_interpolate(item, env, name) for item in value]
    if isinstance(value, str):
        return _REFERENCE.sub(lambda match: _variable(match[1], env, name), value)
    return value


def _variable(variable: str, env: Mapping[str, str], name: str) -> str:
    if not _VARIABLE.fullmatch(variable):
        raise ConfigError(
            f"{name} refers to ${{env.{variable}}}, and {variable!r} is no variable's name.",
            hint="Write it as ${env.MY_KEY}.",
        )
    if variable not in env:
        raise ConfigError(
            f"{name} needs the environment variable {variable}, which is not set.",
            hint=f"Set it first: export {variable}=…",
        )
    return env[variable]


def _fault(fault: Any) -> str:
    """One line for one of pydantic's faults; an unknown key names the nearest known one."""
    place = ".".join(str(part) for part in fault["loc"])
    if fault["type"] != "extra_forbidden":
        return f"{place}: {fault['msg'].removeprefix('Value error, ')}"
    known = list(_schema_at(fault["loc"]).model_fields)
    nearest = difflib.get_close_matches(str(fault["loc"][-1]), known, n=1)
    if nearest:
        return f"{place}: unknown key; did you mean {nearest[0]}?"
    return f"{place}: unknown key; known here are {', '.join(known)}"


def _schema_at(location: Sequence[int | str]) -> type[BaseModel]:
    """The schema that holds the last key of ``location``."""
    schema: type[BaseModel] = FileSchema
    for part in location[:-1]:
        if isinstance(part, int):
            continue
        annotation = schema.model_fields[part].annotation
        for candidate in (annotation, *get_args(annotation)):
            if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                schema = candidate
    return schema


def _refuse_twins(models: Sequence[ModelSchema], name: str) -> None:
    names = [claimed for model in models for claimed in dict.fromkeys((model.name, *model.aliases))]
    for model in names:
        if names.count(model) > 1:
            raise ConfigError(
                f"{name} has two models named {model!r}; clients could reach only one.",
                hint="Give one of them another name, or use replicas: 2 for two of the same.",
            )


def _from_environment(env: Mapping[str, str]) -> dict[str, Any]:
    given: dict[str, Any] = {}
    if host := env.get("YIBU_HOST"):
        given["host"] = host
    if port := env.get("YIBU_PORT"):
        if not port.isdecimal() or int(port) > 65535:
            raise ConfigError(f"YIBU_PORT is {port!r}; a port is a number from 0 to 65535.")
        given["port"] = int(port)
    if key_file := env.get("YIBU_API_KEY_FILE"):
        given["api_key_file"] = key_file
    return given


def _gateway(
    schema: GatewaySchema, given: Mapping[str, Any], env: Mapping[str, str]
) -> GatewayConfig:
    values = schema.model_dump() | dict(given)
    keys = [*values["api_keys"], *env.get("YIBU_API_KEYS", "").split(",")]
    key_file = values["api_key_file"]
    return GatewayConfig(
        host=values["host"],
        port=values["port"],
        api_keys=tuple(dict.fromkeys(key.strip() for key in keys if key.strip())),
        api_key_file=Path(key_file).expanduser().absolute() if key_file else None,
        max_body_bytes=values["max_body"],
        max_upload_bytes=values["max_upload"],
        cors_origins=tuple(values["cors_origins"]),
        hosts=tuple(values["hosts"]),
        request_timeout=values["request_timeout"],
        drain_timeout=values["drain_timeout"],
    )


def _model(schema: ModelSchema, path: Path | None) -> ModelConfig:
    values = {name: getattr(schema, name) for name in ModelSchema.model_fields}
    values["flags"] = tuple(schema.flags)
    values["aliases"] = tuple(schema.aliases)
    values["gpus"] = tuple(schema.gpus) if schema.gpus is not None else None
    return ModelConfig(**values, directory=path.absolute().parent if path else None)
