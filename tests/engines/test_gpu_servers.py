"""SGLang and LMDeploy: their plans, flags, parsers, requests and what their logs say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from samples import facts, model, placement

from yibu.engines.base import Binding, Engine, LaunchPlan
from yibu.engines.causes import explain
from yibu.engines.families import families
from yibu.engines.registry import by_name, engines
from yibu.engines.requests import Abilities, ModelContext
from yibu.engines.servers import ServerCommand
from yibu.errors import ConfigError, InvalidRequestError, UnsupportedError
from yibu.planner.cache import CacheGroup
from yibu.planner.plan import plan as place
from yibu.planner.types import Gpu, Machine, MemoryNeed

MIB, GIB = 1024**2, 1024**3
SOURCE = Path(__file__).parents[2] / "src"
NEED = MemoryNeed(weights=16 * GIB, kv_cache=8 * GIB, overhead=2 * GIB)
GPUS = {"gpus": (0, 1), "tensor_parallel": 2, "need": NEED, "parallel": 64, "context": 8192}
NAMES = ("sglang", "lmdeploy")


def plan(
    engine: str, options: dict[str, Any] | None = None, *flags: str, **values: Any
) -> LaunchPlan:
    entry = {"source": values.pop("source", "ORG/NAME"), "name": "m"}
    at = placement(**values.pop("at", GPUS))
    return by_name(engine).plan(model(options, *flags, **entry), facts("safetensors", **values), at)


def command_line(engine: Engine) -> ServerCommand:
    assert engine.server is not None
    return engine.server


def after(launch: LaunchPlan, flag: str) -> str:
    return launch.argv[launch.argv.index(flag) + 1]


# ---------------------------------------------------------------------------- plans


def test_sglangs_command_line() -> None:
    launch = plan("sglang", {"quantization": "fp8", "enable_mixed_chunk": True})
    line = " ".join(launch.argv)
    assert line.startswith(
        f"{{python}} -m yibu.launchers.sglang --static-bytes {24 * GIB} -- --model-path {{model}} "
        "--host {host} --port {port} --served-model-name m"
    )
    assert after(launch, "--context-length") == "8192"
    assert after(launch, "--max-running-requests") == "64"
    assert after(launch, "--tp-size") == "2"
    assert line.endswith("--quantization fp8 --enable-mixed-chunk")
    assert "--enable-metrics" in launch.argv
    assert (launch.environment, launch.ready_path) == ("sglang", "/health")
    assert not launch.stop_whole_group


def test_lmdeploys_command_line() -> None:
    launch = plan("lmdeploy", {"quant_policy": 8}, "--enable-prefix-caching")
    line = " ".join(launch.argv)
    assert line.startswith(
        f"{{python}} -m yibu.launchers.lmdeploy --weight-bytes {16 * GIB} --cache-bytes {8 * GIB} "
        "-- {model} --server-name {host} --server-port {port} --model-name m"
    )
    assert after(launch, "--session-len") == "8192"
    assert after(launch, "--max-batch-size") == "64"
    assert after(launch, "--tp") == "2"
    assert line.endswith("--quant-policy 8 --enable-prefix-caching")
    assert launch.capabilities == {"chat", "completions", "responses"}


@pytest.mark.parametrize("engine", NAMES)
def test_the_key_travels_by_a_variable(engine: str) -> None:
    launch = plan(engine)
    binding = Binding("127.0.0.1", 4321, Path("/env/python"), Path("/store/m"), "inner-key")
    argv, env = launch.bind(binding)
    assert not [word for word in argv if "inner-key" in word or "{" in word]
    assert env[str(launch.key_variable)] == "inner-key"
    assert env["CUDA_VISIBLE_DEVICES"] == "0,1"


@pytest.mark.parametrize("engine", NAMES)
def test_what_they_do_not_serve(engine: str) -> None:
    with pytest.raises(UnsupportedError, match="runs on GPUs"):
        plan(engine, at={"gpus": ()})
    gguf = by_name(engine).supports(model(), facts("gguf"))
    assert not gguf.supported
    ranks = facts("safetensors", architecture="Qwen3ForSequenceClassification", pooling=True)
    assert not by_name(engine).supports(model(), ranks).supported


def test_embeddings_are_sglangs() -> None:
    launch = plan("sglang", pooling=True, architecture="Qwen3Model")
    assert "--is-embedding" in launch.argv
    assert launch.capabilities == {"embeddings", "tokenize"}
    assert "lmdeploy's server makes no embeddings" in (
        by_name("lmdeploy").supports(model(), facts("safetensors", pooling=True)).reason
    )


@pytest.mark.parametrize(
    ("engine", "flag"),
    [("sglang", "--mem-fraction-static"), ("lmdeploy", "--cache-max-entry-count")],
)
def test_a_fraction_of_the_users_wins(engine: str, flag: str) -> None:
    launch = plan(engine, None, flag, "0.4")
    assert launch.argv.count(flag) == 1
    assert launch.argv[3] == "--"


@pytest.mark.parametrize("engine", NAMES)
def test_adapters(engine: str) -> None:
    launch = plan(engine, {"lora": {"sql": "ORG/SQL"}})
    assert "sql={lora_0}" in launch.argv
    assert launch.extra_sources == {"lora_0": "ORG/SQL"}
    if engine == "lmdeploy":
        assert after(launch, "--backend") == "pytorch"  # TurboMind takes none


# ---------------------------------------------------------------------------- flags


@pytest.mark.parametrize(
    ("engine", "flags", "said", "hint"),
    [
        ("sglang", ("--mem-fraction-statik", "0.8"), "has no flag", "--mem-fraction-static"),
        ("sglang", ("--tool-call-parser", "qwen2"), "cannot be 'qwen2'", "qwen"),
        ("sglang", ("--enable-metrics", "yes"), "takes no value", "--enable-metrics alone"),
        ("sglang", ("--api-key", "sk"), "not the engine's", "gateway.api_keys"),
        ("sglang", ("--port", "1"), "not the engine's", "gateway.port"),
        ("sglang", ("--dp", "2"), "--dp-size cannot be used", "replicas: N"),
        ("sglang", ("--nnodes", "2"), "cannot be used", "engine: command"),
        ("sglang", ("--ssl-keyfile", "k"), "cannot be used", "plain HTTP"),
        ("lmdeploy", ("--cache-max-entry", "a", "b"), "takes one value", "Quote"),
        ("lmdeploy", ("--model-format", "ggml"), "cannot be 'ggml'", "Choose"),
        ("lmdeploy", ("--server-port", "1"), "not the engine's", "gateway.port"),
        ("lmdeploy", ("--api-keys", "a", "b"), "not the engine's", "gateway.api_keys"),
        ("lmdeploy", ("--dp", "2"), "cannot be used", "replicas: N"),
        ("lmdeploy", ("--proxy-url", "http://x"), "cannot be used", "LMDeploy's proxy"),
    ],
)
def test_flags_are_checked_before_anything_starts(
    engine: str, flags: tuple[str, ...], said: str, hint: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)) as caught:
        by_name(engine).check(model(None, *flags))
    assert hint in str(caught.value.hint)


@pytest.mark.parametrize(
    ("engine", "flags", "option"),
    [
        ("sglang", ("--tp", "4", "--context-len", "4096"), {}),  # argparse takes beginnings
        ("sglang", ("--tensor-parallel-size=4", "--context-length", "4096"), {}),
        ("sglang", (), {"tensor_parallel": 4, "context": 4096}),
        ("sglang", (), {"tp-size": 4, "context_length": 4096}),
        ("lmdeploy", ("--tp", "4", "--session-len", "4096"), {}),
        ("lmdeploy", (), {"tp": 4, "context": 4096}),
    ],
)
def test_the_planner_reads_them_by_the_same_table(
    engine: str, flags: tuple[str, ...], option: dict[str, Any]
) -> None:
    entry = model(option, *flags)
    asked = by_name(engine).request(entry, facts("safetensors"))
    assert (asked.tensor_parallel, asked.context, asked.rule) == (4, 4096, "paged")
    launch = by_name(engine).plan(entry, facts("safetensors"), placement(**GPUS))
    assert "8192" in launch.argv  # the placement's: what was asked for is not given a second time
    assert "4096" not in launch.argv


@pytest.mark.parametrize("engine", NAMES)
def test_another_version_is_held_against_its_own_flags(engine: str) -> None:
    flags = {"tp": "value", "new_switch": "switch", "dtype": "value", "reasoning_parser": "value"}
    plain = {"version": "9.9", "flags": flags, "short": {"n": "new_switch"}, "negations": {},
             "choices": {"dtype": ["auto"]}}  # fmt: skip
    newer = by_name(engine).with_flags(plain)
    newer.check(model(None, "--new-switch"))
    with pytest.raises(ConfigError, match=r"9\.9 has no flag --chat-template"):
        newer.check(model({"chat_template": "x"}))
    with pytest.raises(ConfigError, match="no flag --new-switch"):
        by_name(engine).check(model(None, "--new-switch"))


def test_an_8_bit_cache_counts_half() -> None:
    sizes = {}
    for engine, options in (("sglang", {"kv_cache_dtype": "fp8_e5m2"}), ("lmdeploy", {"quant_policy": 8}),
                            ("vllm", {"kv_cache_dtype": "fp8"})):  # fmt: skip
        sizes[engine] = by_name(engine).request(model(options), facts("safetensors")).kv_dtype
    from yibu.planner.arithmetic import kv_element_bytes

    assert {kv_element_bytes(kind) for kind in sizes.values()} == {1.0}


@pytest.mark.parametrize("engine", NAMES)
def test_switches_that_are_off_are_left_out(engine: str) -> None:
    off = {"sglang": {"enable_mixed_chunk": False, "enable_tf32_matmul": False},
           "lmdeploy": {"enable_prefix_caching": False}}  # fmt: skip
    words = plan(engine, off[engine]).argv
    assert ("--no-enable-tf32-matmul" in words) == (engine == "sglang")  # the one with a negation
    assert not [word for word in words if "mixed-chunk" in word or "prefix-caching" in word]


@pytest.mark.parametrize("engine", NAMES)
def test_tables_have_no_name_twice(engine: str) -> None:
    table = command_line(by_name(engine)).table
    assert not set(table.short) & set(table.flags)
    assert {*table.short.values(), *table.negations.values(), *table.choices} <= set(table.flags)
    for name in ("trust_remote_code", "reasoning_parser", "tool_call_parser", "dtype"):
        assert name in table.flags


@pytest.mark.parametrize("engine", ["vllm", *NAMES])
def test_every_family_names_parsers_that_exist(engine: str) -> None:
    choices = command_line(by_name(engine)).table.choices
    for family in families(engine):
        reasoning, tools = family.parsers.reasoning, family.parsers.tools
        assert reasoning is None or reasoning in choices["reasoning_parser"], family.title
        assert tools is None or tools in choices["tool_call_parser"], family.title
        assert reasoning or tools or engine != "vllm", family.title


@pytest.mark.parametrize(
    ("engine", "source", "reasoning", "tools"),
    [
        ("sglang", "Qwen/Qwen3-8B", "qwen3", "qwen"),
        ("sglang", "deepseek-ai/DeepSeek-V3.1", "deepseek-v3", "deepseekv31"),
        ("sglang", "openai/gpt-oss-20b", "gpt-oss", "gpt-oss"),
        ("lmdeploy", "Qwen/Qwen3-8B", "default", "qwen3"),
        ("lmdeploy", "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", "default", None),
    ],
)
def test_parsers_by_family(engine: str, source: str, reasoning: str, tools: str | None) -> None:
    launch = plan(engine, source=source)
    assert after(launch, "--reasoning-parser") == reasoning
    assert tools is None or after(launch, "--tool-call-parser") == tools
    none = plan(engine, {"reasoning_parser": None, "tool_call_parser": None}, source=source)
    assert not {"--reasoning-parser", "--tool-call-parser"} & set(none.argv)


def test_a_card_of_a_model_with_another_beside_it() -> None:
    card = Gpu(0, "G", 80 * GIB, 79 * GIB, (9, 0))
    machine = Machine("m", 16, 32, 64 * GIB, 64 * GIB, (card,))
    shape = {"weight_bytes": 16 * GIB, "layers": 36, "attention_heads": 32, "kv_heads": 8,
             "head_dim": 128, "max_context": 40960, "dtype": "bfloat16",
             "cache": (CacheGroup("full", layers=36, heads=8, width=256),)}  # fmt: skip
    found = facts("safetensors", architecture="Qwen3ForCausalLM", **shape)
    entries = [(name, model(name=name, source="ORG/NAME", engine=name)) for name in NAMES]
    verdicts = place([by_name(n).request(entry, found) for n, entry in entries], machine)
    taken = 0
    for (name, entry), verdict in zip(entries, verdicts, strict=True):
        assert verdict.placement is not None
        launch = by_name(name).plan(entry, found, verdict.placement)
        flags = ("--static-bytes",) if name == "sglang" else ("--weight-bytes", "--cache-bytes")
        taken += sum(int(after(launch, flag)) for flag in flags)
        assert launch.starts_alone
    assert 60 * GIB < taken < 79 * GIB


# ---------------------------------------------------------------------------- requests, errors, logs


def test_adapters_of_sglang_are_named_beside_the_model() -> None:
    launch = plan("sglang", {"lora": {"sql": "ORG/SQL"}})
    table = by_name("sglang").requests
    for name, expected in (("sql", "sql"), ("m", None)):
        body: dict[str, Any] = {"model": name, "messages": []}
        table.prepare("/v1/chat/completions", body, ModelContext(name, "sglang", launch.abilities))
        assert body.get("lora_path") == expected


def test_sglang_is_told_to_store_nothing() -> None:
    body = {"model": "m", "input": "a"}
    by_name("sglang").requests.prepare("/v1/responses", body, ModelContext("m", "sglang"))
    assert body["store"] is False


def test_the_engine_behind_lmdeploy_decides_what_it_heeds() -> None:
    table = by_name("lmdeploy").requests
    body = {"model": "m", "messages": [], "logit_bias": {"1": 2}}
    on_pytorch = plan("lmdeploy", {"backend": "pytorch"}).abilities
    table.prepare("/v1/chat/completions", dict(body), ModelContext("m", "lmdeploy", on_pytorch))
    turbomind = Abilities(features=frozenset())
    with pytest.raises(InvalidRequestError, match="logit_bias"):
        table.prepare("/v1/chat/completions", dict(body), ModelContext("m", "lmdeploy", turbomind))


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        ("sglang", "Input length (9000 tokens) exceeds the maximum allowed length (8186 tokens)."),
        ("sglang", "The input (9000 tokens) is longer than the model's context length (8192 tokens)."),
        ("sglang", "Requested token count exceeds the model's maximum context length of 8192 tokens. "),
        ("lmdeploy", "Input length (9000) must be smaller than the model context length (8192)."),
    ],
)  # fmt: skip
def test_a_prompt_that_is_too_long(engine: str, message: str) -> None:
    answers = by_name(engine).answers
    fault = answers.request_fault("chat", 400, {"message": message, "code": 400})
    assert (fault.code, fault.param) == ("context_length_exceeded", "messages")
    assert answers.request_fault("chat", 400, {"message": "temperature must be …"}) is None


LOG = [
    ("sglang", ("RuntimeError: Not enough memory. Please try to increase --mem-fraction-static. Current "
                "value: mem_fraction_static=0.5"), "kv_cache_too_small", "mem_fraction_static: 0.5"),
    ("sglang", ("ValueError: Loaded weights leave no GPU memory for the KV cache under "
                "--mem-fraction-static=0.3. Raise --mem-fraction-static"), "kv_cache_too_small", "KV"),
    ("sglang", ("ValueError: Warning: User-specified context_length (99999) is greater than the derived "
                "context_length (40960). This"), "model_length_too_long", "40960 tokens"),
    ("sglang", "Exception: Capture cuda graph failed: CUDA out of memory. Tried to allocate",
     "cuda_graph_memory", "CUDA out of memory"),
    ("sglang", "ValueError: Model architectures ['FooForCausalLM'] are not supported for now. Supported",
     "unsupported_architecture", "FooForCausalLM"),
    ("sglang", ("RuntimeError: The memory capacity is unbalanced. Some GPUs may be occupied by other "
                "processes. pre_model_load_memory=20.1"), "gpus_unbalanced", "different amounts"),
    ("sglang", "[2026-11-28 10:00:00 TP0] Scheduler hit an exception: Traceback (most recent call last)",
     "scheduler_died", "scheduler failed"),
    ("lmdeploy", "RuntimeError: No enough gpu memory for kv cache.", "kv_cache_too_small", "KV cache"),
    ("lmdeploy", "RuntimeError: [TM][ERROR] CUDA runtime error: out of memory /src/allocator.h:231",
     "out_of_memory", "Memory ran out"),
    ("lmdeploy", "[TM][FATAL] object-cache path expects 0 < cache_max_block_count < 1", "bad_cache_ratio",
     "between 0 and 1"),
    ("lmdeploy", "ValueError: The tool parser hermes is not in the parser list: dict_keys(['qwen'])",
     "bad_parser", "named hermes"),
    ("lmdeploy", "RuntimeError: Failed to find valid checkpoint under '/models/x'", "bad_path", "/models/x"),
]  # fmt: skip


@pytest.mark.parametrize(("engine", "line", "cause", "said"), LOG)
def test_failures_in_words(engine: str, line: str, cause: str, said: str) -> None:
    found = explain(f"starting\n{line}\n", by_name(engine).causes, exit_code=1)
    assert (found.cause, said in found.message) == (cause, True), found


PHASES = [
    ("sglang", "[2026-11-28 10:00:00] Load weight begin. avail mem=78.50 GB", "load"),
    ("sglang", "Loading safetensors checkpoint shards:   0% Completed | 0/4 [00:00<?, ?it/s]", "load"),
    ("sglang", "[2026-11-28 10:00:00] Memory pool end. avail mem=9.50 GB", "warm-up"),
    ("sglang", "[2026-11-28 10:00:00] Capture decode cuda graph begin. This can take", "warm-up"),
    ("lmdeploy", "Loading:  12%|█▏        | 4/32 [00:01<00:09,  2.9it/s]", "load"),
    ("lmdeploy", "Loading weights from safetensors:  50%|█████     | 2/4", "load"),
    ("lmdeploy", "HINT:    Please open http://127.0.0.1:4321 in a browser", "warm-up"),
]  # fmt: skip


@pytest.mark.parametrize(("engine", "line", "phase"), PHASES)
def test_phases_of_a_start(engine: str, line: str, phase: str) -> None:
    assert [m.phase for m in by_name(engine).phases if m.pattern.search(line)] == [phase]


def test_the_registry_has_them_after_vllm() -> None:
    """An entry that names no engine goes on as before."""
    names = [engine.name for engine in engines()]
    assert names.index("vllm") < names.index("sglang") < names.index("lmdeploy")
