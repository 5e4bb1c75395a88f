"""Every spelling in the engines' flag tables, and not only those that somebody thought of."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from samples import facts, model, placement

from yibu.adopt import adopt_script
from yibu.config import ModelConfig
from yibu.engines.base import Engine
from yibu.engines.flags import FlagTable, is_flag, whole
from yibu.engines.llama_cpp import LlamaCpp
from yibu.engines.llama_cpp.settings import plain_value, supported
from yibu.engines.llama_cpp.table import ROWS, TABLE
from yibu.engines.registry import engines, servers
from yibu.engines.vllm import Vllm
from yibu.engines.vllm.table import PINNED
from yibu.errors import ConfigError, UsageError, YibuError

_VALUES = {
    "cache_type_k": "q8_0", "cache_type_v": "q8_0", "flash_attn": "on", "pooling": "mean",
    "numa": "distribute", "split_mode": "row", "load_mode": "mmap", "lazy_mode": "on",
    "rope_scaling": "yarn", "reasoning_format": "deepseek", "reasoning": "off",
    "chat_template_kwargs": '{"a": 1}', "tensor_split": "3,1", "fit": "on",
    "cache_type_k_draft": "q8_0", "cache_type_v_draft": "q8_0", "fit_target": "1024",
    "logit_bias": "15+1", "max_model_len": "256k", "kv_cache_memory_bytes": "1G",
    "gpu_memory_utilization": "0.5", "chat_template": "chatml", "temperature": "0.5",
    "chat_template_file": __file__,
}  # fmt: skip
_OPTIONS = frozenset({"reasoning_parser", "tool_call_parser"})
_TEXTS = frozenset(
    {"grammar", "slot_save_path", "media_path", "video_ffmpeg_dir", "lookup_cache_static",
     "lookup_cache_dynamic", "reasoning_budget_message", "reasoning_effort", "spec_draft_model",
     "mmproj", "mcp_servers_config", "mcp_servers_json", "tools_runtime"}
)  # fmt: skip


def words_for(table: FlagTable, name: str) -> list[str]:
    kind = table.flags[name]
    if kind in ("switch", "removed"):
        return []
    value = _VALUES.get(name) or ([*table.choices.get(name, ()), "1"][0])
    if name in _TEXTS:
        value = "/some/text"
    return [value, value] if kind == "pair" else [value]


def spellings(table: FlagTable) -> Iterator[tuple[str, str]]:
    """Each spelling with its flag's name."""
    for name in table.flags:
        yield name, name
    yield from table.short.items()
    yield from table.negations.items()


def dashed(table: FlagTable, spelling: str) -> str:
    long = spelling in table.flags or spelling in table.negations or len(spelling) > 6
    return ("--" if long else "-") + spelling.replace("_", "-")


def plain(table: FlagTable, word: str) -> list[str]:
    """A word of a command line without the choice of how a flag is spelt."""
    if not is_flag(word):
        return [word]
    flag, equals, value = word.partition("=")
    name, off = table.name(flag)
    return [f"{name} off" if off else name, *([value] if equals else [])]


def outcome(engine: Engine, table: FlagTable, entry: ModelConfig, form: str) -> tuple[str, Any]:
    """The command that is run, or why there is none, without the spelling that was used."""
    try:
        asked = engine.request(entry, None)
        launch = engine.plan(entry, facts(form), placement())
    except YibuError as error:
        return type(error).__name__, ""
    argv = tuple(one for word in launch.argv for one in plain(table, word))
    return "runs", (argv, launch.env, asked)


