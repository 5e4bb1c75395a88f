"""What a configuration changes of a running node: models, and the gateway's settings."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yibu.config import Config, ModelConfig
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
from yibu.errors import NotRunningError, UsageError
from yibu.management.context import Context
from yibu.management.difference import Difference, NewSettings, difference
from yibu.messages import joined, tr

if TYPE_CHECKING:
    from yibu.management.entries import Chosen


def as_known(named: Path | None, context: Context) -> Path | None:
    """The configuration file that a command names, as the node that runs names it; None where there is none.

    Relative paths, links and ``..`` give one file many names. Paths of its entries are written out with one of
    them, so that with another one every model would look changed, and none would be the file's.
    """
    from yibu.config import file  # which brings YAML along

    path = file.find(named, context.directory)
    if path is None:
        return None
    try:
        told = context.client.call("settings")
    except NotRunningError:
        return path
    known = [Path(one) for one in (told["settings"]["file"], *told["models"].values()) if one]
    if path.absolute() in known:
        return path
    return next((one for one in known if _is_same(one, path)), path)


def _is_same(one: Path, other: Path) -> bool:
    """Whether two paths are one name in one directory: what a link there leads to may be exchanged."""
    try:
        return one.name == other.name and one.parent.samefile(other.parent)
    except OSError:  # its directory is gone
        return False


def changes_of_file(chosen: Chosen, told: Mapping[str, Any], context: Context) -> Difference:
    """What a file changes of the models and of the gateway's settings that a node tells of in its ``configs``.
    Of its own models, those that it no longer has go.

    Raises:
        ConfigError: its settings cannot be used.
    """
    path, settings = chosen.config.path, GatewaySettings.from_plain(told["settings"])
    running = list(map(model_config, told["models"]))
    moved = _moved(running, chosen)
    own = [one.name for one in running if one.file and (one.file == path or str(one.file) in moved)]
    wanted, keys = settings_of(chosen.config, context.env)
    after = merged(settings, wanted, whole=True)
    check_settings(after, context)
    found = difference(chosen.models, told, own)
    changed = changes(settings, after)
    if settings.file in moved:
        changed = (SettingChange("file", settings.file, after.file), *changed)
    return dataclasses.replace(found, settings=NewSettings(after, changed, keys))


def _moved(running: Sequence[ModelConfig], chosen: Chosen) -> set[str]:
    """The earlier names of the chosen file: files that are gone, and of whose models it has one."""
    names = {model.name for model in chosen.models}
    files = {str(model.file) for model in running if model.file and model.name in names}
    return {file for file in files if not os.path.lexists(file)}


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
