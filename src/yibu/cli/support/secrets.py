"""Secrets: found wherever this home keeps them, then masked by name and by value."""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from yibu.config import Config
from yibu.errors import YibuError
from yibu.management.context import Context
from yibu.redaction import (
    is_secret,
    redact,
    register,
    register_environment,
    register_urls,
    secret_flags,
)

MASK = "***"

_PLAIN = re.compile(r"[/~.].*|[\d.,:-]+|true|false|yes|no|on|off", re.IGNORECASE)
"""Values of variables that give nothing away and stand all over the logs: paths, numbers, switches."""


def register_known(context: Context, config: Config | None, state: Any) -> None:
    """Have every secret that this home knows of masked from here on, wherever it stands: of the
    environment, the hubs, the package indexes, the configuration and the node's state."""
    from yibu.config.keys import load_keys
    from yibu.environments.uv_settings import UvSettings
    from yibu.hub.settings import HubSettings

    register_environment(context.env)
    for name, value in context.env.items():
        if is_secret(name, value):
            register(value)
            register_urls(value)
    # What cannot be read here holds nothing that could be shown either; the archive says so elsewhere.
    with contextlib.suppress(YibuError, OSError):
        HubSettings.from_env(context.env)
    with contextlib.suppress(YibuError, OSError):
        UvSettings.from_pip(context.env)
    if config is not None:
        register(*config.gateway.api_keys)
        with contextlib.suppress(YibuError, OSError):
            register(*load_keys(config.gateway, context.env, config.gateway.api_key_file))
        for model in config.models:
            register(*_of_variables(model.env), *_of_tree(model.options, ""))
            register(*(value for _, value in secret_flags(model.flags)))
    register(*_of_tree(state, ""))


def masked(value: Any, name: str = "") -> Any:
    """Plain data with secrets masked by their names: keys, variables, flags."""
    if isinstance(value, Mapping):
        if name == "env":
            return dict.fromkeys(value, MASK)
        return {
            key: masked(inner, name if name == "api_keys" else str(key))
            for key, inner in value.items()
        }
    if isinstance(value, str):
        return MASK if _named(name, value) else redact(value)
    if isinstance(value, Sequence):
        if name == "api_keys":
            return [MASK for _ in value]
        hidden = {at for at, _ in secret_flags(value)}
        return [_without(one, at in hidden, name) for at, one in enumerate(value)]
    return value


def _without(word: object, hidden: bool, name: str) -> Any:
    if not hidden:
        return masked(word, name)
    flag, equals, _ = str(word).partition("=")
    return f"{flag}={MASK}" if equals and flag.startswith("-") else MASK


def _named(name: str, value: str) -> bool:
    return bool(value) and (name == "key" or is_secret(name, value))


def _of_variables(env: Mapping[str, str]) -> Iterator[str]:
    """Values of a model's ``env:``, whatever they are called; plain ones would black out the logs."""
    return (value for value in env.values() if not _PLAIN.fullmatch(value))


def _of_tree(value: Any, name: str) -> Iterator[str]:
    if isinstance(value, Mapping):
        if name == "env":
            yield from _of_variables({str(key): str(inner) for key, inner in value.items()})
            return
        for key, inner in value.items():
            yield from _of_tree(inner, str(key))
    elif isinstance(value, str):
        if _named(name, value):
            yield value
        elif name == "command":
            with contextlib.suppress(ValueError):  # a quote that does not end: no words
                yield from (secret for _, secret in secret_flags(shlex.split(value)))
    elif isinstance(value, Sequence):
        yield from (secret for _, secret in secret_flags(value))
        for inner in value:
            yield from _of_tree(inner, name)
