"""`yibu doctor` looks at what `yibu up` would use: the port of the file or of the environment."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from yibu.cli import main


def findings(capsys: pytest.CaptureFixture[str]) -> dict[str, tuple[str, str]]:
    main.run(["doctor", "--json"])
    found = json.loads(capsys.readouterr().out)["findings"]
    return {each["subject"]: (each["level"], each["found"]) for each in found}


def test_the_port_is_the_one_that_would_be_listened_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("YIBU_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("YIBU_OFFLINE", "1")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        (tmp_path / "yibu.yaml").write_text(f"gateway: {{port: {port}}}\nmodels: []")
        assert findings(capsys)[f"port {port}"] == (
            "warning",
            "127.0.0.1: Address already in use",
        )
        monkeypatch.setenv("YIBU_PORT", "0")  # it goes before the file
        assert findings(capsys)["port"] == ("ok", "a free one, as port 0 asks for")
    monkeypatch.setenv("YIBU_PORT", "nonsense")
    assert findings(capsys)["configuration"][0] == "failure"