@pytest.mark.parametrize(
    ("engine", "table", "form"),
    [(LlamaCpp(), TABLE, "gguf"), (Vllm(), PINNED, "safetensors")],
    ids=["llama.cpp", "vllm"],
)
def test_a_flag_means_the_same_in_every_spelling_and_place(
    engine: Engine, table: FlagTable, form: str
) -> None:
    for spelling, name in spellings(table):
        words = words_for(table, name)
        off = table.name(spelling)[1]
        by_name_on = model(
            None, dashed(table, name) if not off else dashed(table, spelling), *words
        )
        by_spelling = model(None, dashed(table, spelling), *words)
        values = [plain_value(word) for word in words]
        option: Any = (values[0] if len(values) == 1 else values) if values else True
        by_option = model({spelling: option})
        expected = outcome(engine, table, by_name_on, form)
        assert outcome(engine, table, by_spelling, form) == expected, spelling
        got = outcome(engine, table, by_option, form)
        assert got[0] == expected[0], (spelling, got, expected)
        if got[0] == "runs":
            assert got[1][2] == expected[1][2], f"the planner reads {spelling} otherwise"
            # An option of yibu's own is written elsewhere on the command line.
            assert name in _OPTIONS or got == expected, spelling


def test_llama_servers_flags_are_understood_or_refused_by_name() -> None:
    table = TABLE
    known = supported(TABLE.flags)
    for spelling, name in spellings(TABLE):
        entry = model(None, dashed(table, spelling), *words_for(TABLE, name))
        refused: YibuError | None = None
        try:
            LlamaCpp().check(entry)
        except YibuError as error:
            refused = error
        if refused is None:
            assert known[name], spelling
            continue
        said = refused.message.replace("-", "_")
        assert spelling in said or name in said, f"{spelling}: {refused}"
        assert "has no option" not in said, spelling
        assert refused.hint, spelling


def test_llama_servers_variables_count_as_flags() -> None:
    entry = ModelConfig(
        "m",
        env={"LLAMA_ARG_CTX_SIZE": "8192", "LLAMA_ARG_N_PARALLEL": "4", "LLAMA_ARG_CACHE_RAM": "0"},
    )
    asked = LlamaCpp().request(entry, None)
    assert (asked.context, asked.parallel, asked.prompt_cache) == (2048, 4, 0)
    entry = ModelConfig("m", env={"LLAMA_ARG_MMAP": "0", "LLAMA_ARG_NO_CONT_BATCHING": "1"})
    argv = LlamaCpp().plan(entry, facts(), placement()).argv
    assert "cont_batching=false" in argv
    # A flag wins over its variable.
    entry = ModelConfig("m", flags=("-c", "1024"), env={"LLAMA_ARG_CTX_SIZE": "8192"})
    assert LlamaCpp().request(entry, None).context == 1024


@pytest.mark.parametrize(
    ("flags", "context", "parallel"),
    [
        (("-c", "16384", "-np", "4"), 4096, 4),
        (("-c", "16384", "-np", "4", "-kvu"), 16384, 4),
        (("-c", "16384"), 16384, 1),
        (("-c", "0"), None, None),
        (("-np", "-1"), None, None),
    ],
)
def test_the_context_of_llama_server_is_of_all_its_slots(
    flags: tuple[str, ...], context: int | None, parallel: int | None
) -> None:
    asked = LlamaCpp().request(ModelConfig("m", flags=flags), None)
    assert (asked.context, asked.parallel) == (context, parallel)


@pytest.mark.parametrize(
    ("text", "number"),
    [("256k", 256_000), ("256K", 262_144), ("1M", 1 << 20), ("1m", 10**6), ("25.6k", 25_600),
     ("1g", 10**9), ("4096", 4096)],
)  # fmt: skip
def test_numbers_are_read_as_vllm_reads_them(text: str, number: int) -> None:
    """``human_readable_int`` of vLLM's argument parser gave the numbers."""
    assert whole(text) == number
    entry = ModelConfig("m", flags=("--max-model-len", text))
    assert Vllm().request(entry, None).context == number
    entry = ModelConfig("m", options={"max_model_len": text})
    assert Vllm().request(entry, None).context == number


