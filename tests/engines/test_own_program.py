"""``options.program``: a llama-server that is asked what it is, and told what it has flags for."""

from __future__ import annotations

import os
import platform
import shlex
import stat
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from samples import facts, model, placement
from tests.e2e.home import Home
from tests.support.stand_in import DEVICES, HELP, OLD_VERSION, stand_in

from yibu.config import ModelConfig
from yibu.engines.base import Binding
from yibu.engines.causes import explain
from yibu.engines.llama_cpp import LlamaCpp
from yibu.engines.llama_cpp.program import Program, parse_devices, parse_help, read_program
from yibu.environments.programs import ask
from yibu.errors import ConfigError, EnvironmentSetupError
from yibu.planner.types import MemoryNeed, Offload


def run(path: Path, words: Sequence[str], env: Mapping[str, str]) -> str:
    return ask(path, words, {**os.environ, **env})


def read(path: Path) -> Program:
    return read_program(str(path), lambda words: run(path, words, {}))


def entry(options: dict[str, Any], *flags: str) -> ModelConfig:
    return replace(model(options, name="m"), flags=flags)


def launched(path: Path, options: dict[str, Any], *flags: str, **at: Any) -> list[str]:
    """The command line for an entry with that program."""
    one = entry({"program": str(path), **options}, *flags)
    engine = LlamaCpp().with_program(one, run, {})
    plan = engine.plan(one, facts(), placement(**{"context": 2048, "parallel": 2, **at}))
    argv, env = plan.bind(Binding("127.0.0.1", 8123, None, Path("/models/a.gguf"), "inner-key"))
    assert env["LLAMA_API_KEY"] == "inner-key"
    assert "inner-key" not in " ".join(argv)
    return argv


def value(argv: Sequence[str], flag: str) -> str:
    return argv[argv.index(flag) + 1]


def test_version_devices_and_flags_are_its_own_word(tmp_path: Path) -> None:
    program = read(stand_in(tmp_path))
    assert (program.version, program.build) == ("0.7.0 (build 11669, commit 1a2b3c4)", 11669)
    assert [(d.name, d.backend, d.total >> 20, d.free >> 20) for d in program.devices] == [
        ("CUDA0", "CUDA", 24080, 23600),
        ("CUDA1", "CUDA", 3900, 3000),
    ]
    assert program.devices[1].description == "NVIDIA RTX A2000 (Laptop, 4 GB)"
    assert program.variables["LLAMA_ARG_N_GPU_LAYERS"] == "n_gpu_layers"
    assert read(stand_in(tmp_path, OLD_VERSION)).build == 5318


def test_what_takes_a_value_is_told_by_its_help() -> None:
    flags, _ = parse_help(HELP)
    switches = {name for name, kind in flags.items() if kind == "switch"}
    assert {
        "help",
        "version",
        "kv_unified",
        "no_kvu",
        "metrics",
        "no_ui",
        "brand_switch",
    } <= switches
    assert not switches & {"threads", "tb", "ngl", "flash_attn", "fit", "rope_scaling", "brand_new"}


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("  Vulkan0: AMD Radeon RX 7900 XTX (RADV NAVI31) (24560 MiB, 24000 MiB free)", "Vulkan"),
        ("  ROCm0: AMD Instinct MI250X (65520 MiB, 65000 MiB free)", "ROCm"),
        ("  MTL0: Apple M3 Max (98304 MiB, 98303 MiB free)", "Metal"),
        ("  Metal: Apple M1 (10922 MiB, 10922 MiB free)", "Metal"),
        ("  CANN0: Ascend910B3 (62432 MiB, 62000 MiB free)", "CANN"),
        ("  SYCL0: Intel(R) Arc(TM) A770 Graphics (15473 MiB, 15473 MiB free)", "SYCL"),
    ],
)
def test_devices_of_every_backend(line: str, name: str) -> None:
    (device,) = parse_devices(f"Available devices:\n{line}\n")
    assert device.backend == name
    assert parse_devices("Available devices:\n  (none)\n") == ()


