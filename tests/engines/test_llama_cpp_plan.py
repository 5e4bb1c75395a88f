"""The llama.cpp engine: options, flags and placement to the launcher's command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from samples import MIB, facts, model, placement

from yibu.engines.base import Binding, LaunchPlan
from yibu.engines.llama_cpp.engine import KEY_VARIABLE, LlamaCpp
from yibu.errors import ConfigError, UnsupportedError
from yibu.launchers.llama_cpp import LaunchError, find_model
from yibu.planner.types import MemoryNeed, Offload

ENGINE = LlamaCpp()


def plan(options: dict[str, Any] | None = None, *flags: str, **values: Any) -> LaunchPlan:
    at = placement(**values.pop("at", {}))
    return ENGINE.plan(model(options, *flags), facts(**values), at)


def fields(launch: LaunchPlan) -> dict[str, Any]:
    found = {}
    for flag, text in zip(launch.argv, launch.argv[1:], strict=False):
        if flag == "--set":
            name, _, value = text.partition("=")
            found[name] = json.loads(value)
    return found


def test_what_the_planner_placed_is_what_runs() -> None:
    launch = plan(at={"context": 2048, "parallel": 8, "threads": 3})
    assert launch.slots == 8
    got = fields(launch)
    assert got["n_ctx"] == 2048 * 8
    assert got["n_parallel"] == 8
    assert got["cpuparams.n_threads"] == got["cpuparams_batch.n_threads"] == 3
    assert got["n_gpu_layers"] == 0
    assert got["n_threads_http"] > 8


def test_the_engines_own_context_field_does_not_overrule_the_plan() -> None:
    got = fields(plan({"n_ctx": 10_000_000}, at={"context": 2048, "parallel": 2}))
    assert (got["n_ctx"], got["n_parallel"]) == (4096, 2)


def test_past_prompts_get_what_the_plan_or_the_user_says() -> None:
    assert fields(plan(at={"prompt_cache": 192 * MIB}))["cache_ram_mib"] == 192
    assert fields(plan({"prompt_cache": 0}, at={"prompt_cache": 0}))["cache_ram_mib"] == 0
    assert fields(plan({"prompt_cache": -1}, at={"prompt_cache": MIB}))["cache_ram_mib"] == -1
    assert fields(plan(None, "--cache-ram", "64"))["cache_ram_mib"] == 64
    # Never llama.cpp's own 8 GiB.
    assert fields(plan())["cache_ram_mib"] == 1024


def test_embeddings_share_one_cache_unless_told_otherwise() -> None:
    assert "kv_unified" not in fields(plan())
    assert fields(plan({"embeddings": True}))["kv_unified"] is True
    assert fields(plan({"embeddings": True, "kv_unified": False}))["kv_unified"] is False


def test_no_secret_on_the_command_line_and_no_path_before_binding() -> None:
    launch = plan()
    binding = Binding("127.0.0.1", 4321, Path("/env/bin/python"), Path("/m.gguf"), "inner-key")
    argv, env = launch.bind(binding)
    assert argv[:3] == ["/env/bin/python", "-m", "yibu.launchers.llama_cpp"]
    assert argv[argv.index("--port") + 1] == "4321"
    assert env[KEY_VARIABLE] == "inner-key"
    assert "inner-key" not in " ".join(argv)
    assert env["OMP_WAIT_POLICY"] == "passive"


def test_options_and_engine_fields_and_flags_meet_in_the_same_place() -> None:
    by_option = fields(plan({"cache_type_k": "q8_0", "flash_attention": True}))
    by_flag = fields(plan(None, "-ctk", "q8_0", "-fa", "on"))
    assert by_option == by_flag
    assert by_option["cache_type_k"] == "q8_0"
    assert by_option["flash_attn_type"] == "enabled"
    assert fields(plan({"n_keep": 7}))["n_keep"] == 7
    assert fields(plan({"sampling.top_k": 5}))["sampling.top_k"] == 5
    assert fields(plan(None, "--top-k", "5"))["sampling.top_k"] == 5
    assert fields(plan(None, "--no-mmap"))["load_mode"] == "none"


def test_flags_win_over_options() -> None:
    assert fields(plan({"n_keep": 1}, "--keep", "9"))["n_keep"] == 9


@pytest.mark.parametrize(
    ("options", "flags", "said"),
    [
        ({"contxt": 1}, (), "'context'"),
        ({"n_kep": 1}, (), "'n_keep'"),
        ({}, ("--n-gpu-layer", "3"), "'gpu_layers'|'n_gpu_layers'"),
        ({"context": "many"}, (), "an integer, found 'many'"),
        ({"pooling": "median"}, (), "found 'median'"),
        ({"n_keep": "much"}, (), "of type int, found 'much'"),
        ({"numa": "sometimes"}, (), "one of disabled, distribute"),
        ({"warmup": 1}, (), "takes no value"),
        ({"endpoint_props": 1}, (), "of type bool"),
        ({"port": 1}, (), "not the engine's here"),
        ({}, ("--api-key", "x"), "not the engine's here"),
        ({}, ("--host", "0.0.0.0"), "not the engine's here"),
        ({}, ("stray",), "not a flag"),
        ({}, ("--keep", "1", "2"), "takes one value"),
    ],
)
def test_mistakes_are_named(options: dict[str, Any], flags: tuple[str, ...], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        plan(options, *flags)
    import re

    assert re.search(said, str(caught.value)), str(caught.value)


def test_capabilities() -> None:
    assert {"chat", "completions"} <= plan().capabilities
    assert "embeddings" not in plan().capabilities
    both = plan({"embeddings": True})
    assert {"chat", "embeddings"} <= both.capabilities
    assert fields(both)["pooling_type"] == "mean"
    assert any("mean" in note for note in both.notes)
    assert "chat" not in plan(pooling=True).capabilities
    assert "pooling_type" not in fields(plan(pooling=True))  # the model's own
    assert plan({"pooling": "rank"}).capabilities == {"rerank"}


NEED = MemoryNeed(1, 1, 1)


def offload(layers: int = 12, moe: int = 0, *split: int) -> Offload:
    cards = split or (layers,)
    return Offload(layers, 31, moe, cards, (), (NEED,) * len(cards), NEED)


def test_a_build_with_gpus_is_told_what_was_planned() -> None:
    got = fields(plan(at={"gpus": (1,), "offload": offload()}))
    assert (got["fit_params"], got["n_gpu_layers"]) == (False, 12)
    got = fields(plan(at={"gpus": (1, 2), "offload": offload(31, 0, 16, 15)}))
    assert (got["n_gpu_layers"], got["tensor_split"]) == (999, [16, 15])
    assert fields(plan(at={"gpus": (1,), "offload": offload(31, 4)}))["fit_params"] is True
    assert plan(at={"gpus": (1, 2)}).env["CUDA_VISIBLE_DEVICES"] == "1,2"


def test_only_gguf() -> None:
    verdict = ENGINE.supports(model(), facts("safetensors"))
    assert not verdict.supported
    assert "safetensors" in verdict.reason
    with pytest.raises(UnsupportedError, match="safetensors"):
        ENGINE.plan(model(), facts("safetensors"), placement())


def test_the_file_that_the_planner_read_is_the_one_that_is_opened(tmp_path: Path) -> None:
    launch = plan(files=("big/m-00001-of-00002.gguf", "big/m-00002-of-00002.gguf"))
    assert launch.argv[launch.argv.index("--file") + 1] == "big/m-00001-of-00002.gguf"
    assert "--file" not in plan().argv
    for name in ("a.gguf", "b.gguf", "mmproj-a.gguf"):
        (tmp_path / name).write_bytes(b"GGUF")
    assert find_model(tmp_path, "b.gguf") == tmp_path / "b.gguf"
    with pytest.raises(LaunchError, match="2 GGUF models"):
        find_model(tmp_path)
    with pytest.raises(LaunchError, match=r"c\.gguf cannot be read"):
        find_model(tmp_path, "c.gguf")


def test_a_projector_among_the_models_files_is_loaded(tmp_path: Path) -> None:
    launch = plan(projector_bytes=5000)
    at = launch.argv.index("--mmproj")
    binding = Binding(
        "h", 1, tmp_path, tmp_path / "m.gguf", "k", extra={"mmproj": "/x/mmproj.gguf"}
    )
    assert launch.bind(binding)[0][at + 1] == "/x/mmproj.gguf"
    for seeing in (launch, plan({"mmproj": "/mine.gguf"})):
        assert "vision" in seeing.capabilities
        assert "images" in (seeing.abilities.features or ())
    for blind in (plan(), plan({"no_mmproj": True}, projector_bytes=5000)):
        assert "vision" not in blind.capabilities
        assert blind.abilities.features == frozenset()
    assert "--mmproj" not in plan({"mmproj": "/mine.gguf"}, projector_bytes=5000).argv
    assert "--mmproj" not in plan({"no_mmproj": True}, projector_bytes=5000).argv
    assert "--mmproj" not in plan().argv


@pytest.mark.parametrize(
    ("options", "flags", "values", "named"),
    [
        ({"gpu_layers": 99}, (), {}, "gpu_layers"),
        ({"n_gpu_layers": -1}, (), {}, "gpu_layers"),
        ({"n-gpu-layers": 20}, (), {}, "gpu_layers"),
        ({}, ("-ngl", "99"), {}, "gpu_layers"),
        ({}, ("--n-gpu-layers", "99"), {}, "gpu_layers"),
        ({}, ("--gpu-layers=99",), {}, "gpu_layers"),
        ({}, ("-mg", "1", "-ngl", "9"), {}, "gpu_layers, main_gpu"),
        ({}, ("-sm", "row"), {}, "split_mode"),
        ({}, (), {"gpus": (0,)}, "gpus"),
    ],
)
def test_a_gpu_that_was_asked_for_in_vain_is_said(
    options: dict[str, Any], flags: tuple[str, ...], values: dict[str, Any], named: str
) -> None:
    launch = ENGINE.plan(model(options, *flags, **values), facts(), placement())
    (note,) = launch.notes
    assert note.startswith(f"{named}: without effect")
    assert fields(launch)["n_gpu_layers"] == 0


@pytest.mark.parametrize("flags", [(), ("-ngl", "0"), ("-mg", "0"), ("-sm", "none")])
def test_no_word_of_gpus_where_none_was_asked_for(flags: tuple[str, ...]) -> None:
    assert plan(None, *flags).notes == ()


def test_a_gpu_that_the_placement_has_is_used() -> None:
    launch = plan({"gpu_layers": 12}, at={"gpus": (0,), "offload": offload()})
    assert launch.notes == ()
    assert fields(launch)["n_gpu_layers"] == 12


def test_a_file_without_a_chat_template_is_called_a_base_model() -> None:
    (note,) = plan(chat_template=False).notes
    assert "base model" in note
    assert "/v1/completions" in note
    # Told how to format chat, or not asked to chat at all.
    assert plan({"chat_template": "chatml"}, chat_template=False).notes == ()
    assert plan(None, "--chat-template", "chatml", chat_template=False).notes == ()
    assert plan(chat_template=False, pooling="mean").notes == ()
    assert plan({"pooling": "rank"}, chat_template=False).notes == ()


TOOLS = "{% if tools %}{{ tools }}{% endif %}{{ messages }}"


@pytest.mark.parametrize("how", ["option", "flag", "text", "relative"])
def test_a_chat_template_is_a_file_or_its_text(tmp_path: Path, how: str) -> None:
    file = tmp_path / "t.jinja"
    file.write_text(TOOLS)
    entry = {
        "option": model({"chat_template": str(file)}),
        "flag": model(None, "--chat-template-file", str(file)),
        "text": model({"chat_template": TOOLS}),
        "relative": replace(model({"chat_template": "t.jinja"}), directory=tmp_path),
    }[how]
    launch = ENGINE.plan(entry, facts(), placement())
    got = fields(launch)
    assert got["chat_template"] == TOOLS
    assert "use_jinja" not in got
    assert "tools" in launch.abilities.features


def test_the_name_of_a_template_is_never_the_text_of_the_prompt() -> None:
    """llama.cpp takes any text for a Jinja template: "llama3" would be all that the model sees."""
    assert fields(plan({"chat_template": "llama3"}))["use_jinja"] is False
    assert fields(plan(None, "--chat-template", "llama3"))["use_jinja"] is False
    assert "use_jinja" not in fields(plan({"chat_template": "chatml"}))
    for wrong, hint in (
        ("lama3", "'llama3'"),
        ("/nowhere/t.jinja", "chatml"),
        ("t.jinja", "chatml"),
    ):
        with pytest.raises(ConfigError, match=wrong) as raised:
            plan({"chat_template": wrong})
        assert hint in str(raised.value.hint)
