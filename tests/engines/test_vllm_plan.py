"""The vLLM engine: the tutorial's flags, translations, parsers, and what the planner decided."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from samples import facts, model, placement

from yibu.engines.base import Binding, LaunchPlan
from yibu.engines.vllm import Vllm
from yibu.engines.vllm.server import SERVER, TRANSLATIONS
from yibu.engines.vllm.table import PINNED, VllmFlags
from yibu.errors import ConfigError

ENGINE = Vllm()
GPU = {"gpus": (0, 1), "tensor_parallel": 2, "memory_share": 0.85, "parallel": 64, "context": 8192}

TUTORIAL = (
    "--api-key", "sk-1", "--served-model-name", "r1", "--model", "/models/r1",
    "--tensor-parallel-size", "2", "--gpu-memory-utilization", "0.9", "--max-num-seqs", "64",
    "--max-model-len", "8192", "--dtype", "bfloat16", "--host", "0.0.0.0", "--port", "8001",
    "--disable-log-requests", "--disable-log-stats",
)  # fmt: skip


def plan(options: dict[str, Any] | None = None, *flags: str, **values: Any) -> LaunchPlan:
    entry = values.pop("entry", {})
    at = placement(**values.pop("at", {}))
    return ENGINE.plan(model(options, *flags, **entry), facts("safetensors", **values), at)


def value(launch: LaunchPlan, flag: str) -> str:
    """The last value of a flag, which is the one that vLLM takes."""
    index = len(launch.argv) - 1 - launch.argv[::-1].index(flag)
    return launch.argv[index + 1]


def test_the_tutorials_command_line() -> None:
    launch = plan(None, *SERVER.lift(TUTORIAL).words, at=GPU)
    argv, env = launch.bind(
        Binding("127.0.0.1", 4321, Path("/env/bin/python"), Path("/store/r1"), "inner")
    )
    line = " ".join(argv)
    assert line.startswith("/env/bin/python -m vllm.entrypoints.cli.main serve /store/r1 --host")
    assert "--host 127.0.0.1 --port 4321 --served-model-name m" in line
    assert line.count("--tensor-parallel-size 2") == 1
    assert line.count("--max-model-len 8192") == 1
    assert line.count("--max-num-seqs 64") == 1
    assert "--dtype bfloat16" in line
    assert line.count("--gpu-memory-utilization") == 1
    assert "--gpu-memory-utilization 0.9" in line
    assert "--disable-log-stats" in line
    assert "--disable-log-requests" not in line
    assert "sk-1" not in line
    assert "inner" not in line
    assert env["VLLM_API_KEY"] == "inner"
    assert env["CUDA_VISIBLE_DEVICES"] == "0,1"
    assert launch.environment == "vllm-cuda"
    assert launch.slots == 64
    notes = " | ".join(launch.notes)
    assert "--disable-log-requests: left out" in notes


def test_gateway_flags_that_nobody_lifted_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"--port is not the engine's here") as refused:
        plan({"port": 8001})
    assert "gateway.port" in refused.value.hint


def test_gateway_flags_are_lifted() -> None:
    lifted = SERVER.lift(TUTORIAL)
    assert (lifted.host, lifted.port, lifted.api_keys) == ("0.0.0.0", 8001, ("sk-1",))
    assert (lifted.names, lifted.model) == (("r1",), "/models/r1")
    assert lifted.words == (
        "--tensor-parallel-size", "2", "--gpu-memory-utilization", "0.9", "--max-num-seqs", "64",
        "--max-model-len", "8192", "--dtype", "bfloat16",
        "--disable-log-requests", "--disable-log-stats",
    )  # fmt: skip
    with pytest.raises(ConfigError, match="lacks its value"):
        SERVER.lift(["--port"])
    with pytest.raises(ConfigError, match="'http'"):
        SERVER.lift(["--port=http"])


def test_the_tokenizer_is_told_where_it_is_switched_on() -> None:
    switch = "--enable-tokenizer-info-endpoint"
    assert "tokenizer_info" in plan(None, switch).capabilities
    assert "tokenizer_info" in plan({"enable_tokenizer_info_endpoint": True}).capabilities
    assert "tokenizer_info" not in plan().capabilities
    assert (
        "tokenizer_info" not in plan(None, switch, "--no" + switch.removeprefix("-")).capabilities
    )


def test_on_a_cpu() -> None:
    launch = plan()
    assert launch.environment == "vllm-cpu"
    assert "--enforce-eager" in launch.argv
    assert value(launch, "--kv-cache-memory-bytes") == str(512 * 1024**2)
    assert "--gpu-memory-utilization" not in launch.argv
    assert "VLLM_CPU_OMP_THREADS_BIND" not in launch.env
    assert launch.env["OMP_NUM_THREADS"] == "1"  # of two cores
    halves = plan(at={"tensor_parallel": 2, "threads": 8, "cpus": ((4, 6, 8), (12, 14, 16))})
    assert halves.env["VLLM_CPU_OMP_THREADS_BIND"] == "4,6,8|12,14,16"
    unbound = plan(at={"tensor_parallel": 2, "threads": 8})
    assert unbound.env["VLLM_CPU_OMP_THREADS_BIND"] == "nobind"
    assert unbound.env["OMP_NUM_THREADS"] == "4"
    assert "--enforce-eager" not in plan(None, "--no-enforce-eager").argv
    assert plan({"threads": 3}).env["OMP_NUM_THREADS"] == "3"


@pytest.mark.parametrize(
    ("options", "flags", "at", "alone"),
    [
        ({}, (), {}, True),
        ({}, (), {"threads": 16}, False),
        ({"threads": 16}, (), {"threads": 16}, True),
        ({}, (), {"tensor_parallel": 2, "threads": 4}, False),
        ({}, ("--distributed-executor-backend", "mp"), {}, False),
        ({}, ("--pipeline-parallel-size", "2"), {}, False),
        ({}, (), {"gpus": (0,)}, False),
    ],
)
def test_a_worker_of_its_own_only_where_threads_are_bound(
    options: dict[str, Any], flags: tuple[str, ...], at: dict[str, Any], alone: bool
) -> None:
    launch = plan(options, *flags, at=at)
    assert ("VLLM_ENABLE_V1_MULTIPROCESSING" in launch.env) == alone
    backend = "--distributed-executor-backend"
    assert (backend in launch.argv and value(launch, backend) == "uni") == alone
    if not alone:
        assert launch.argv.count(backend) == flags.count(backend)


@pytest.mark.parametrize("at", [{}, GPU])
def test_what_is_compiled_is_kept_by_version(at: dict[str, Any]) -> None:
    launch = plan(at=at)
    cache = Path("/cache/vllm-1")
    _, env = launch.bind(Binding("h", 1, Path("/env/bin/python"), Path("/m"), "k", cache=cache))
    assert launch.keeps_compiled
    assert {name for name, value in env.items() if value.startswith("/cache/vllm-1/")} == {
        *("VLLM_CACHE_ROOT", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"),
    }


def test_binding_that_the_user_asks_for_needs_a_worker() -> None:
    launch = plan(entry={"env": {"VLLM_CPU_OMP_THREADS_BIND": "0-1"}})
    assert "VLLM_ENABLE_V1_MULTIPROCESSING" not in launch.env


def test_on_gpus_the_planners_share_is_used_unless_the_user_gave_one() -> None:
    assert value(plan(at=GPU), "--gpu-memory-utilization") == "0.85"
    assert "--enforce-eager" not in plan(at=GPU).argv
    own = plan({"gpu_memory_utilization": 0.5}, at=GPU)
    assert own.argv.count("--gpu-memory-utilization") == 1
    assert value(own, "--gpu-memory-utilization") == "0.5"


def test_options_become_flags_as_vllms_parser_has_them() -> None:
    launch = plan(
        {
            "enable_prefix_caching": False,
            "trust_remote_code": True,
            "seed": 7,
            "hf_overrides": {"rope_theta": 1},
            "lora_target_modules": ["q_proj", "v_proj"],
            "middleware": ["one.M", "two.M"],
            "max_logprobs": None,
            "q": "awq",
        }
    )
    line = " ".join(launch.argv)
    assert "--no-enable-prefix-caching" in line
    assert "--trust-remote-code" in line
    assert "--seed 7" in line
    assert json.loads(value(launch, "--hf-overrides")) == {"rope_theta": 1}
    assert "--lora-target-modules q_proj v_proj" in line
    assert "--middleware one.M --middleware two.M" in line
    assert "max-logprobs" not in line
    assert "--quantization awq" in line


@pytest.mark.parametrize("name", TRANSLATIONS)
def test_every_translation_ends_in_flags_that_exist(name: str) -> None:
    assert name not in PINNED.flags, "still a flag: no translation wanted"
    sample = {"task": "embed", "rope_scaling": '{"rope_type": "yarn"}', "rope_theta": "10000"}
    words = TRANSLATIONS[name].words([sample.get(name, "1")])
    flags = [word[2:].replace("-", "_") for word in words if word.startswith("--")]
    assert all(flag in PINNED.flags for flag in flags), flags


def test_an_unknown_flag_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"vLLM 0\S+ has no flag --max-modle-length") as caught:
        plan(None, "--max-modle-length", "1")
    assert "--max-model-len" in caught.value.hint
    with pytest.raises(ConfigError, match="--zebra-crossing"):
        plan(None, "--zebra-crossing", "1")
    with pytest.raises(ConfigError, match="max-modle-length"):
        plan({"max_modle_length": 1})
    with pytest.raises(ConfigError, match="loopback"):
        plan(None, "--ssl-keyfile", "k.pem")


@pytest.mark.parametrize(
    ("words", "said", "hint"),
    [
        (["--dtype", "halff"], "--dtype cannot be 'halff'", "Did you mean half?"),
        (["--dtype"], "--dtype lacks its value", "--dtype VALUE"),
        (["--dtype", "half", "bfloat16"], "--dtype takes one value, found 2", "Quote"),
        (["--enforce-eager=False"], "takes no value, found 'False'", "--no-enforce-eager"),
        (["--enable-lora", "true"], "takes no value, found 'true'", "--enable-lora alone"),
        (["--reasoning-parser", "deepseek-r2"], "cannot be 'deepseek-r2'", "deepseek_r1"),
        (["--tool-call-parser", "hermess"], "cannot be 'hermess'", "Did you mean hermes?"),
        (["--max-lora-rank", "10"], "it is one of 1, 8, 16", ""),
        (["--hf-token", "hf_abcdefgh"], "every user of the machine can read it", "HF_TOKEN"),
        (["--help"], "print something and end", "docs.vllm.ai"),
        (["--headless"], "loopback behind the gateway", ""),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_values_are_checked_before_anything_starts(words: list[str], said: str, hint: str) -> None:
    with pytest.raises(ConfigError) as refused:
        plan(None, *words)
    assert said in refused.value.message
    assert hint in refused.value.hint
    assert "hf_abcdefgh" not in str(refused.value)


def test_values_that_only_vllm_can_judge_are_left_to_it() -> None:
    plugin = ["--tool-parser-plugin", "mine.py", "--tool-call-parser", "mine"]
    assert value(plan(None, *plugin), "--tool-call-parser") == "mine"
    assert value(plan(None, "--linear-backend", "Deep-Gemm"), "--linear-backend") == "Deep-Gemm"
    assert value(plan(None, "--quantization", "of-a-plugin"), "--quantization") == "of-a-plugin"


@pytest.mark.parametrize("words", [["-O3"], ["-O=3"], ["-O", "3"], ["--optimization-level", "3"]])
def test_the_optimization_level_in_every_spelling(words: list[str]) -> None:
    assert value(plan(None, *words), "--optimization-level") == "3"


def test_keys_of_json_flags_stay_as_they_are_written() -> None:
    flag = "--compilation-config.cudagraph_mode"
    assert value(plan(None, flag, "FULL"), flag) == "FULL"
    assert value(plan({"compilation_config.cudagraph_mode": "FULL"}), flag) == "FULL"


@pytest.mark.parametrize(
    ("source", "architecture", "reasoning", "tools"),
    [
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", "Qwen2ForCausalLM", "deepseek_r1", None),
        ("deepseek-ai/DeepSeek-R1", "DeepseekV3ForCausalLM", "deepseek_r1", "deepseek_v3"),
        ("Qwen/Qwen3-8B", "Qwen3ForCausalLM", "qwen3", "hermes"),
        ("Qwen/Qwen3-30B-A3B-Instruct-2507", "Qwen3MoeForCausalLM", None, "hermes"),
        ("Qwen/Qwen3-Coder-30B-A3B-Instruct", "Qwen3MoeForCausalLM", None, "qwen3_coder"),
        ("/models/mine", "Qwen3ForCausalLM", "qwen3", "hermes"),
        ("Qwen/Qwen2.5-7B-Instruct", "Qwen2ForCausalLM", None, "hermes"),
        ("openai/gpt-oss-20b", "GptOssForCausalLM", "openai_gptoss", "openai"),
        ("HuggingFaceTB/SmolLM2-135M", "LlamaForCausalLM", None, None),
    ],
)
def test_parsers_by_family(
    source: str, architecture: str, reasoning: str | None, tools: str | None
) -> None:
    launch = plan(architecture=architecture, entry={"source": source})
    found = {
        flag: value(launch, flag) if flag in launch.argv else None
        for flag in ("--reasoning-parser", "--tool-call-parser")
    }
    assert found == {"--reasoning-parser": reasoning, "--tool-call-parser": tools}
    assert ("--enable-auto-tool-choice" in launch.argv) == (tools is not None)
    assert sum("-parser" in note for note in launch.notes) == sum(
        parser is not None for parser in (reasoning, tools)
    )


@pytest.mark.parametrize(
    ("served", "source", "architecture", "reasoning"),
    [
        # A folder that says nothing: what clients call it is all there is to go by.
        ("DeepSeek-R1-Distill-Qwen-7B", "/models/m1", "Qwen2ForCausalLM", "deepseek_r1"),
        ("qwq-32b", "/models/m1", "Qwen2ForCausalLM", "deepseek_r1"),
        # A name that clients were used to, for a model that has no such tokens.
        ("deepseek-r1", "/models/m1", "LlamaForCausalLM", None),
        ("gpt-oss", "/models/m1", "LlamaForCausalLM", None),
        ("deepseek-r1", "Qwen/Qwen3-8B", "Qwen3ForCausalLM", "qwen3"),
    ],
)
def test_a_served_name_chooses_no_parser_for_another_model(
    served: str, source: str, architecture: str, reasoning: str | None
) -> None:
    launch = plan(architecture=architecture, entry={"source": source, "name": served})
    found = value(launch, "--reasoning-parser") if "--reasoning-parser" in launch.argv else None
    assert found == reasoning


def test_parsers_can_be_chosen_or_turned_off() -> None:
    entry = {"source": "Qwen/Qwen3-8B"}
    off = plan({"reasoning_parser": None, "tool_call_parser": None}, entry=entry)
    assert not any("parser" in word or "auto-tool" in word for word in off.argv)
    other = plan(None, "--reasoning-parser", "deepseek_r1", entry=entry)
    assert other.argv.count("--reasoning-parser") == 1
    assert value(other, "--reasoning-parser") == "deepseek_r1"


def test_an_embedding_model() -> None:
    launch = plan(pooling=True, architecture="Qwen3ForCausalLM", entry={"source": "Q/Qwen3-E"})
    assert "embeddings" in launch.capabilities
    assert "chat" not in launch.capabilities
    assert "--reasoning-parser" not in launch.argv


def test_another_version_has_flags_of_its_own() -> None:
    newer = VllmFlags("9.9", {**PINNED.flags, "zebra_crossing": "value"}, {"z": "zebra_crossing"})
    engine = Vllm(newer)
    entry = model(None, "-z", "1", "--zebra-crossing=2")
    launch = engine.plan(entry, facts("safetensors"), placement())
    assert launch.argv[-3:] == ("-z", "1", "--zebra-crossing=2")
    older = Vllm(VllmFlags("0.1", {"dtype": "value"}, {}))
    assert launch.argv[:5] == (
        "{python}", "-m", "vllm.entrypoints.openai.api_server", "--model", "{model}"
    )  # fmt: skip
    with pytest.raises(ConfigError, match=r"vLLM 0\.1 has no flag --seed"):
        older.plan(model(None, "--seed", "1"), facts("safetensors"), placement())


def test_the_planners_dtype_is_used_unless_the_user_gave_one() -> None:
    assert value(plan(at={**GPU, "dtype": "float16"}), "--dtype") == "float16"
    own = plan(None, "--dtype", "float32", at={**GPU, "dtype": "float16"})
    assert own.argv.count("--dtype") == 1
    assert value(own, "--dtype") == "float32"
    assert "--dtype" not in plan(at=GPU).argv


def test_what_it_has_begun_it_finishes() -> None:
    launch = plan()
    assert value(launch, "--shutdown-timeout") == "20"
    assert launch.stop_grace > 20
    assert not launch.stop_whole_group
    longer = plan(None, "--shutdown-timeout", "120")
    assert longer.argv.count("--shutdown-timeout") == 1
    assert longer.stop_grace > 120
    old = Vllm(VllmFlags("0.11.0", {k: v for k, v in PINNED.flags.items()
                                    if k != "shutdown_timeout"}, PINNED.short))  # fmt: skip
    launch = old.plan(model(None), facts("safetensors"), placement())
    assert "--shutdown-timeout" not in launch.argv


@pytest.mark.parametrize("name", ["tensor_parallel_size", "tensor-parallel-size"])
def test_an_option_by_vllms_own_name_is_no_misspelling(name: str) -> None:
    launch = plan({name: 2}, at=GPU)
    assert value(launch, "--tensor-parallel-size") == "2"
    with pytest.raises(ConfigError, match="tensor_paralel"):
        plan({"tensor_paralel": 2})


INTERNLM = {
    "architecture": "InternLM2ForCausalLM",
    "entry": {"source": "internlm/internlm2_5-7b-chat"},
}


def template(launch: LaunchPlan) -> str | None:
    return value(launch, "--chat-template") if "--chat-template" in launch.argv else None


def note(launch: LaunchPlan) -> str:
    (found,) = [note for note in launch.notes if note.startswith("chat template: ")]
    return found


def test_a_family_whose_own_template_takes_no_tools_gets_ours() -> None:
    launch = plan(**INTERNLM, chat_template=True)
    assert template(launch) == "{templates}/internlm2_5.jinja"
    assert note(launch) == (
        "chat template: yibu's for InternLM 2.5, because the model's own takes no tools"
        " (options.chat_template: FILE has another used)"
    )
    argv, _ = launch.bind(Binding("127.0.0.1", 1, Path("/p"), Path("/m"), "key"))
    assert Path(argv[argv.index("--chat-template") + 1]).is_file()
    assert "model's own is missing" in note(plan(**INTERNLM, chat_template=False))


@pytest.mark.parametrize(
    ("options", "facts"),
    [
        ({}, {"chat_template": True, "template_takes_tools": True}),
        ({"tool_call_parser": None}, {"chat_template": True}),  # no tools are wanted
    ],
)
def test_what_can_do_it_alone_keeps_its_own(options: Any, facts: Any) -> None:
    launch = plan(options, **INTERNLM, **facts)
    assert template(launch) is None
    assert note(launch).startswith("chat template: the one in the model's files (")


def test_the_users_template_wins() -> None:
    launch = plan({"chat_template": "/mine.jinja"}, **INTERNLM, chat_template=True)
    assert launch.argv.count("--chat-template") == 1
    assert template(launch) == "/mine.jinja"
    assert not [note for note in launch.notes if note.startswith("chat template")]
    launch = plan(None, "--chat-template=/mine.jinja", **INTERNLM, chat_template=True)
    assert "{templates}" not in " ".join(launch.argv)


def test_a_template_without_tools_of_a_family_without_ours_is_said() -> None:
    launch = plan(entry={"source": "deepseek-ai/DeepSeek-V3"}, chat_template=True)
    assert template(launch) is None
    assert "takes no tools: a request's tools do not reach the model" in note(launch)
    # A parser of the user's is the same.
    launch = plan({"tool_call_parser": "hermes"}, chat_template=True)
    assert "takes no tools" in note(launch)


def test_lora_adapters_are_fetched_and_served_under_their_names() -> None:
    launch = plan({"lora": {"sql": "hf:org/sql", "chat": "/a b/chat"}, "max_lora_rank": 64})
    assert launch.extra_sources == {"lora_0": "hf:org/sql", "lora_1": "/a b/chat"}
    extra = {"lora_0": "/store/sql", "lora_1": "/a b/chat"}
    argv, _ = launch.bind(Binding("127.0.0.1", 1, Path("/p"), Path("/m"), "key", extra=extra))
    at = argv.index("--lora-modules")
    assert [json.loads(word) for word in argv[at + 1 : at + 3]] == [
        {"name": "sql", "path": "/store/sql"},
        {"name": "chat", "path": "/a b/chat"},
    ]
    assert argv.count("--enable-lora") == 1
    assert value(launch, "--max-lora-rank") == "64"
    assert any("sql, chat beside the model" in note for note in launch.notes)
    assert plan({"lora": {"x": "/x"}, "enable_lora": True}).argv.count("--enable-lora") == 1
    assert "--enable-lora" not in plan().argv
    with pytest.raises(ConfigError, match="lora"):
        plan({"lora": ["a=/x"]})


@pytest.mark.parametrize(
    ("architecture", "flags", "able"),
    [
        ("LlamaForCausalLM", [], "chat"),
        ("LlamaForCausalLM", ["--runner", "pooling", "--convert", "embed"], "embeddings"),
        ("LlamaForCausalLM", ["--runner", "pooling", "--convert", "classify"], "rerank"),
        ("LlamaForCausalLM", ["--task", "score"], "rerank"),
        ("BertForSequenceClassification", [], "rerank"),
        ("BertForSequenceClassification", ["--convert", "embed"], "embeddings"),
        ("BertModel", [], "embeddings"),
    ],
)
def test_what_pooling_models_can_do(architecture: str, flags: list[str], able: str) -> None:
    pooling = not architecture.endswith("ForCausalLM")
    capabilities = plan(None, *flags, architecture=architecture, pooling=pooling).capabilities
    assert able in capabilities
    assert ("chat" in capabilities) == (able == "chat")
    assert ("embeddings" in capabilities) == (able == "embeddings")
