"""What scripts start, adopted and resolved: the engine gets every flag that bash would have given it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.planner.planner_files import LLAMA, gguf_bytes, write_safetensors
from yibu.adopt import Adoption, Setting, StartedServer, adopt_script
from yibu.config import ModelConfig
from yibu.config import file as config_file
from yibu.engines.base import LaunchPlan
from yibu.engines.flags import whole
from yibu.engines.llama_cpp.settings import read_settings
from yibu.management.check import check_config
from yibu.management.context import Context, open_resolver, open_store
from yibu.management.entries import choose
from yibu.management.planning import Planned, plan_models
from yibu.node.machine import hardware
from yibu.paths import Paths
from yibu.planner.machine_file import BUILT_IN

CORPUS = sorted((Path(__file__).parents[1] / "adopt" / "corpus").glob("*.sh"))
KINDS = sorted((Path(__file__).parent / "scripts").iterdir())
MACHINE = BUILT_IN["8x80g"]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model of each format, in which every scripts' model is found."""
    folder = tmp_path_factory.mktemp("models")
    config = {
        "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 1024,
        "intermediate_size": 64, "num_hidden_layers": 8, "num_attention_heads": 64, "head_dim": 16,
        "num_key_value_heads": 8, "vocab_size": 128, "max_position_embeddings": 262144,
        "torch_dtype": "bfloat16",
    }  # fmt: skip
    (folder / "safetensors").mkdir()
    (folder / "safetensors" / "config.json").write_text(json.dumps(config))
    write_safetensors(
        folder / "safetensors" / "model.safetensors", {"embed": ("BF16", (128, 1024))}
    )
    (folder / "adapter").mkdir()
    (folder / "adapter" / "adapter_config.json").write_text('{"r": 8}')
    write_safetensors(folder / "adapter" / "adapter_model.safetensors", {"a": ("BF16", (8, 8))})
    header = {**LLAMA, "llama.context_length": 262144}
    (folder / "model.gguf").write_bytes(
        gguf_bytes(header, [("token_embd.weight", (64, 8), 0, 0)], data=4096)
    )
    (folder / "sense").mkdir()
    (folder / "sense" / "config.yaml").write_text("model: SenseVoiceSmall\n")
    (folder / "sense" / "model.pt").write_bytes(bytes(1000))
    return folder


def adopted(script: Path) -> Adoption:
    text = script.read_text(encoding="utf-8")
    words = text.splitlines()[0].partition("# arguments: ")[2].split()
    given = {str(number): word for number, word in enumerate(words, start=1)}
    return adopt_script(text, Setting({"HOME": "/home/me", "PWD": "/srv"}, given, script.name))


def here(adoption: Adoption, work: Path) -> str:
    """The adopted file with the small models in the place of the script's."""
    document = yaml.safe_load(adoption.to_yaml())
    files = {"llama.cpp": "model.gguf", "speech": "sense"}
    for model in document["models"]:
        if model["engine"] == "command":
            continue
        model["source"] = str(work / files.get(model["engine"], "safetensors"))
        if lora := model.get("options", {}).get("lora"):
            model["options"]["lora"] = dict.fromkeys(lora, str(work / "adapter"))
    return yaml.safe_dump(document)


def planned(adoption: Adoption, work: Path, home: Path) -> list[Planned]:
    """What `up` would launch of it, after `config check` has taken it."""
    context = Context({}, Paths.from_env({"YIBU_HOME": str(home)}), work)
    file = home / "yibu.yaml"
    file.write_text(here(adoption, work))
    secrets = dict(adoption.secrets)
    secrets["YIBU_API_KEYS"] = "sk-one-of-many-keys"
    context = context.with_env(**secrets)
    config = config_file.load(file, env=context.env)
    check_config(config, context)
    models = choose((), config, work).models
    return plan_models(models, open_store(context), MACHINE, open_resolver(context))


