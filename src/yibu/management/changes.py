"""What a configuration changes of a running node: models, and the gateway's settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from yibu.config import Config
from yibu.config.settings import (
    FIRM,
    GatewaySettings,
    SettingChange,
    changes,
    merged,
    moving,
    settings_of,
)
from yibu.config.wire import model_config
from yibu.errors import UsageError
from yibu.management.context import Context
from yibu.management.difference import Difference, NewSettings, difference
from yibu.messages import joined, tr

if TYPE_CHECKING:
    from yibu.management.entries import Chosen


def changes_of_file(chosen: Chosen, told: Mapping[str, Any], context: Context) -> Difference:
    """What a file changes of the models and of the gateway's settings that a node tells of in its ``configs``.
    Of its own models, those that it no longer has go.

    Raises:
        ConfigError: its settings cannot be used.
    """
    path, settings = chosen.config.path, GatewaySettings.from_plain(told["settings"])
    running = map(model_config, told["models"])
    own = [model.name for model in running if path is not None and model.file == path]
    wanted, keys = settings_of(chosen.config, context.env)
    after = merged(settings, wanted, whole=True)
    check_settings(after, context)
    found = difference(chosen.models, told, own)
    return dataclasses.replace(found, settings=NewSettings(after, changes(settings, after), keys))


def changes_of_up(
    config: Config, told: Mapping[str, Any], context: Context, *, whole_file: bool
) -> NewSettings:
    """The gateway's settings after `yibu up` with a node that runs, by what it tells of its ``settings``.

    ``whole_file``: no model was named, so that models which the file no longer has count too.

    Raises:
        UsageError: a model of the file runs that it no longer has, or the settings are another file's, or of
            another address, or a flag or variable takes keys away that clients may use: whoever brings a
            model up may not expect that.
        ConfigError: they cannot be used.
    """
    _refuse_gone(config, told["models"], whole_file=whole_file)
    running = GatewaySettings.from_plain(told["settings"])
    wanted, keys = settings_of(config, context.env)
    after = merged(running, wanted, whole=False)
    found = changes(running, after)
    lost = any(set(running.keys.get(origin, ())) - set(after.digests) for origin in FIRM)
    if moving(found) or lost or (found and after.file != wanted.file):
        _refuse_surprise(found, running, wanted)
    if found:
        check_settings(after, context)
    return NewSettings(after, found, keys)


def check_settings(settings: GatewaySettings, context: Context) -> None:
    """Raises ConfigError for an address that needs a key, or what is no origin."""
    from yibu.accounts.store import FILE, holds_keys
    from yibu.config.keys import check_exposure
    from yibu.gateway.http.cors import Cors

    accounts = holds_keys(context.paths.state / FILE)
    check_exposure(settings.gateway.host, settings.digests, accounts=accounts)
    Cors(settings.gateway.cors_origins)


def _refuse_surprise(
    found: tuple[SettingChange, ...], running: GatewaySettings, wanted: GatewaySettings
) -> None:
    raise UsageError(
        "A node already runs here, and its settings are not those of this command: {changed}.",
        changed=joined("; ", [one.line() for one in found]),
        hint=tr(
            "Those came from {file}. To serve what the file of this command has: yibu apply -f {wanted}",
            file=running.file or tr("no file"),
            wanted=wanted.file,
        )
        if wanted.file and not any(wanted.origins.get(one.name) in FIRM for one in found)
        else tr("Start it anew with these: yibu down && yibu up -d"),
    )


def _refuse_gone(config: Config, running: Mapping[str, Any], *, whole_file: bool) -> None:
    """``running``: the running models' files, by name."""
    path = str(config.path) if config.path else None
    names = {model.name for model in config.models}
    gone = [
        name
        for name, file in running.items()
        if whole_file and path is not None and file == path and name not in names
    ]
    if gone:
        raise UsageError(
            "{path} no longer has {gone}, and the node still serves it.",
            path=path,
            gone=", ".join(gone),
            hint="Serve what the file has, and nothing else of it: yibu apply -f {path}. Or "
            "name the models to bring up: yibu up -d -f {path} NAME",
        )
