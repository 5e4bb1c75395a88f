"""Compose files: the servers in their containers.

https://docs.docker.com/reference/compose-file has the fields.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from yibu.adopt.bash import Files, Gap, Setting
from yibu.adopt.containers import Container
from yibu.adopt.services import ManifestService, line_of, text_of, words_of
from yibu.messages import tr

_VARIABLE = re.compile(
    r"\$(?:(?P<twice>\$)|(?P<bare>[A-Za-z_]\w*)|\{(?P<name>[A-Za-z_]\w*)"
    r"(?:(?P<sign>:?[-+?])(?P<rest>[^}]*))?\})"
)


def read_compose(
    document: Mapping[str, Any], setting: Setting, text: str
) -> Iterator[ManifestService]:
    variables = {
        **_env_file(setting.files.read(".env") or ""),
        **setting.variables,
        **setting.given,
    }
    for name, raw in document["services"].items():
        if not isinstance(raw, Mapping):
            continue
        gaps: list[Gap] = []
        service = _interpolated(raw, variables, gaps)
        gaps = [replace(gap, line=line_of(text, gap.construct)) for gap in gaps]
        warnings = []
        env, unread = _compose_env(service, setting.files)
        warnings += [
            tr(
                "{file}, which service {name} takes variables from, is not here and was not read",
                file=file,
                name=name,
            )
            for file in unread
        ]
        if "extends" in service:
            gaps.append(Gap(line_of(text, "extends:"), tr("extends: of service {name}", name=name)))
        container = Container(
            image=str(service.get("image", "")),
            name=str(service.get("container_name", name)),
            entrypoint=words_of(service["entrypoint"]) if service.get("entrypoint") else None,
            arguments=words_of(service.get("command")),
            env=env | _gpus(service),
            ports=dict(map(_port, service.get("ports") or ())),
            folders={
                inside: _at_home(outside, variables)
                for inside, outside in filter(None, map(_volume, service.get("volumes") or ()))
            },
            host_network=service.get("network_mode") == "host",
        )
        scale = (service.get("deploy") or {}).get("replicas", service.get("scale", 1))
        line = line_of(text, f"{name}:")
        yield ManifestService(
            container,
            tr("service {name}", name=name),
            int(scale or 1),
            line,
            tuple(gaps),
            tuple(warnings),
        )


def _env_file(text: str) -> dict[str, str]:
    pairs = (line.strip().removeprefix("export ").partition("=") for line in text.splitlines())
    return {
        name.strip(): value.strip().strip("'\"")
        for name, equals, value in pairs
        if equals and not name.startswith("#")
    }


def _interpolated(value: Any, variables: Mapping[str, str], gaps: list[Gap]) -> Any:
    """The same with ``${X}`` filled in as Compose does; what is not set goes to ``gaps``."""
    if isinstance(value, Mapping):
        return {key: _interpolated(one, variables, gaps) for key, one in value.items()}
    if isinstance(value, list):
        return [_interpolated(one, variables, gaps) for one in value]
    if not isinstance(value, str):
        return value

    def fill(match: re.Match[str]) -> str:
        if match["twice"]:
            return "$"
        name, sign = match["bare"] or match["name"], match["sign"] or ""
        known = variables.get(name)
        missing = known is None or (sign[:1] == ":" and not known)
        if sign.endswith("+"):
            return "" if missing else match["rest"]
        if not missing:
            assert known is not None
            return known
        if sign.endswith("-"):
            return str(_interpolated(match["rest"], variables, gaps))
        gaps.append(Gap(1, match[0], unset=name))
        return ""

    return _VARIABLE.sub(fill, value)


def _compose_env(service: Mapping[str, Any], files: Files) -> tuple[dict[str, str], list[str]]:
    env: dict[str, str] = {}
    unread: list[str] = []
    listed = service.get("env_file") or []
    for entry in [listed] if isinstance(listed, str | Mapping) else listed:
        path = str(entry.get("path", "")) if isinstance(entry, Mapping) else str(entry)
        text = files.read(path)
        if text is None:
            unread.append(path)
        else:
            env |= _env_file(text)
    given = service.get("environment") or {}
    pairs = (
        given.items()
        if isinstance(given, Mapping)
        else ((name, value) for name, _, value in (str(one).partition("=") for one in given))
    )
    return env | {str(name): text_of(value) for name, value in pairs}, unread


def _port(port: Any) -> tuple[str, str]:
    if isinstance(port, Mapping):
        outside = str(port.get("published", port.get("target", "")))
        host = f"{port['host_ip']}:" if port.get("host_ip") else ""
        return str(port.get("target", "")), host + outside
    outside, _, inside = str(port).rpartition(":")
    return inside.partition("/")[0], outside or inside.partition("/")[0]


def _volume(volume: Any) -> tuple[str, str] | None:
    if isinstance(volume, Mapping):
        return str(volume.get("target", "")).rstrip("/"), str(volume.get("source", ""))
    outside, colon, inside = str(volume).partition(":")
    return (inside.partition(":")[0].rstrip("/"), outside) if colon else None


def _gpus(service: Mapping[str, Any]) -> dict[str, str]:
    resources = ((service.get("deploy") or {}).get("resources") or {}).get("reservations") or {}
    for device in resources.get("devices") or ():
        if isinstance(device, Mapping) and device.get("device_ids"):
            return {"CUDA_VISIBLE_DEVICES": ",".join(map(str, device["device_ids"]))}
    return {}


def _at_home(path: str, variables: Mapping[str, str]) -> str:
    """Compose itself reads a ``~``."""
    home = variables.get("HOME", "~")
    return home + path[1:] if path == "~" or path.startswith("~/") else path
