"""Fields of a Compose service: its ports, volumes and GPUs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def port(port: Any) -> tuple[str, str]:
    if isinstance(port, Mapping):
        outside = str(port.get("published", port.get("target", "")))
        host = f"{port['host_ip']}:" if port.get("host_ip") else ""
        return str(port.get("target", "")), host + outside
    outside, _, inside = str(port).rpartition(":")
    return inside.partition("/")[0], outside or inside.partition("/")[0]


def volume(volume: Any) -> tuple[str, str] | None:
    if isinstance(volume, Mapping):
        return str(volume.get("target", "")).rstrip("/"), str(volume.get("source", ""))
    outside, colon, inside = str(volume).partition(":")
    return (inside.partition(":")[0].rstrip("/"), outside) if colon else None


def gpus(service: Mapping[str, Any]) -> dict[str, str]:
    resources = ((service.get("deploy") or {}).get("resources") or {}).get("reservations") or {}
    for device in resources.get("devices") or ():
        if isinstance(device, Mapping) and device.get("device_ids"):
            return {"CUDA_VISIBLE_DEVICES": ",".join(map(str, device["device_ids"]))}
    return {}


def at_home(path: str, variables: Mapping[str, str]) -> str:
    """Compose itself reads a ``~``."""
    home = variables.get("HOME", "~")
    return home + path[1:] if path == "~" or path.startswith("~/") else path
