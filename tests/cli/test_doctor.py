"""`yibu doctor` looks at what `yibu up` would use: the port of the file or of the environment."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from yibu.cli import main
from yibu.planner.types import Gpu


def findings(capsys: pytest.CaptureFixture[str]) -> dict[str, tuple[str, str]]:
    main.run(["doctor", "--json"])
    found = json.loads(capsys.readouterr().out)["findings"]
    return {each["subject"]: (each["level"], each["found"]) for each in found}


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param("http://127.0.0.1:{port}", id="no answer"),
        pytest.param("https://127.0.0.1:{port}", id="no answer to TLS"),
        pytest.param("http://no.such.host.invalid", id="no such name"),
    ],
)
def test_a_host_that_does_not_answer_is_named_once(
    fault: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("YIBU_HOME", str(tmp_path))
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))  # and does not listen
        url = fault.format(port=silent.getsockname()[1])
        for name in ("MODELSCOPE_ENDPOINT", "HF_ENDPOINT", "UV_DEFAULT_INDEX"):
            monkeypatch.setenv(name, url)
        found = findings(capsys)
    for subject in ("ModelScope", "Hugging Face", "package index"):
        level, said = found[subject]
        assert level == "warning"
        assert said.count(url.partition("://")[2].partition(":")[0]) == 1, said


def test_a_gpu_that_the_environment_hides_is_said_to_be_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("YIBU_HOME", str(tmp_path))
    monkeypatch.setenv("YIBU_OFFLINE", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    gpus = tuple(Gpu(index, "L4", 24 << 30, 24 << 30) for index in range(2))
    monkeypatch.setattr("yibu.node.machine.hardware.gpus", lambda: gpus)
    found = findings(capsys)
    assert [found[f"GPU {index}"][1].rpartition("free")[2] for index in range(2)] == [
        ", hidden by CUDA_VISIBLE_DEVICES",
        "",
    ]


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
