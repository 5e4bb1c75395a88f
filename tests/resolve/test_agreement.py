"""What `yibu plan` shows is what the node launches: entries of every engine, on machines of several kinds."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
from pathlib import Path

import pytest

from tests.fakes.vllm import make_model
from tests.planner.planner_files import LLAMA, gguf_bytes, write_safetensors
from tests.support.stand_in import stand_in
from yibu.config import ModelConfig
from yibu.config import file as config_file
from yibu.config.names import replica_id
from yibu.engines.base import LaunchPlan
from yibu.errors import DoesNotFitError, YibuError
from yibu.hub.types import LocalModel, ProgressCallback
from yibu.management.context import Context, open_resolver, open_store
from yibu.management.deployer import deployer
from yibu.management.entries import TypedOptions, choose
from yibu.management.planning import plan_models
from yibu.node.fleet.deploy import Deployer
from yibu.node.launch.spec import LaunchSpec
from yibu.node.machine import hardware
from yibu.node.scheduler.memory import Room, reserve
from yibu.node.scheduler.types import Generation, Reading, Replica
from yibu.paths import Paths
from yibu.planner.ledger import Beside, Coming
from yibu.planner.machine_file import BUILT_IN
from yibu.planner.types import Machine, Placement
from yibu.resolve import known_facts

GIB = 1024**3
NOTHING = Path(__file__).parent
MACHINES = {
    "cpu": Machine("cpu", 8, 16, 16 * GIB, 14 * GIB),
    "small": Machine("small", 2, 2, 3 * GIB, 2 * GIB),
    "gpu": BUILT_IN["rtx4090-24g"],
    "gpus": BUILT_IN["2x24g"],
}
ENTRIES = {
    "gguf": "{name: a, source: ./a.gguf}",
    "gguf with options": "{name: a, source: ./a.gguf, options: {context: 512, parallel: 3, threads: 2}}",
    "gguf with flags": "{name: a, source: ./a.gguf, flags: [-c, '2048', -np, '2', -fa, 'on', --no-mmap]}",
    "gguf on the CPU": "{name: a, source: ./a.gguf, gpus: []}",
    "gguf three times": "{name: a, source: ./a.gguf, replicas: 3}",
    "gguf with its own program": "{name: a, source: ./a.gguf, options: {program: ./bin/llama-server}}",
    "its own program, some layers": "{name: a, source: ./a.gguf,"
    " options: {program: ./bin/llama-server, gpu_layers: 2}, flags: [--brand-switch]}",
    "vllm": "{name: v, source: ./v}",
    "vllm as its own server": "{name: v, source: ./v, engine: vllm, flags: [--host, 0.0.0.0, --port, '81',"
    " --served-model-name, w, --max-model-len, 1K, --api-key, a-key-of-mine]}",
    "vllm on the CPU": "{name: v, source: ./v, gpus: [], options: {threads: 2}}",
    "vllm on the second": "{name: v, source: ./v, gpus: [1]}",
    "vllm by a variable": "{name: v, source: ./v, env: {CUDA_VISIBLE_DEVICES: '1'}}",
    "vllm twice": "{name: v, source: ./v, replicas: 2, options: {max_num_seqs: 4}}",
    "vllm over both": "{name: v, source: ./v, options: {tensor_parallel_size: 2}}",
    "vllm with a budget": "{name: v, source: ./v, memory: 4GiB, options: {kv_cache_dtype: fp8}}",
    "vllm with an adapter": "{name: v, source: ./v, options: {lora: {l: ./l}}}",
    "sglang": "{name: s, source: ./v, engine: sglang, options: {context: 1024}}",
    "lmdeploy": "{name: l, source: ./v, engine: lmdeploy, flags: [--session-len, '1024']}",
    "large": "{name: big, source: ./big}",
    "speech": "{name: sense, source: ./sense}",
    "speech on a GPU": "{name: sense, source: ./sense, gpus: [0]}",
    "speech by device": "{name: sense, source: ./sense, options: {device: cuda}}",
    "speech on torch": "{name: sense, source: ./sense, options: {path: reference, threads: 1}}",
    "whisper": "{name: w, source: ./whisper, replicas: 2}",
    "command": "{name: c, engine: command, options: {command: 'serve --port {port}'}, gpus: [0]}",
    "refused": "{name: r, source: ./a.gguf, engine: vllm}",
    "several": "{name: a, source: ./a.gguf}, {name: v, source: ./v}, {name: sense, source: ./sense}",
    "several on GPUs": "{name: v, source: ./v}, {name: w, source: ./v, replicas: 2}, {name: big, source: ./big}",
}


TIGHT = ("large", "vllm over both", "vllm on the second", "gguf three times", "several on GPUs")
"""Entries that do not fit on every machine, and are started by force."""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small models of every format."""
    work = tmp_path_factory.mktemp("models")
    tensors = [("token_embd.weight", (64, 8), 0, 0), ("blk.0.attn_q.weight", (64, 8), 0, 2048)]
    (work / "a.gguf").write_bytes(gguf_bytes(LLAMA, tensors, data=4096))
    make_model(work / "v")
    big = make_model(work / "big")
    config = json.loads((big / "config.json").read_text())
    config |= {"hidden_size": 8192, "num_hidden_layers": 80, "num_attention_heads": 64}
    config |= {"num_key_value_heads": 8, "intermediate_size": 28672, "vocab_size": 128256}
    (big / "config.json").write_text(json.dumps(config))
    (big / "model.safetensors").unlink()
    write_safetensors(big / "model.safetensors", {"embed": ("BF16", (2**20, 2**15))})
    (work / "l").mkdir()
    (work / "l" / "adapter_config.json").write_text('{"r": 8}')
    write_safetensors(work / "l" / "adapter_model.safetensors", {"a": ("BF16", (8, 8))})
    (work / "sense").mkdir()
    (work / "sense" / "config.yaml").write_text("model: SenseVoiceSmall\n")
    (work / "sense" / "model.pt").write_bytes(bytes(1000))
    (work / "whisper").mkdir()
    (work / "whisper" / "config.json").write_text('{"alignment_heads": []}')
    (work / "whisper" / "vocabulary.txt").write_text("a\n")
    (work / "whisper" / "model.bin").write_bytes(bytes(500))
    (work / "bin").mkdir()
    stand_in(work / "bin")
    return work