def test_the_plan_speaks_the_programs_language(tmp_path: Path) -> None:
    argv = launched(stand_in(tmp_path), {"flash_attention": True})
    assert argv[0] == str(tmp_path / "llama-server")
    assert value(argv, "--model") == "/models/a.gguf"
    assert value(argv, "--ctx-size") == "4096"
    assert value(argv, "--parallel") == "2"
    assert value(argv, "--flash-attn") == "on"
    assert {"--metrics", "--no-slots", "--no-ui", "--jinja"} <= {*argv}
    assert "--no-webui" not in argv
    assert (value(argv, "--n-gpu-layers"), value(argv, "--device")) == ("0", "none")


def test_an_older_program_is_told_what_it_knows(tmp_path: Path) -> None:
    old = HELP.replace(
        "-fa,   --flash-attn [on|off|auto]       ", "-fa,   --flash-attn                    "
    )
    old = old.replace(
        "-lm,   --load-mode MODE                 ", "--no-mmap                              "
    )
    argv = launched(
        stand_in(tmp_path, OLD_VERSION, shown=old), {"flash_attention": True, "load_mode": "none"}
    )
    assert argv[argv.index("--flash-attn") + 1].startswith("--")
    assert "--no-mmap" in argv


def test_flags_and_options_that_it_alone_has_pass_through(tmp_path: Path) -> None:
    argv = launched(
        stand_in(tmp_path), {"brand_new": "x", "brand-switch": True}, "--temp", "0.5", "-ub", "1024"
    )
    assert value(argv, "--brand-new") == "x"
    assert "--brand-switch" in argv
    assert value(argv, "--temp") == "0.5"
    assert value(argv, "--ubatch-size") == "1024"
    assert "-ub" not in argv


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--brand-old", "1"), "has no such flag"),
        (("--port", "1"), "not the engine's here"),
        (("--api-key", "k"), "not the engine's here"),
        (("--list-devices",), "print something and end"),
        (("--brand-new",), "lacks its value"),
        (("--brand-switch", "on"), "takes no value"),
    ],
    ids=lambda flags: shlex.join(flags) if isinstance(flags, tuple) else "",
)
def test_flags_that_cannot_be_used_are_refused(
    tmp_path: Path, flags: tuple[str, ...], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        launched(stand_in(tmp_path), {}, *flags)


def test_an_option_that_it_has_no_flag_for_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no --cache-type-k"):
        launched(stand_in(tmp_path), {"cache_type_k": "q8_0"})


def test_an_offload_names_devices_layers_and_experts(tmp_path: Path) -> None:
    need = MemoryNeed(1, 1, 1)
    offload = Offload(20, 31, 5, (12, 8), ("CUDA0", "CUDA1"), (need, need), need)
    argv = launched(stand_in(tmp_path), {}, "-ngl", "20", "-c", "8192", offload=offload)
    assert value(argv, "--n-gpu-layers") == "20"
    assert value(argv, "--n-cpu-moe") == "5"
    assert value(argv, "--device") == "CUDA0,CUDA1"
    assert value(argv, "--tensor-split") == "12,8"
    assert value(argv, "--fit") == "off"
    assert {"-ngl", "-c"}.isdisjoint(argv)


def test_the_planner_is_told_of_its_devices(tmp_path: Path) -> None:
    one = entry({"program": str(stand_in(tmp_path)), "gpu_layers": "all"}, "--n-cpu-moe", "3")
    asked = LlamaCpp().with_program(one, run, {}).request(one, facts())
    assert (asked.accelerator.backend, asked.accelerator.gpus) == ("CUDA", ())
    assert (asked.gpu_layers, asked.cpu_moe) == (999, 3)
    vulkan = DEVICES.replace("CUDA", "Vulkan")
    one = entry({"program": str(stand_in(tmp_path, devices=vulkan))})
    asked = LlamaCpp().with_program(one, run, {}).request(one, facts())
    assert asked.accelerator.names == ("Vulkan0", "Vulkan1")
    assert asked.accelerator.gpus[1].free == 3000 << 20
    assert LlamaCpp().request(entry({}), facts()).accelerator is None


def test_what_was_built_here_is_taken_where_its_device_is(tmp_path: Path) -> None:
    folders = {name: tmp_path / name for name in ("cuda", "vulkan", "native")}
    for folder in folders.values():
        folder.mkdir()
    none = "Available devices:\n  (none)\n"
    built = {
        "llama.cpp-cuda": stand_in(folders["cuda"], devices=none),
        "llama.cpp-vulkan": stand_in(folders["vulkan"], devices=DEVICES.replace("CUDA", "Vulkan")),
        "llama.cpp-native": stand_in(folders["native"], devices=none),
    }

    def taken(options: dict[str, Any], gpus: tuple[int, ...] | None = None) -> str | None:
        one = replace(entry(options), gpus=gpus)
        program = LlamaCpp().with_program(one, run, built).program
        return None if program is None else program.environment

    assert taken({}) == "llama.cpp-vulkan"
    assert taken({}, gpus=()) == "llama.cpp-native"
    assert taken({"program": "packaged"}) is None
    built["llama.cpp-vulkan"].write_text("#!/bin/sh\nexit 3\n", encoding="utf-8")
    assert taken({}) == "llama.cpp-native"
    one = entry({})
    plan = LlamaCpp().with_program(one, run, built).plan(one, facts(), placement())
    argv, _ = plan.bind(Binding("127.0.0.1", 1, Path("/env/bin/python"), Path("/m.gguf"), "k"))
    assert (plan.environment, argv[0]) == ("llama.cpp-native", "/env/bin/llama-server")


def test_a_packaged_build_with_gpus_is_planned_on_them(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\ncat <<'E'\n{DEVICES}E\n", encoding="utf-8")
    python.chmod(0o755)
    one = entry({})
    engine = LlamaCpp().with_program(one, run, {"llama.cpp": python})
    asked = engine.request(one, facts())
    assert asked.accelerator.backend == "CUDA"
    assert engine.plan(one, facts(), placement()).argv[0] == "{python}"
    on_cpu = replace(one, gpus=())
    assert (
        LlamaCpp()
        .with_program(on_cpu, run, {"llama.cpp": python})
        .request(on_cpu, facts())
        .accelerator
        is None
    )
    python.write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
    assert LlamaCpp().with_program(one, run, {"llama.cpp": python}).devices == ()


def _elf(machine: int) -> bytes:
    return (
        b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00" + machine.to_bytes(2, "little") + bytes(100)
    )


FOREIGN = 183 if platform.machine() == "x86_64" else 62


@pytest.mark.parametrize(
    ("content", "mode", "said"),
    [
        (None, 0, "is not there"),
        (b"#!/bin/sh\n", 0o644, "may not be executed"),
        (_elf(FOREIGN), 0o755, "is built for (aarch64|x86_64), and this machine is"),
        (b"MZ\x90\x00" + bytes(64), 0o755, "no program that this system can run"),
        (b"#!/no/such/interpreter\n", 0o755, "needs a loader or an interpreter"),
        (
            b"#!/bin/sh\necho 'error while loading shared libraries: libcudart.so.12: cannot open'; exit 127",
            0o755,
            r"needs the shared library libcudart\.so\.12",
        ),
        (
            b'#!/bin/sh\necho "version \\`GLIBC_2.38\' not found (required by x)"; exit 1',
            0o755,
            r"needs GLIBC_2\.38, and this system's is older",
        ),
        (b"#!/bin/sh\nkill -ILL $$\n", 0o755, "instructions that this processor does not know"),
        (b"#!/bin/sh\necho 'no CUDA driver'; exit 3\n", 0o755, "ended with 3 .*: no CUDA driver"),
        (b"#!/bin/sh\necho hello\n", 0o755, "is no llama-server: .* 'hello'"),
        (b"#!/bin/sh\necho 'version: 1 (a)'\n", 0o755, "is no llama-server"),
    ],
)
def test_what_cannot_be_run_is_said_with_the_reason(
    tmp_path: Path, content: bytes | None, mode: int, said: str
) -> None:
    path = tmp_path / "llama-server"
    if content is not None:
        path.write_bytes(content)
        path.chmod(mode)
    with pytest.raises(EnvironmentSetupError, match=said) as refused:
        read(path)
    assert refused.value.hint


def test_one_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("yibu.environments.programs._TIMEOUT", 0.2)
    path = tmp_path / "llama-server"
    path.write_text("#!/bin/sh\nexec sleep 600\n", encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    with pytest.raises(EnvironmentSetupError, match="has not answered --version"):
        read(path)


def test_what_one_that_hangs_has_started_ends_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("yibu.environments.programs._TIMEOUT", 1.0)
    path, noted = tmp_path / "llama-server", tmp_path / "pid"
    path.write_text(f"#!/bin/sh\nsleep 600 &\necho $! >{noted}\nwait\n", encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    with pytest.raises(EnvironmentSetupError, match="has not answered --version"):
        read(path)
    if not noted.exists() or not noted.read_text().strip():
        return  # this machine was too slow to start it
    status = Path("/proc", noted.read_text().strip(), "stat")
    deadline = time.monotonic() + 60
    while runs(status):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def runs(status: Path) -> bool:
    try:
        return status.read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize("wrong", ["llama-server", 3, True, "./llama-server"])
def test_a_program_is_named_by_its_whole_path(wrong: object) -> None:
    with pytest.raises(ConfigError, match="has to be the whole path"):
        LlamaCpp().check(entry({"program": wrong}))


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ('error while handling argument "--device": invalid device: CUDA7', "bad_setting"),
        ("error: invalid argument: --bogus", "bad_setting"),
        ("allocating 9.00 MiB on device 0: cudaMalloc failed: out of memory", "out_of_memory"),
        ("ggml_vulkan: vk::Device::allocateMemory: ErrorOutOfDeviceMemory", "out_of_memory"),
    ],
)  # fmt: skip
def test_how_a_program_fails_has_a_cause(line: str, cause: str) -> None:
    found = explain(f"llama-server\n{line}\n", LlamaCpp().causes, exit_code=1, oom_killed=False)
    assert found.cause == cause


def test_config_check_asks_the_program(tmp_path: Path, home: Home) -> None:
    wrong = {"program": str(stand_in(tmp_path)), "brand_old": 1}
    home.write(
        [{"name": "m", "source": "hf:org/m#a.gguf", "engine": "llama.cpp", "options": wrong}]
    )
    assert "has no such flag" in home.yibu("config", "check", code=None).stderr
    wrong.pop("brand_old")
    home.write(
        [{"name": "m", "source": "hf:org/m#a.gguf", "engine": "llama.cpp", "options": wrong}]
    )
    home.yibu("config", "check")


@pytest.mark.parametrize("how", ["option", "flag"])
def test_a_templates_name_turns_jinja_off(tmp_path: Path, how: str) -> None:
    program = stand_in(tmp_path)
    named = {
        "option": ({"chat_template": "llama3"}, ()),
        "flag": ({}, ("--chat-template", "llama3")),
    }
    options, flags = named[how]
    argv = launched(program, options, *flags)
    assert value(argv, "--chat-template") == "llama3"
    assert "--no-jinja" in argv
    assert "--jinja" not in argv
    assert "--jinja" in launched(program, {"chat_template": "chatml"})
