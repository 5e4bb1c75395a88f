"""What `yibu adopt --replace` works out before it changes anything."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.vllm import make_model
from yibu.adopt import adopt_script
from yibu.cli.takeover import Takeover, as_it_runs, configuration
from yibu.config import Config, GatewayConfig, ModelConfig
from yibu.errors import DoesNotFitError, UsageError
from yibu.management.context import Context
from yibu.node.launch import foreign
from yibu.node.launch.foreign import Foreign
from yibu.paths import Paths
from yibu.planner.types import Gpu, GpuProcess, Machine

MIB = 2**20
BALLAST = 400 * MIB


@pytest.fixture(scope="module")
def holder() -> Iterator[Foreign]:
    """A process that really holds 400 MiB."""
    code = f"held = bytearray(b'x') * {BALLAST}; print('holding', flush=True); input()"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdin is not None
    process.stdout.readline()
    yield foreign.read(process.pid)
    process.stdin.close()
    process.wait(60)
    process.stdout.close()


def takeover(tmp_path: Path, old: Foreign, machine: Machine, *, stop_first: bool) -> Takeover:
    context = Context({}, Paths.from_env({"YIBU_HOME": str(tmp_path)}), tmp_path)
    model = ModelConfig("smol", source=str(tmp_path / "weights"), engine="vllm", memory=None,
                        options={"context": 2048, "parallel": 256})  # fmt: skip
    config = Config(GatewayConfig(port=0), (model,))
    return Takeover(context, config, [model], [old], 1.0, stop_first, lambda: machine)


def test_memory_that_only_one_of_both_can_have(tmp_path: Path, holder: Foreign) -> None:
    model = make_model(tmp_path / "weights")
    config = json.loads((model / "config.json").read_text())
    # 2 layers × 2 × 8 heads × 128 × 2 bytes = 8 KiB a token: 4 GiB for 256 requests of 2048.
    config |= {"num_key_value_heads": 8, "num_attention_heads": 8, "head_dim": 128}
    (model / "config.json").write_text(json.dumps(config))

    def fits_alone(total: int) -> bool:
        machine = Machine("small", 2, 2, total * MIB, total * MIB)
        try:
            takeover(tmp_path, holder, machine, stop_first=True)._check_memory()
        except DoesNotFitError:
            return False
        return True

    need = bisect_left(range(65536), True, key=fits_alone)
    assert 0 < need < 65536
    # Enough once the old one has gone, but for what it holds now.
    tight = Machine("small", 2, 2, need * MIB, need * MIB - BALLAST)
    with pytest.raises(DoesNotFitError) as refused:
        takeover(tmp_path, holder, tight, stop_first=False)._check_memory()
    assert "--stop-first" in refused.value.hint
    assert f"pid {holder.pid}" in refused.value.message
    takeover(tmp_path, holder, tight, stop_first=True)._check_memory()
    roomy = Machine("large", 2, 2, 2 * need * MIB, 2 * need * MIB)
    takeover(tmp_path, holder, roomy, stop_first=False)._check_memory()
    none = Machine("tiny", 2, 2, 64 * MIB, 64 * MIB)
    with pytest.raises(DoesNotFitError, match="even without the old server"):
        takeover(tmp_path, holder, none, stop_first=True)._check_memory()


def test_what_ending_a_server_frees(holder: Foreign) -> None:
    assert BALLAST < holder.rss_bytes() < 2 * BALLAST
    gpu = Gpu(0, "H200", 100, 10, processes=(GpuProcess(holder.pid, "python", 60),
                                             GpuProcess(1, "another", 30)))  # fmt: skip
    machine = Machine("m", 2, 2, 4 * BALLAST, BALLAST, gpus=(gpu,))
    after = foreign.without(machine, [holder])
    assert after.gpus[0].free == 70
    assert [process.pid for process in after.gpus[0].processes] == [1]
    # Its share of pages that other processes have too changes as those come and go.
    assert 2 * BALLAST < after.memory_available < 3 * BALLAST


def test_folders_that_look_like_a_hubs_models(tmp_path: Path, holder: Foreign) -> None:
    """vLLM takes a folder of that name before it asks a hub, and so must the replacement."""
    adoption = adopt_script("vllm serve org/name --host 127.0.0.1 --served-model-name m")
    process = Foreign(holder.identity, (), {}, str(tmp_path))
    assert (
        as_it_runs(adoption, [process], {}, None).document["models"][0]["source"] == "hf:org/name"
    )
    (tmp_path / "org" / "name").mkdir(parents=True)
    (model,) = as_it_runs(adoption, [process], {}, None).document["models"]
    assert model["source"] == str(tmp_path / "org" / "name")


def test_the_address_is_the_old_servers(tmp_path: Path, holder: Foreign) -> None:
    adoption = adopt_script("vllm serve org/name --port 8102")
    with pytest.raises(UsageError, match=r"0\.0\.0\.0 without a key"):
        as_it_runs(adoption, [holder], {}, None)
    env = {"YIBU_API_KEYS": "a-key-of-ours", "YIBU_PORT": "1", "YIBU_HOST": "127.0.0.1"}
    kept = as_it_runs(adoption, [holder], env, None)
    gateway = configuration(kept, [holder], None, env).gateway
    assert (gateway.host, gateway.port, gateway.api_keys) == ("0.0.0.0", 8102, ("a-key-of-ours",))


def test_variables_that_only_the_old_server_has(holder: Foreign) -> None:
    adoption = adopt_script("HF_TOKEN=hf_secret vllm serve org/name --host 127.0.0.1")
    assert "hf_secret" not in adoption.to_yaml()
    process = Foreign(holder.identity, (), {"HF_TOKEN": "hf_secret"}, "/")
    (model,) = configuration(adoption, [process], None, {}).models
    assert dict(model.env) == {"HF_TOKEN": "hf_secret"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start another user's process")
def test_another_users_process_is_looked_at_and_never_taken(tmp_path: Path) -> None:
    process = subprocess.Popen(["sleep", "600"], user=65534, group=65534, cwd="/")
    try:
        assert foreign.look(process.pid).argv == ("sleep", "600")
        with pytest.raises(UsageError, match="belongs to user 65534"):
            foreign.read(process.pid)
        assert process.pid not in {one.pid for one in foreign.every()}
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()


@pytest.mark.skipif(
    subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True).returncode,
    reason="this machine lets nobody make a mount namespace",
)
def test_a_process_in_a_container_is_never_taken() -> None:
    process = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", "echo in; exec sleep 600"], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        process.stdout.readline()
        with pytest.raises(UsageError, match="runs in a container"):
            foreign.read(process.pid)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
