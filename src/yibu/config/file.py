"""From bytes to Config: parse yibu.yaml, then apply environment and flags."""

from __future__ import annotations

import difflib
import re
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from yibu.config import document
from yibu.config.document import Document, Fault, FaultyFileError, Location
from yibu.config.keys import keys_of_environment
from yibu.config.names import plain_name
from yibu.config.schema import FileSchema, GatewaySchema, ModelSchema
from yibu.config.types import Autoscale, Config, GatewayConfig, Group, Limits, ModelConfig, Origin
from yibu.config.values import split_keep, split_sleep
from yibu.errors import ConfigError
from yibu.messages import joined, tr
from yibu.messages.validation import complaint, type_name
from yibu.paths import at_home

DEFAULT_FILE = "yibu.yaml"
_SHOWN = 60
"""Characters of a wrong value that a message repeats."""
_GATEWAY_TEXTS = frozenset({"host", "api_key_file", "api_keys", "cors_origins", "hosts"})
_MODEL_TEXTS = frozenset({"name", "source", "engine", "aliases", "flags", "env"})
_MAPPINGS = frozenset({"dict_type", "model_type", "model_attributes_type"})
_KEY_AND_VALUE = re.compile(r"(\w+)\s*[:\uff1a=](?!//)")
"""A line that was meant as a key with its value, and was read as text."""
_SECRET = frozenset({"api_keys", "env"})


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
    schema = parse(content(path), str(path), env=env) if path else FileSchema()
    return resolve(schema, path, env=env, flags=flags)


def resolve(
    schema: FileSchema,
    path: Path | None,
    *,
    env: Mapping[str, str],
    flags: Mapping[str, Any] | None = None,
) -> Config:
    """Apply the environment and flags to a parsed file; as :func:`load`."""
    given: dict[str, tuple[Any, Origin]] = {
        name: (getattr(schema.gateway, name), "file") for name in schema.gateway.model_fields_set
    }
    given |= {name: (value, "environment") for name, value in _from_environment(env).items()}
    given |= {name: (value, "flag") for name, value in (flags or {}).items() if value is not None}
    if path is not None and given.get("api_key_file", (None, ""))[1] == "file":
        beside = path.absolute().parent / at_home(given["api_key_file"][0] or "")
        given["api_key_file"] = (str(beside), "file")
    return Config(
        gateway=_gateway(schema.gateway, {name: value for name, (value, _) in given.items()}, env),
        models=tuple(_model(model, schema.gateway.keep, path) for model in schema.models),
        path=path.absolute() if path else None,
        no_models="models" in schema.model_fields_set and not schema.models,
        origins={f"gateway.{name}": origin for name, (_, origin) in given.items()},
    )


def find(explicit: Path | None, directory: Path) -> Path | None:
    """The file to use: the one that was named, else ``yibu.yaml`` in ``directory``, else None.

    Raises:
        ConfigError: the named file does not exist.
    """
    if explicit is None:
        candidate = directory / DEFAULT_FILE
        return candidate if candidate.exists() or candidate.is_symlink() else None
    if not explicit.exists():
        raise ConfigError(
            "The configuration file {explicit} does not exist.",
            explicit=explicit,
            hint="Write one with: yibu init",
        )
    return explicit


def content(path: Path) -> bytes:
    """The file's content. Raises ConfigError where it cannot be read."""
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            what = tr("a directory") if stat.S_ISDIR(mode) else tr("a pipe or a device")
            raise ConfigError(
                "The configuration {path} is {what}; a file was expected.", path=path, what=what
            )
        with path.open("rb") as file:
            return file.read(document.MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            "The configuration file {path} cannot be read: {strerror}.",
            path=path,
            strerror=error.strerror,
            hint="See whose it is: ls -l {path}",
        ) from error


