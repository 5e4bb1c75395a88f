"""The launchers of SGLang and LMDeploy, in front of fakes that take the real ones' command lines."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import types
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from samples import facts, model, placement
from tests.fakes.gpu_servers import write_packages
from tests.support.polling import until
from tests.support.ports import free_port

from yibu.engines.base import Binding
from yibu.engines.registry import by_name
from yibu.launchers import cards, lmdeploy, sglang

MIB, GIB = 1024**2, 1024**3
SOURCE = Path(__file__).parents[2] / "src"
FRACTIONS = {"sglang": "--mem-fraction-static", "lmdeploy": "--cache-max-entry-count"}


class Card(types.SimpleNamespace):
    """What NVML answers of one card."""


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three cards of which 70, 40 and 60 GiB are free."""
    free = (70 * GIB, 40 * GIB, 60 * GIB)
    module = types.ModuleType("pynvml")
    answers = {
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlDeviceGetCount": lambda: len(free),
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetMemoryInfo": lambda index: Card(free=free[index]),
    }
    for name, answer in answers.items():
        setattr(module, name, answer)
    monkeypatch.setitem(sys.modules, "pynvml", module)


@pytest.mark.usefixtures("nvml")
def test_a_fraction_is_one_of_what_is_free_now(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cards.free_bytes({}) == 40 * GIB
    assert cards.free_bytes({"CUDA_VISIBLE_DEVICES": "0,2"}) == 60 * GIB
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2")
    words = sglang.arguments(["--static-bytes", str(30 * GIB), "--", "--model-path", "/m"])
    assert words == ["--model-path", "/m", "--mem-fraction-static", "0.5000"]
    assert sglang.arguments(["--", "--model-path", "/m"]) == ["--model-path", "/m"]
    left = 60 * GIB - 16 * GIB - 512 * MIB
    sizes = ["--weight-bytes", str(16 * GIB), "--cache-bytes", str(left // 4)]
    assert lmdeploy.arguments([*sizes, "--", "/m"]) == ["/m", "--cache-max-entry-count", "0.2500"]


@pytest.mark.parametrize(("wanted", "free", "text"), [(99, 10, "0.9500"), (1, 0, "0.9500"),
                                                     (0, 10, "0.0100")])  # fmt: skip
def test_a_fraction_stays_between_what_engines_take(wanted: int, free: int, text: str) -> None:
    assert cards.fraction(wanted, free) == text


def answer(port: int, key: str) -> int:
    body = {"model": "m", "messages": [{"role": "user", "content": "a"}]}
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/chat/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json", "Authorization": f"Bearer {key}"},
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


@pytest.mark.parametrize("engine", FRACTIONS)
def test_the_launcher_puts_the_key_in_place(tmp_path: Path, engine: str) -> None:
    write_packages(tmp_path)
    key, port = "inner-key-of-this-test", free_port()
    entry = model(None, FRACTIONS[engine], "0.5")
    launch = by_name(engine).plan(entry, facts("safetensors"), placement(gpus=(0,)))
    binding = Binding("127.0.0.1", port, Path(sys.executable), tmp_path, key)
    argv, env = launch.bind(binding)
    log = tmp_path / "log"
    paths = os.pathsep.join(map(str, (tmp_path, SOURCE)))
    with log.open("wb") as output:
        process = subprocess.Popen(
            argv, env={**os.environ, **env, "PYTHONPATH": paths}, stdout=output, stderr=output
        )
    try:
        until(lambda: answer(port, key) == 200 or process.poll() is not None, log.read_text())
        assert answer(port, key) == 200, log.read_text()
        assert answer(port, "another") == 401
        assert key.encode() not in Path(f"/proc/{process.pid}/cmdline").read_bytes()
        assert key not in log.read_text()
    finally:
        process.terminate()
        process.wait(60)