async def launched(
    context: Context, models: list[ModelConfig], machine: Machine
) -> list[list[LaunchSpec] | YibuError]:
    """What the node would start of each, all of them asked for at once; or its refusal."""
    real = deployer(Context({}, context.paths, context.directory))

    def pull(source: str, progress: ProgressCallback) -> LocalModel:
        # What detects speech comes from an index: its files are no part of this.
        return real.pull(source if source.startswith("/") else str(NOTHING), progress)

    there = dataclasses.replace(
        real, pull=pull, ensure_environment=lambda name, note: Path(sys.executable)
    )
    coming = [Coming(one, known_facts(one.source, open_store(context))[0]) for one in models]
    replicas: list[Replica] = []
    found: list[list[LaunchSpec] | YibuError] = []
    for number, model in enumerate(models, start=1):
        room = Room(_never, Reading(machine), replicas, tuple(coming[number:]))
        try:
            found.append(await _launched(there, model, room, replicas))
        except YibuError as error:
            found.append(error)
    return found


async def _launched(
    there: Deployer, model: ModelConfig, room: Room, replicas: list[Replica]
) -> list[LaunchSpec]:
    """As the node's runner does it, by the scheduler's own arithmetic."""
    fetched = await there.get(model, _ignore, _ignore, _ignore, _ignore)
    launches: dict[int, LaunchPlan] = {}

    def place(generation: Generation, number: int, machine: Machine, beside: Beside) -> Placement:
        placement, launches[number] = there.place(fetched.prepared, number, machine, beside).runs()
        return placement

    key = (model.name, 1)
    wanted = [Replica(replica_id(model.name, n), key, n) for n in range(model.replicas)]
    placements = dataclasses.replace(room, place=place).fit(key, wanted)
    for replica, placement in zip(wanted, placements, strict=True):
        reserve(replica, placement)
        replica.state = "placed"
        replicas.append(replica)
    return [
        await there.spec(model, fetched, launches[n], placement, _ignore, _ignore, _ignore)
        for n, placement in enumerate(placements)
    ]


def _ignore(_: object) -> None:
    """What is told meanwhile is no part of this."""


def _never(*_: object) -> Placement:
    raise AssertionError


def read(text: str, context: Context, *, force: bool) -> list[ModelConfig]:
    path = context.directory / "yibu.yaml"
    path.write_text(f"models: [{text}]")
    config = config_file.load(path, env={})
    return list(choose((), config, context.directory, TypedOptions(force=force)).models)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(
    ("entry", "force"),
    [*((entry, False) for entry in ENTRIES), *((entry, True) for entry in TIGHT)],
)
def test_plan_shows_what_the_node_launches(
    entry: str,
    machine: str,
    force: bool,
    files: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = MACHINES[machine]
    monkeypatch.setattr(hardware, "probe", lambda *_: here)
    paths = Paths.from_env({"YIBU_HOME": str(tmp_path / "home")})
    context = Context({}, paths, files)
    models = read(ENTRIES[entry], context, force=force)
    resolver = open_resolver(context)
    started = asyncio.run(launched(context, models, here))
    refusals = [str(one) for one in started if _refused(one)]
    if refusals:
        with pytest.raises(YibuError) as refused:
            plan_models(models, open_store(context), here, resolver)
        assert refusals == [str(refused.value)]
        return
    planned = plan_models(models, open_store(context), here, resolver)
    for plan, specs in zip(planned, started, strict=True):
        if isinstance(specs, YibuError):
            assert plan.launch is None
            assert plan.plan.reasons[0] in str(specs)
        else:
            assert plan.launch == specs[0].plan
            assert len(specs) == plan.model.replicas


def _refused(found: object) -> bool:
    return isinstance(found, YibuError) and not isinstance(found, DoesNotFitError)
