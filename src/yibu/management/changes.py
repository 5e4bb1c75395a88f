"""Refuses a command whose file has changed in what a running node cannot take over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from yibu.config import Config
from yibu.config.wire import shown_settings
from yibu.errors import UsageError
from yibu.management.context import Context
from yibu.messages import tr

_FILE_NAMES = {"max_body_bytes": "max_body", "max_upload_bytes": "max_upload"}
"""Settings whose name in the file is another one."""


def source_of(config: Config, env: Mapping[str, str]) -> dict[str, Any]:
    """Where a configuration's settings came from; the node that starts with them keeps it."""
    from yibu.config.file import keys_of_environment

    keys = keys_of_environment(env)
    return {
        "file": str(config.path) if config.path else None,
        "origins": {name.removeprefix("gateway."): o for name, o in config.origins.items()},
        "keys_of_environment": shown_settings(config.gateway, keys)["api_keys"],
    }


def refuse_changes(context: Context, config: Config, *, whole_file: bool) -> None:
    """Compare the configuration with what the running node was started with.

    ``whole_file``: no model was named, so that models which the file no longer has count too.

    Raises:
        UsageError: a gateway setting differs, or a model of the file runs that it no longer has.
    """
    running = context.client.call("settings")
    changed = changed_settings(config, running["gateway"], context.env)
    if changed:
        raise UsageError(
            tr(
                "A node already runs here, and it was started with other settings: {changed}.",
                changed="; ".join(changed),
            ),
            hint=tr("Start it anew with these: yibu down && yibu up -d"),
        )
    path = str(config.path) if config.path else None
    names = {model.name for model in config.models}
    gone = [
        name
        for name, file in running["models"].items()
        if whole_file and path is not None and file == path and name not in names
    ]
    if gone:
        raise UsageError(
            tr(
                "{path} no longer has {gone}, and the node still serves it.",
                path=path,
                gone=", ".join(gone),
            ),
            hint=tr(
                "Serve what the file has, and nothing else of it: yibu apply -f {path}. Or "
                "name the models to bring up: yibu up -d -f {path} NAME",
                path=path,
            ),
        )


def changed_settings(
    config: Config, running: Mapping[str, Any], env: Mapping[str, str]
) -> list[str]:
    """A phrase for each gateway setting that is not what the running node has.

    A setting counts where this command says it (by a flag, the environment or the file), or where
    the node was started from the same file, which may have lost it. What a flag or the environment
    gave the node holds against a command without.
    """
    from yibu.gateway.keys import load_keys

    gateway = config.gateway
    mine = shown_settings(gateway, load_keys(gateway, env, gateway.api_key_file))
    same_file = config.path is not None and running["file"] == str(config.path)
    changed = []
    for name, value in mine.items():
        in_file = _FILE_NAMES.get(name, name)
        origin = config.origins.get(f"gateway.{in_file}", "default")
        held = running["origins"].get(in_file)
        if name == "api_keys":
            if same_file or value:
                changed += _changed_keys(set(value), running, flag=held == "flag" != origin)
            continue
        said = origin in ("flag", "environment")
        said |= (origin == "file" or same_file) and held not in ("flag", "environment")
        if said and value != running[name]:
            changed.append(
                tr(
                    "gateway.{in_file} is {running} there, {value} here",
                    in_file=in_file,
                    running=_shown(running[name]),
                    value=_shown(value),
                )
            )
    return changed


def _changed_keys(mine: set[str], running: Mapping[str, Any], *, flag: bool) -> list[str]:
    theirs = set(running["api_keys"])
    missing = mine - theirs
    # Keys of its environment, or of its command line, are no fault of this command's.
    more = set() if flag else theirs - mine - set(running["keys_of_environment"])
    told = (
        [tr("it does not know {missing_count} of gateway.api_keys", missing_count=len(missing))]
        if missing
        else []
    )
    return told + (
        [tr("it takes {more_count} keys that are not in gateway.api_keys", more_count=len(more))]
        if more
        else []
    )


def _shown(value: Any) -> str:
    return (", ".join(map(str, value)) or "none") if isinstance(value, list) else str(value)