@pytest.mark.parametrize("script", [*CORPUS, *KINDS], ids=lambda path: path.name)
def test_a_scripts_flags_reach_the_engine(
    script: Path, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "probe", lambda *_: MACHINE)
    adoption = adopted(script)
    found = planned(adoption, work, tmp_path)
    assert found
    own = [one for one in found if one.model.engine != "command"]
    for one, server in zip(own, adoption.servers, strict=bool(adoption.servers)):
        assert one.launch is not None, one.plan.reasons
        differences = list(lost(server, one))
        assert not differences, (differences, one.launch.argv)


def lost(server: StartedServer, one: Planned) -> Iterator[str]:
    """What bash would have said to the engine and yibu does not, or says otherwise."""
    assert one.launch is not None
    own = server.command_line
    lifted = own.lift(server.words, env=server.command.env)
    flags = [flag for flag in lifted.flags if own.left_out(flag.name) is None]
    if server.engine == "llama.cpp":
        yield from lost_fields(flags, own.table.variables, lifted.env, one)
        return
    words = one.launch.argv
    begin = next(i for i, word in enumerate(words) if word.startswith("--") and len(word) > 2)
    if "--" in words:
        begin = words.index("--") + (2 if words[words.index("--") + 1][0] == "{" else 1)
    told: dict[tuple[str, str], list[Any]] = {}
    for flag in own.table.read(words[begin:]):
        told[flag.name, flag.key] = [flag.off, list(flag.values)]
    for flag in flags:
        expected = [flag.off, list(flag.values)]
        got = told.get((flag.name, flag.key))
        if got != expected and not same(expected, got) and not noted(flag.words[0], one.launch):
            yield f"{flag.words} became {got}"
    for name, value in lifted.env.items():
        if one.launch.env.get(name) != value and name not in IGNORED:
            yield f"{name}={value} became {one.launch.env.get(name)}"


def noted(word: str, launch: LaunchPlan) -> bool:
    """Whether the user is told what becomes of an older version's flag."""
    return any(word in note for note in launch.notes)


IGNORED = frozenset(
    {"HOME", "PATH", "PWD", "CUDA_VISIBLE_DEVICES", "VLLM_USE_MODELSCOPE", "HIP_VISIBLE_DEVICES",
     "PYTHONUNBUFFERED"}
)  # fmt: skip


def same(expected: Any, got: Any) -> bool:
    """Whether both mean the same: lengths with units, JSON with other spaces, no false default."""
    if got is None or len(expected[1]) != len(got[1]) or expected[0] != got[0]:
        return False
    return all(map(_same, expected[1], got[1]))


def _same(one: str, other: str) -> bool:
    for kind in (whole, float, json.loads):
        try:
            return bool(kind(one) == kind(other))
        except ValueError:
            continue
    return False


def lost_fields(
    flags: Sequence[Any], variables: Mapping[str, str], env: Mapping[str, str], one: Planned
) -> Iterator[str]:
    assert one.launch is not None
    words = one.launch.argv
    said = [words[i + 1].partition("=") for i, word in enumerate(words) if word == "--set"]
    told = {name: json.loads(value) for name, _, value in said}
    bare = ModelConfig("x", flags=tuple(word for flag in flags for word in flag.words))
    read = read_settings(bare, ("context", "parallel", "threads", "gpu_layers"))
    for name, value in read.fields.items():
        if told.get(name) != value and name != "n_gpu_layers":
            yield f"{name}: {value!r} became {told.get(name)!r}"
    given = {flag.name: flag.values[0] for flag in flags if flag.values}
    given |= {name: env[variable] for variable, name in variables.items() if variable in env}
    slots = told["n_parallel"]
    if given.get("parallel", str(slots)) != str(slots):
        yield f"-np {given['parallel']} became {slots}"
    # Without -np llama-server gives each of its slots all of the context, where it is asked for.
    context = int(given.get("ctx_size", 0)) * (1 if "parallel" in given else slots)
    if context not in (0, told["n_ctx"]):
        yield f"-c {given['ctx_size']} became {told['n_ctx']}"