def parse(data: bytes, name: str, *, env: Mapping[str, str]) -> FileSchema:
    """Parse and check one file's bytes; ``name`` stands in messages.

    Raises:
        ConfigError: with every fault found, one a line, each with its place.
    """
    found = document.read(document.decode(data, name), name, env, _is_text, _is_free)
    tree = {} if found.value is None else found.value
    if not isinstance(tree, dict):
        raise ConfigError(
            "{name} holds {kind} where the keys gateway and models are expected.",
            name=name,
            kind=type_name(tree),
            hint="See an example with: yibu init --print",
        )
    # As in Compose files: what anchors stand in.
    tree = {key: value for key, value in tree.items() if not key.startswith("x-")}
    faults: list[tuple[Location, str]] = [
        (at, tr("{place}: {what}", place=_dotted(at), what=text))
        for at, text in found.faults.items()
    ]
    schema = FileSchema()
    try:
        schema = FileSchema.model_validate(_without_empty(tree))
    except ValidationError as error:
        faults += [
            (at, _fault(alternatives, at))
            for at, alternatives in _by_place(error, tree).items()
            # What an unset variable would have said cannot be judged.
            if not any(at[: len(bad)] == bad for bad in found.faults)
        ]
    else:
        faults += _twins(schema.models)
    if faults:
        raise _refusal(name, faults, found)
    return schema


def _refusal(name: str, faults: Sequence[tuple[Location, str]], found: Document) -> ConfigError:
    placed = [Fault(*at, text) for at, text in sorted((found.place(p), text) for p, text in faults)]
    if found.unset:
        hint = tr(
            "Set what is missing: export {unset}",
            unset=" ".join(f"{name}=…" for name in found.unset),
        )
    else:
        hint = tr("Every key: yibu config schema")
    head = tr("{name} cannot be used:", name=name)
    return FaultyFileError(joined("\n  ", [head, *map(str, placed)]), placed, hint=hint)


def _is_text(at: Location) -> bool:
    """Whether the schema has a text there, so that ``4``, ``no`` and ``22:22`` are kept as written."""
    match at:
        case ("gateway", str(key), *_):
            return key in _GATEWAY_TEXTS
        case ("models", int(), "options", "command", *_):
            return True
        case ("models", int(), str(key), *_):
            return key in _MODEL_TEXTS
    return False


def _is_free(at: Location) -> bool:
    """Whether any text may stand there, because another program reads it."""
    return at[:1] == ("models",) and (at[2:3] == ("flags",) or at[2:4] == ("options", "command"))


def _by_place(error: ValidationError, tree: Any) -> dict[Location, list[Any]]:
    """pydantic's faults by their place in the file: a union has one for each of its alternatives."""
    placed: dict[Location, list[Any]] = {}
    for fault in error.errors():
        placed.setdefault(_written(fault, tree), []).append(fault)
    # Where a fault lies deeper, the value has the form of the alternative that names that one.
    inner = {at[:length] for at in placed for length in range(len(at))}
    return {at: faults for at, faults in placed.items() if at not in inner}


def _written(fault: Any, tree: Any) -> Location:
    """Where a fault of pydantic's is in the file: without the alternatives that it names in between."""
    place: list[str | int] = []
    for part in fault["loc"]:
        within = (
            part in tree if isinstance(tree, dict) else isinstance(tree, list) and part != "[key]"
        )
        if within and (isinstance(tree, dict) or isinstance(part, int)):
            tree = tree[part]
            place.append(part)
    return (*place, fault["loc"][-1]) if fault["type"] == "missing" else tuple(place)


def _without_empty(tree: dict[str, Any]) -> dict[str, Any]:
    """The tree without known keys that have no value: they count as left out."""

    def kept(value: Any, schema: type[BaseModel]) -> Any:
        if not isinstance(value, dict):
            return value
        known = schema.model_fields
        return {key: item for key, item in value.items() if item is not None or key not in known}

    tree = kept(tree, FileSchema)
    if "gateway" in tree:
        tree["gateway"] = kept(tree["gateway"], GatewaySchema)
    if isinstance(models := tree.get("models"), list):
        tree["models"] = [kept(model, ModelSchema) for model in models]
    return tree


def _dotted(place: Sequence[int | str]) -> str:
    return ".".join(str(part) for part in place)


