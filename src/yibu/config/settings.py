"""The gateway's settings in a node: values, origins, and changes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from yibu.config.keys import digest_of, keys_of_environment, load_keys, read_key_file
from yibu.config.types import Config, GatewayConfig, Origin
from yibu.messages import tr

Applied = Literal["live", "address", "models"]

APPLIED: Mapping[str, Applied] = {
    "host": "address",
    "port": "address",
    "funasr_port": "address",
    "api_keys": "live",
    "api_key_file": "live",
    "max_body": "live",
    "max_upload": "live",
    "cors_origins": "live",
    "hosts": "live",
    "request_timeout": "live",
    "drain_timeout": "live",
    "max_connections": "live",
    "idle_timeout": "live",
    "max_live_audio": "live",
    "log_format": "live",
    "keep": "models",
}
"""How a running node applies a change of a setting, by its name in the file. ``live``: at once.
``address``: at once too, but clients have to use another address. ``models``: it is the default of the models' own setting."""

_KEYS = frozenset({"api_keys", "api_key_file"})
FIRM: frozenset[Origin] = frozenset({"flag", "environment"})
"""Origins that win over a file."""


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """The settings of a node's gateway, with digests instead of keys: they may be shown and stored."""

    gateway: GatewayConfig = field(default_factory=GatewayConfig)
    """Its settings without keys."""
    keys: Mapping[Origin, tuple[str, ...]] = field(default_factory=dict)
    """Digests of keys, by origin."""
    origins: Mapping[str, Origin] = field(default_factory=dict)
    """Origins of the other settings by their names in the file, unless they are defaults."""
    file: str | None = None

    @property
    def digests(self) -> tuple[str, ...]:
        """The digests of all keys."""
        return tuple(dict.fromkeys(digest for keys in self.keys.values() for digest in keys))

    @property
    def values(self) -> dict[str, Any]:
        """Every setting by its name in the file; keys as their digests, those of a key file among them."""
        plain = {
            one.name: getattr(self.gateway, one.name) for one in dataclasses.fields(GatewayConfig)
        }
        plain = {name: list(v) if isinstance(v, tuple) else v for name, v in plain.items()}
        del plain["api_key_file"]
        return {**plain, "api_keys": sorted(self.digests)}

    def plain(self) -> dict[str, Any]:
        """JSON's own types only; the inverse of :meth:`from_plain`."""
        return {
            "gateway": {name: v for name, v in self.values.items() if name not in _KEYS},
            "api_keys": {origin: list(keys) for origin, keys in self.keys.items()},
            "origins": dict(self.origins),
            "file": self.file,
        }

    @classmethod
    def from_plain(cls, data: Mapping[str, Any]) -> Self:
        """Settings of plain data. Raises TypeError where a setting is unknown."""
        given: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in data["gateway"].items()
        }
        return cls(
            GatewayConfig(**given),
            {origin: tuple(keys) for origin, keys in data["api_keys"].items()},
            dict(data["origins"]),
            data["file"],
        )

    def as_input(self, secrets: Iterable[str], *, listen_later: bool = False) -> bytes:
        """What a node that starts with them reads on its standard input. ``secrets`` are the keys, as far as they
        are known, for no log to show them; ``listen_later``: its gateway takes its port when it is told to."""
        plain = {**self.plain(), "secrets": list(secrets), "listen_later": listen_later}
        return json.dumps(plain).encode()


@dataclass(frozen=True, slots=True)
class SettingChange:
    """One setting that has another value."""

    name: str
    """Its name in the file."""
    before: Any
    after: Any

    def line(self) -> str:
        """The change for people."""
        before, after = self.shown()
        return tr("gateway.{name}: {before} → {after}", name=self.name, before=before, after=after)

    def shown(self) -> tuple[str, str]:
        """Both values for display: of keys only their number."""
        if self.name != "api_keys":
            return shown_value(self.name, self.before), shown_value(self.name, self.after)
        added, removed = set(self.after) - set(self.before), set(self.before) - set(self.after)
        after = tr(
            "{count} ({added} added, {removed} removed)",
            count=shown_value(self.name, self.after),
            added=len(added),
            removed=len(removed),
        )
        return shown_value(self.name, self.before), after


def settings_of(config: Config, env: Mapping[str, str]) -> tuple[GatewaySettings, tuple[str, ...]]:
    """The settings of a configuration, and the keys behind the digests.

    Raises:
        ConfigError: a key cannot be used, or the key file cannot be read.
    """
    gateway = config.gateway
    every = load_keys(gateway, env, gateway.api_key_file)
    origins = {name.removeprefix("gateway."): origin for name, origin in config.origins.items()}
    keys: dict[Origin, list[str]] = {
        "environment": keys_of_environment(env),
        "flag": list(config.typed_keys),
    }
    named_by = origins.get("api_key_file", "file")
    if gateway.api_key_file is not None and named_by != "file":
        keys[named_by] += read_key_file(gateway.api_key_file)
    elsewhere = {key for found in keys.values() for key in found}
    keys["file"] = [key for key in every if key not in elsewhere]
    settings = GatewaySettings(
        dataclasses.replace(gateway, api_keys=(), api_key_file=None),
        {origin: tuple(map(digest_of, found)) for origin, found in keys.items() if found},
        {name: origin for name, origin in origins.items() if name not in _KEYS},
        str(config.path) if config.path else None,
    )
    return settings, every


def merged(running: GatewaySettings, wanted: GatewaySettings, *, whole: bool) -> GatewaySettings:
    """The settings of a node with ``running`` ones after a command with ``wanted`` ones.

    A setting counts where the command says it (by a flag, the environment or its file), or where the file is
    the node's own, which may have lost it. What a flag or the environment gave the node holds against a
    command without. ``whole``: the file becomes the node's own.
    """
    own = wanted.file is not None and (whole or running.file in (None, wanted.file))
    values, origins = running.values, dict(running.origins)
    for name, value in wanted.values.items():
        origin, firm = wanted.origins.get(name), running.origins.get(name) in FIRM
        if name in _KEYS or not (origin in FIRM or (not firm and (origin == "file" or own))):
            continue
        values[name] = value
        origins.pop(name, None)
        if origin is not None:
            origins[name] = origin
    keys = {**running.keys, **wanted.keys}
    if own and "file" not in wanted.keys:
        keys.pop("file", None)
    del values["api_keys"]
    file = wanted.file if own else running.file
    return GatewaySettings.from_plain(
        {"gateway": values, "api_keys": keys, "origins": origins, "file": file}
    )


def changes(before: GatewaySettings, after: GatewaySettings) -> tuple[SettingChange, ...]:
    """Every setting with another value, in the order of the schema."""
    old, new = before.values, after.values
    return tuple(
        SettingChange(name, old[name], new[name]) for name in old if old[name] != new[name]
    )


def moving(changed: Iterable[SettingChange]) -> list[SettingChange]:
    """Changes that move the gateway to another address."""
    return [one for one in changed if APPLIED[one.name] == "address"]


def shown_value(name: str, value: Any) -> str:
    """A setting's value for display: of keys only their number."""
    if name == "api_keys":
        return str(len(value)) if value else tr("none")
    if isinstance(value, list | tuple):
        return " ".join(map(str, value)) or tr("none")
    return tr("none") if value is None else str(value)
