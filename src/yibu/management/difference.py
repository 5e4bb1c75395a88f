"""What applying a configuration would change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from yibu.config import ModelConfig
from yibu.config.settings import GatewaySettings, SettingChange, changes, shown_value
from yibu.config.wire import model_config, plain_config
from yibu.messages import tr

_NOT_COMPARED = frozenset({"name_derived"})
_HIDDEN = "env"
"""Setting whose values may be secrets: only its names are shown."""


@dataclass(frozen=True, slots=True)
class Changed:
    """A model with changed settings."""

    model: ModelConfig
    settings: Mapping[str, tuple[Any, Any]]
    """Old and new values by name, nested ones as ``options.context``."""


@dataclass(frozen=True, slots=True)
class NewSettings:
    """New settings of the gateway."""

    value: GatewaySettings
    changes: tuple[SettingChange, ...]
    """Changes to the current ones."""
    secrets: tuple[str, ...] = field(default=(), repr=False)
    """Their keys, as far as known."""

    @property
    def request(self) -> dict[str, Any]:
        """Fields of the control socket's ``apply``; none where nothing changes."""
        if not self.changes:
            return {}
        return {"settings": self.value.plain(), "secrets": list(self.secrets)}


@dataclass(frozen=True, slots=True)
class Difference:
    """The changes from what is served to what is wanted."""

    added: tuple[ModelConfig, ...] = ()
    changed: tuple[Changed, ...] = ()
    removed: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()
    settings: NewSettings | None = None

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.removed or self.setting_changes)

    @property
    def setting_changes(self) -> tuple[SettingChange, ...]:
        return self.settings.changes if self.settings else ()

    @property
    def request(self) -> dict[str, Any]:
        """Fields of the control socket's ``apply``."""
        settings = self.settings.request if self.settings else {}
        models = list(map(plain_config, self.models))
        return {"models": models, "remove": list(self.removed), **settings}

    @property
    def models(self) -> tuple[ModelConfig, ...]:
        """The models to bring up."""
        return (*self.added, *(one.model for one in self.changed))

    def plain(self) -> dict[str, Any]:
        """As ``yibu diff --json`` prints it."""
        return {
            "version": 1,
            "added": [model.name for model in self.added],
            "changed": {
                one.model.name: {
                    name: {"from": shown(name, old), "to": shown(name, new)}
                    for name, (old, new) in one.settings.items()
                }
                for one in self.changed
            },
            "removed": list(self.removed),
            "unchanged": list(self.unchanged),
            "settings": {
                one.name: dict(zip(("from", "to"), one.shown(), strict=True))
                for one in self.setting_changes
            },
        }

    def lines(self) -> list[str]:
        """The same for people."""
        found = [f"~ {one.line()}" for one in self.setting_changes]
        found += [f"+ {model.name}  {model.source}".rstrip() for model in self.added]
        for one in self.changed:
            found.append(f"~ {one.model.name}")
            for name, (old, new) in one.settings.items():
                found.append(f"    {name}: {shown(name, old)} → {shown(name, new)}")
        return found + [f"- {name}" for name in self.removed]


def difference(
    wanted: Sequence[ModelConfig], told: Mapping[str, Any], removable: Sequence[str]
) -> Difference:
    """The changes from what a node tells of in its ``configs``, whatever is coming there, to the wanted models;
    unwanted ones are removed if ``removable``. The file is a setting too: it decides who removes a model."""
    served, coming = (
        # A node that is still of the version before an update tells of nothing that is coming.
        {data["name"]: model_config(data) for data in told.get(one, ())}
        for one in ("models", "coming")
    )
    names = {model.name for model in wanted}
    added, changed, unchanged = [], [], []
    for model in wanted:
        before = served.get(model.name)
        if before is None:
            added.append(model)
        elif settings := _settings(before, model) or _settings(
            coming.get(model.name, model), model
        ):
            changed.append(Changed(model, settings))
        else:
            unchanged.append(model.name)
    removed = [name for name in served if name not in names and name in removable]
    return Difference(tuple(added), tuple(changed), tuple(removed), tuple(unchanged))


def before_last_apply(told: Mapping[str, Any]) -> Difference | None:
    """What leads back to what was served before the last `yibu apply`, by what the node tells of its
    ``configs``; None where nothing was applied."""
    before = told["previous"]
    if before is None:
        return None
    wanted = [model_config(data) for data in before["models"]]
    found = difference(wanted, told, [data["name"] for data in told["models"]])
    now, then = (GatewaySettings.from_plain(one["settings"]) for one in (told, before))
    return replace(found, settings=NewSettings(then, changes(now, then)))


def shown(name: str, value: Any) -> str:
    """A setting's value for display."""
    if name.partition(".")[0] == _HIDDEN:
        return tr("unset") if value is None else tr("(not shown)")
    return shown_value(name, value)


def _settings(before: ModelConfig, after: ModelConfig) -> dict[str, tuple[Any, Any]]:
    old, new = _flat(before), _flat(after)
    if after.file is None:  # a model that was typed stays the file's that has it
        new["file"] = old["file"]
    return {
        name: (old.get(name), new.get(name))
        for name in dict.fromkeys((*old, *new))
        if old.get(name) != new.get(name)
    }


def _flat(model: ModelConfig) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for one in fields(model):
        value = getattr(model, one.name)
        if one.name in _NOT_COMPARED:
            continue
        if isinstance(value, Mapping):
            found |= {f"{one.name}.{name}": inner for name, inner in value.items()}
        else:
            found[one.name] = value
    return found