def _fault(alternatives: Sequence[Any], at: Location) -> str:
    """One line for pydantic's faults of one value; an unknown key names the nearest known one."""
    place, fault = _dotted(at), alternatives[0]
    if fault["type"] == "missing":
        return tr("{place}: is missing", place=place)
    if fault["type"] != "extra_forbidden":
        given = fault["input"]
        types = {each["type"] for each in alternatives}
        key = _KEY_AND_VALUE.match(given) if isinstance(given, str) else None
        if key is not None and types & _MAPPINGS:
            return tr("{place}: write {key}: and then a space", place=place, key=key[1])
        # What holds further values may hold a secret somewhere.
        values = given if isinstance(given, list) else ()
        whole = isinstance(given, dict) or any(isinstance(value, dict | list) for value in values)
        shown = type_name(given) if whole else "" if _SECRET.intersection(at) else repr(given)
        shown = shown if len(shown) <= _SHOWN else shown[: _SHOWN - 1] + "…"
        what = complaint(alternatives, shown)
        if "list_type" in types:
            entry = "- name: …" if at == ("models",) else "- …"
            what = tr("{what}; begin each entry with a dash: {entry}", what=what, entry=entry)
        return tr("{place}: {what}", place=place, what=what)
    if key := _KEY_AND_VALUE.match(str(at[-1])):  # {port:8000}
        return tr("{place}: write {key}: and then a space", place=_dotted(at[:-1]), key=key[1])
    known = list(_schema_at(at).model_fields)
    nearest = difflib.get_close_matches(str(at[-1]), known, n=1)
    if nearest:
        return tr("{place}: unknown key; did you mean {nearest}?", place=place, nearest=nearest[0])
    return tr("{place}: unknown key; known here are {known}", place=place, known=", ".join(known))


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


def _twins(models: Sequence[ModelSchema]) -> list[tuple[Location, str]]:
    """Names that two models claim, with the place of the second; case makes no difference."""
    faults: list[tuple[Location, str]] = []
    owners: dict[str, tuple[int, str]] = {}
    for number, model in enumerate(models):
        for name in (model.name, *model.aliases):
            owner, other = owners.setdefault(plain_name(name), (number, name))
            if owner == number:
                continue
            what = (
                tr("two models named {name!r}", name=name)
                if other == name
                else tr(
                    "two models named {name!r} and {other!r}, alike but for case",
                    name=name,
                    other=other,
                )
            )
            what = tr("{what}; rename one, or use replicas: 2 for two of the same", what=what)
            faults.append((("models", number, "name"), f"models.{number}: {what}"))
    return faults


def _from_environment(env: Mapping[str, str]) -> dict[str, Any]:
    given: dict[str, Any] = {}
    if host := env.get("YIBU_HOST"):
        given["host"] = host
    if port := env.get("YIBU_PORT"):
        if not port.isdecimal() or int(port) > 65535:
            raise ConfigError(
                "YIBU_PORT is {port!r}; a port is a number from 0 to 65535.", port=port
            )
        given["port"] = int(port)
    if key_file := env.get("YIBU_API_KEY_FILE"):
        given["api_key_file"] = key_file
    return given


def _gateway(
    schema: GatewaySchema, given: Mapping[str, Any], env: Mapping[str, str]
) -> GatewayConfig:
    values = schema.model_dump() | dict(given)
    del values["keep"]  # the models'
    keys = (*map(str.strip, values["api_keys"]), *keys_of_environment(env))
    key_file = values["api_key_file"]
    values |= {
        "api_keys": tuple(dict.fromkeys(keys)),
        "api_key_file": at_home(key_file).absolute() if key_file else None,
        "cors_origins": tuple(values["cors_origins"]),
        "hosts": tuple(values["hosts"]),
    }
    return GatewayConfig(**values)


def _model(schema: ModelSchema, keep: str, path: Path | None) -> ModelConfig:
    values = {name: getattr(schema, name) for name in ModelSchema.model_fields}
    values["flags"] = tuple(schema.flags)
    values["aliases"] = tuple(schema.aliases)
    values["limits"] = Limits(**schema.limits.model_dump())
    values["gpus"] = tuple(schema.gpus) if schema.gpus is not None else None
    group = schema.group
    if group is not None:
        values["group"] = Group(
            **({"name": group} if isinstance(group, str) else group.model_dump())
        )
    scale = schema.autoscale
    values["autoscale"] = None if scale is None else Autoscale(**scale.model_dump())
    values["keep"], seconds = split_keep(schema.keep or ("idle" if schema.group else keep))
    if seconds is not None:
        values["idle"] = seconds
    values["sleep"], seconds = split_sleep(schema.sleep)
    if seconds is not None:
        values["asleep"] = seconds
    file = path.absolute() if path else None
    return ModelConfig(**values, file=file, directory=file.parent if file else None)
