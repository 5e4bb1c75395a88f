"""The gateway's settings as data: what a changed file makes of those that a node has."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from yibu.cli.support import secrets
from yibu.config import Config, GatewayConfig
from yibu.config import file as config_file
from yibu.config.keys import digest_of
from yibu.config.schema import GatewaySchema
from yibu.config.settings import APPLIED, GatewaySettings, changes, merged, settings_of

KEY = "a-key-of-the-file"
CHANGED: dict[str, Any] = {
    "host": "127.0.0.2",
    "port": 1,
    "api_keys": ["another-key"],
    "api_key_file": "keys",
    "max_body": 1,
    "max_upload": 1,
    "cors_origins": ["https://example.com"],
    "hosts": ["example.com"],
    "request_timeout": 1,
    "drain_timeout": 1,
    "max_connections": 1,
    "log_format": "json",
    "idle_timeout": 1,
    "funasr_port": 1,
    "max_live_audio": 1,
}


class File:
    """A yibu.yaml and what its settings are."""

    def __init__(self, folder: Path, name: str = "yibu.yaml") -> None:
        self.path = folder / name
        (folder / "keys").write_text(f"{KEY}\n")
        (folder / "keys").chmod(0o600)

    def settings(
        self,
        gateway: dict[str, Any],
        env: dict[str, str] | None = None,
        flags: dict[str, Any] | None = None,
    ) -> GatewaySettings:
        self.path.write_text(json.dumps({"gateway": gateway}))
        env = env or {}
        return settings_of(config_file.load(self.path, env=env, flags=flags), env)[0]


def names(before: GatewaySettings, after: GatewaySettings) -> list[str]:
    return [change.name for change in changes(before, after)]


def test_every_setting_of_the_schema_says_how_it_is_applied() -> None:
    assert set(APPLIED) == set(GatewaySchema.model_fields)
    assert set(CHANGED) == {name for name, how in APPLIED.items() if how != "models"}


@pytest.mark.parametrize("name", CHANGED)
def test_a_setting_comes_and_goes_with_the_file(name: str, tmp_path: Path) -> None:
    file, told = File(tmp_path), {"api_key_file": "api_keys"}.get(name, name)
    without, with_it = file.settings({}), file.settings({name: CHANGED[name]})
    for old, new in ((without, with_it), (with_it, without)):
        assert names(old, merged(old, old, whole=True)) == []
        for whole in (True, False):
            after = merged(old, new, whole=whole)
            assert names(old, after) == [told]
            assert names(new, after) == []
            assert merged(after, new, whole=whole) == after  # twice changes nothing
    # A command without a file that asks for nothing is no change.
    nothing, _ = settings_of(Config(gateway=GatewayConfig()), {})
    assert merged(with_it, nothing, whole=False) == with_it
    assert GatewaySettings.from_plain(json.loads(with_it.as_input(()))) == with_it


def test_what_a_flag_or_the_environment_gave_the_node_holds(tmp_path: Path) -> None:
    file, env = File(tmp_path), {"YIBU_API_KEYS": "a-key-of-the-unit"}
    gateway = {"port": 8000, "api_keys": ["a-key-of-mine"]}
    started = file.settings(gateway, env, {"port": 8001})
    assert names(started, merged(started, file.settings(gateway), whole=True)) == []
    (change,) = changes(started, merged(started, file.settings({"port": 8000}), whole=True))
    assert change.after == [digest_of("a-key-of-the-unit")]
    other = file.settings(gateway, {"YIBU_API_KEYS": "a-key-of-another-unit"})
    after = merged(started, other, whole=True)
    assert set(after.digests) == {digest_of("a-key-of-mine"), digest_of("a-key-of-another-unit")}


def test_a_key_of_the_command_line_outlives_the_files(tmp_path: Path) -> None:
    file = File(tmp_path)
    file.path.write_text(json.dumps({"gateway": {"api_keys": ["a-key-of-mine"]}}))
    config = config_file.load(file.path, env={})
    typed = replace(config.gateway, api_keys=("a-key-of-mine", "a-key-that-was-typed"))
    config = replace(config, gateway=typed, typed_keys=("a-key-that-was-typed",))
    started, keys = settings_of(config, {})
    assert keys == ("a-key-of-mine", "a-key-that-was-typed")
    assert merged(started, file.settings({}), whole=True).digests == (
        digest_of("a-key-that-was-typed"),
    )


def test_another_file_is_taken_whole_or_by_what_it_says(tmp_path: Path) -> None:
    own, other = File(tmp_path), File(tmp_path, "other.yaml")
    running = own.settings({"max_body": 1, "hosts": ["a.example"]})
    wanted = other.settings({"hosts": ["b.example"]})
    partly, wholly = (merged(running, wanted, whole=whole) for whole in (False, True))
    assert (names(running, partly), partly.file) == (["hosts"], str(own.path))
    assert (names(running, wholly), wholly.file) == (["max_body", "hosts"], str(other.path))
    assert names(running, merged(running, other.settings({}), whole=False)) == []


def test_settings_hold_no_key(tmp_path: Path) -> None:
    file = File(tmp_path)
    settings = file.settings({"api_keys": ["a-key-of-mine"], "api_key_file": "keys"})
    for text in (repr(settings), json.dumps(settings.plain())):
        assert KEY not in text
        assert "a-key-of-mine" not in text
    masked = json.dumps(secrets.masked(settings.plain()))  # of `yibu support`
    assert not [digest for digest in settings.digests if digest in masked]
    (change,) = changes(GatewaySettings(), replace(GatewaySettings(), keys=settings.keys))
    assert change.line() == "gateway.api_keys: none → 2 (2 added, 0 removed)"