def test_a_binary_unit_takes_no_fraction() -> None:
    with pytest.raises(ValueError, match=r"25\.6"):
        whole("25.6K")


@pytest.mark.parametrize("server", servers(), ids=lambda server: next(iter(server.programs)))
def test_what_adopt_writes_the_engine_takes(server: Any) -> None:
    """Every flag of the table becomes an entry that its engine takes and plans for alike, or is
    refused by the line and its name."""
    (engine,) = [engine for engine in engines() if engine.server is server]
    program, after = next(iter(server.programs.items()))
    unread: list[str] = []
    file = "/m/x.gguf" if ".gguf" in engine.suffixes else "/m/x"
    for spelling, name in spellings(server.table):
        if server.roles.get(name) is not None or name in server.ends:
            continue
        words = words_for(server.table, name)
        flags = (dashed(server.table, spelling), *words)
        line = shlex.join([program, *after, "--model", file, "--host", "127.0.0.1", *flags])
        try:
            adoption = adopt_script(line)
        except UsageError as error:
            unread.append(error.message)
            continue
        (entry,) = yaml.load(adoption.to_yaml(), yaml.CSafeLoader)["models"]
        adopted = ModelConfig("m", options=entry.get("options", {}))
        engine.check(adopted)
        bare = ModelConfig("m", flags=flags)
        if server.left_out(name) is None:
            ours, theirs = engine.request(adopted, None), engine.request(bare, None)
            # Of a --ctx-size alone adopt leaves the number of sequences to the plan.
            if name == "ctx_size":
                ours, theirs = ours.context, theirs.context  # type: ignore[assignment]
            assert ours == theirs, spelling
    assert [message for message in unread if not message.startswith("line 1: ")] == []


def test_llama_servers_table_is_whole() -> None:
    """Each row of llama.cpp's own parser is in the table with all its spellings."""
    for names, negated, _, _ in ROWS:
        found = {TABLE.name(word)[0] for word in names.split()}
        assert len(found) == 1, names
        for word in negated.split():
            assert TABLE.name(word) == (next(iter(found)), True), word
    assert len(ROWS) > 250
    assert json.dumps(sorted(TABLE.flags))  # plain text, for whoever prints it


@pytest.mark.parametrize("server", servers(), ids=lambda server: next(iter(server.programs)))
def test_what_a_plan_refuses_a_check_refuses(server: Any) -> None:
    (engine,) = [engine for engine in engines() if engine.server is server]
    form = "gguf" if ".gguf" in engine.suffixes else "safetensors"
    at = placement() if form == "gguf" else placement(gpus=(0,))
    for name in server.table.flags:
        for values in ((), ("nonsense",), ("-5",), ("1.5",), ("a", "b")):
            entry = model(None, "--" + name.replace("_", "-"), *values)

            def checked(entry: ModelConfig = entry) -> None:
                engine.check(entry)
                engine.request(entry, facts(form))

            def planned(entry: ModelConfig = entry) -> None:
                engine.plan(entry, facts(form), at)

            assert is_refused(checked) or not is_refused(planned), (name, values)


def is_refused(action: Any) -> bool:
    try:
        action()
    except YibuError:
        return True
    return False


@pytest.mark.parametrize(
    "flags",
    [("--seed", "many"), ("--pipeline-parallel-size", "1.5"), ("--max-num-batched-tokens", "8kk"),
     ("--cudagraph-capture-sizes", "1", "x"), ("--limit-mm-per-prompt", "image=2")],
)  # fmt: skip
def test_a_value_that_vllms_parser_would_refuse_is_refused(flags: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match=r"has to be .*(number|JSON)"):
        Vllm().check(model(None, *flags))


def test_a_list_for_a_flag_that_takes_json_is_json() -> None:
    (flag,) = PINNED.of_options({"allowed_methods": ["GET", "POST"]})
    assert json.loads(flag.values[0]) == ["GET", "POST"]
