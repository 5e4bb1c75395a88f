"""Starts of the real vLLM that fail, and what is said of them: in `up`, `ps`, `logs` and the API.

All of them are brought up together: most fail while vLLM reads their configuration, some before it
is started at all.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.home import Home, fake
from tests.e2e.vllm_models import VllmModels
from tests.exposition import Exposition
from tests.fakes.hub_server import HubServer
from tests.support.polling import until
from yibu.engines.causes import explain
from yibu.engines.logs import causes_of
from yibu.engines.vllm.table import PINNED, VllmFlags

pytestmark = [pytest.mark.engine, pytest.mark.vllm, pytest.mark.timeout(600)]

_FAIL = 400.0
OWN_CODE = "from transformers import LlamaConfig\nclass OwnConfig(LlamaConfig):\n    pass\n"


@dataclass(frozen=True, slots=True)
class Failure:
    """One way to fail: its name is the model's."""

    name: str
    words: str
    """Stand in the cause that is shown."""
    flags: tuple[str, ...] = ()
    config: tuple[tuple[str, Any], ...] = ()
    """Changes to config.json."""
    source: str = ""
    log: str = ""
    """Stands in the engine's own log; empty for what fails before it is started."""
    label: str = ""
    """The cause's key in the metrics, where an engine failed."""


FAILURES = (
    Failure(
        "too-long", "max_model_len is 20000, and the model was made for 8192 tokens at most",
        flags=("--max-model-len", "20000"), log="greater than the derived max_model_len",
        label="model_length_too_long",
    ),
    Failure(
        "small-cache", "KV cache is too small for one request of 8192 tokens",
        flags=("--max-model-len", "8192", "--kv-cache-memory-bytes", "16777216"),
        log="KV cache is needed", label="kv_cache_too_small",
    ),
    Failure(
        "unknown", "does not know the architecture",
        config=(("architectures", ["NoSuchForCausalLM"]),), log="NoSuchForCausalLM",
        label="unsupported_architecture",
    ),
    Failure(
        "own-code", "brings Python code of its own",
        config=(
            ("model_type", "own"), ("architectures", ["OwnForCausalLM"]),
            ("auto_map", {"AutoConfig": "configuration_own.OwnConfig"}),
        ),
        log="trust_remote_code", label="remote_code",
    ),
    Failure("thirds", "8 attention heads cannot be divided by 3", flags=("-tp", "3")),
    Failure("gated", "org/gated is gated", source="hf:org/gated"),
    Failure(
        "away", "cannot be reached for the files of org/away: Connection refused",
        source="modelscope:org/away",
    ),
)  # fmt: skip


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, engine_cache: Path) -> Iterator[Home]:
    models = VllmModels.of(engine_cache)
    root = tmp_path_factory.mktemp("home")
    with socket.socket() as closed, HubServer() as hub:
        closed.bind(("127.0.0.1", 0))
        hub.repos["org/gated"] = {"config.json": b"{}"}
        hub.gated.add("org/gated")
        settings = {
            "HF_ENDPOINT": hub.url,
            "MODELSCOPE_ENDPOINT": f"http://127.0.0.1:{closed.getsockname()[1]}",
            "NO_PROXY": "*",
        }
        served = Home(root, models.cache, settings)
        failing = [entry(failure, models.eight_heads(), root) for failure in FAILURES]
        served.write([fake("well"), *failing])  # a node of which every model failed would end
        with served:
            # The planner cannot tell what an architecture needs that vLLM does not know either.
            served.yibu("up", "-d", "--force", code=None, timeout=_FAIL)
            yield served


def entry(failure: Failure, whole: Path, root: Path) -> dict[str, Any]:
    source = failure.source
    if not source:
        directory = root / failure.name
        directory.mkdir()
        for file in whole.iterdir():
            (directory / file.name).symlink_to(file)
        config = json.loads((whole / "config.json").read_text())
        (directory / "config.json").unlink()
        (directory / "config.json").write_text(json.dumps(config | dict(failure.config)))
        (directory / "configuration_own.py").write_text(OWN_CODE)
        source = str(directory)
    return {"name": failure.name, "source": source, "engine": "vllm", "flags": list(failure.flags)}


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: failure.name)
def test_the_cause_is_shown_everywhere(served: Home, failure: Failure) -> None:
    until(lambda: served.model(failure.name)["state"] == "failed", "it has failed", _FAIL)
    cause = served.model(failure.name)["cause"]
    assert failure.words in cause
    shown = served.yibu("ps").stdout
    assert failure.words in shown
    assert failure.words not in shown.partition("\n\n")[0], "a sentence stands below the table"
    request = urllib.request.Request(
        f"{served.url()}/v1/completions",
        json.dumps({"model": failure.name, "prompt": "a"}).encode(),
        {"Content-Type": "application/json"},
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=60)
    with refused.value as answer:
        error = json.load(answer)["error"]
    assert refused.value.code == 503
    assert error["code"] == "model_not_ready"
    assert failure.words in error["message"]
    if failure.log:
        with urllib.request.urlopen(f"{served.url()}/metrics", timeout=60) as page:
            found = Exposition(page.read().decode()).labels("yibu_last_failure_timestamp_seconds")
        assert [x["cause"] for x in found if x["model"] == failure.name] == [failure.label]
        assert failure.log in served.yibu("logs", failure.name, "-n", "400").stdout
    assert not served.model(failure.name)["replicas"] or (
        served.model(failure.name)["replicas"][0]["pid"] is None
    ), "nothing of it is left"


def test_the_flags_that_are_known_are_those_of_the_installed_version(engine_cache: Path) -> None:
    """What users type is held against this table before anything starts."""
    models = VllmModels.of(engine_cache)
    done = subprocess.run(
        [str(models.python()), "-P", "-m", "yibu.launchers.flags", "vllm"],
        capture_output=True, text=True, timeout=_FAIL, check=True,
    )  # fmt: skip
    real = VllmFlags.from_plain(json.loads(done.stdout))
    assert (real.version, real.flags, real.short) == (PINNED.version, PINNED.flags, PINNED.short)
    assert real.choices == PINNED.choices


def test_a_port_that_another_process_took(engine_cache: Path, tmp_path: Path) -> None:
    """yibu takes another port when that happens; here vLLM itself is asked."""
    models = VllmModels.of(engine_cache)
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = str(holder.getsockname()[1])
        words = ["--model", str(models.eight_heads()), "--host", "127.0.0.1", "--port", port]
        module = "vllm.entrypoints.openai.api_server"
        done = subprocess.run(
            [str(models.python()), "-m", module, *words],
            env={**os.environ, "TMPDIR": str(tmp_path)},  # it leaves files there
            cwd=tmp_path, capture_output=True, text=True, timeout=_FAIL, check=False,
        )  # fmt: skip
    found = explain(done.stdout + done.stderr, causes_of("vllm"), exit_code=done.returncode)
    assert found.cause == "port_in_use"


def test_the_pinned_version_has_the_flags_that_it_is_known_for(
    engine_cache: Path, tmp_path: Path
) -> None:
    models = VllmModels.of(engine_cache)
    done = subprocess.run(
        [str(models.python()), "-P", "-m", "yibu.launchers.flags", "vllm"],
        env={**os.environ, "TMPDIR": str(tmp_path), "VLLM_NO_USAGE_STATS": "1"},
        capture_output=True, text=True, timeout=_FAIL, check=True,
    )  # fmt: skip
    assert VllmFlags.from_plain(json.loads(done.stdout)) == PINNED
    assert PINNED.serve
