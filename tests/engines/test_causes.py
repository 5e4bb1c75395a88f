"""Failures in words: what the real engines print when they fail, and what is made of it."""

from __future__ import annotations

import itertools
import logging
import os
import re
import select
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tests.support.ports import free_port

from yibu.engines.causes import GENERIC_CAUSES, Explanation, explain
from yibu.engines.logs import Cause, causes_of
from yibu.engines.registry import engines
from yibu.errors import UnsupportedError, told
from yibu.log import RedactingFormatter
from yibu.messages import render, tr

ALL = [(engine.name, cause) for engine in engines() for cause in engine.causes] + [
    ("generic", cause) for cause in GENERIC_CAUSES
]

EXCERPTS = Path(__file__).parent / "excerpts"


@pytest.mark.parametrize(("owner", "cause"), ALL, ids=lambda value: getattr(value, "key", value))
def test_every_cause_can_be_said(owner: str, cause: Cause) -> None:
    groups = {*cause.pattern.groupindex, "model"}  # whose name the node fills in
    for text in (cause.explanation, cause.hint):
        assert set(re.findall(r"\{(\w+)\}", text)) <= groups
    assert cause.explanation.rstrip()[-1] in ".)"  # a hint: tests/messages/test_hints.py
    assert re.fullmatch(r"[a-z_]+", cause.key)


# -- log excerpts, in the form that the engines write them ------------------------------------

VLLM_LINES = [
    (
        "kv_cache_too_small",
        ("(EngineCore pid=7) ERROR 11-22 17:50:50 [core.py:1510] ValueError: To serve at least one "
        "request with the model's max seq len (8192), (0.18 GiB KV cache is needed, which is larger "
        "than the available KV cache memory (0.09 GiB). Based on the available memory, the "
        "estimated maximum model length is 4080. Try increasing `gpu_memory_utilization`"),
        "8192 tokens: it needs 0.18 GiB and has 0.09 GiB (this length would fit: 4080)",
    ),
    (
        "kv_cache_too_small",
        ("ValueError: To serve at least one request with the models's max seq len (131072), (36.00 "
        "GiB KV cache is needed\nValueError: No available memory for the cache blocks. Try "
        "increasing `gpu_memory_utilization` when initializing the engine."),
        "No memory is left",
    ),
    (
        "kv_cache_over_memory",
        ("ValueError: Available memory on node 0 (20.11/23.47 GiB) on kv cache allocation is less "
        "than requested memory for kv (838.19 GiB). Decrease --kv-cache-memory-bytes"),
        "asks for 838.19 GiB",
    ),
    (
        "gpu_memory_taken",
        ("(EngineCore_DP0 pid=99) ValueError: Free memory on device cuda:0 (3.21/23.69 GiB) on "
        "startup is less than desired GPU memory utilization (0.9, 21.32 GiB). Decrease GPU memory"),
        "3.21 of 23.69 GiB are free",
    ),
    (
        "out_of_memory",
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.02 GiB. GPU 0 has a total "
        "capacity of 7.78 GiB of which 512.00 MiB is free."),
        "Memory ran out",
    ),
    (
        "gated_model",
        "huggingface_hub.errors.GatedRepoError: 401 Client Error. Cannot access gated repo for url",
        "gated",
    ),
    (
        "no_network",
        ("OSError: We couldn't connect to 'https://hub.example' to load the files, and couldn't "
        "find them in the cached files."),
        "cannot be reached",
    ),
    (
        "remote_code",
        ("ValueError: The repository /m contains custom code which must be executed to correctly "
        "load the model."),
        "Python code of its own",
    ),
    (
        "unsupported_architecture",
        ("Value error, Model architectures ['LolmaForCausalLM'] are not supported for now. "
        "Supported architectures: dict_keys(['ArceeForCausalLM'])"),
        "['LolmaForCausalLM']",
    ),
    (
        "dtype_unsupported",
        ("ValueError: Bfloat16 is only supported on GPUs with compute capability of at least 8.0. "
        "Your Tesla T4 GPU has compute capability 7.5. You can use float16 instead"),
        "Tesla T4",
    ),
    (
        "too_few_gpus",
        "Value error, World size (4) is larger than the number of available GPUs (2) in this node.",
        "asks for 4 GPUs, and 2 can be seen",
    ),
    (
        "driver_too_old",
        ("RuntimeError: The NVIDIA driver on your system is too old (found version 11040). Please "
        "update your GPU driver"),
        "11040",
    ),
    ("no_gpu", "RuntimeError: Failed to infer device type, please set the environment", "no GPU"),
    ("nccl", "RuntimeError: NCCL error: unhandled system error (run with NCCL_DEBUG=INFO)", "NCCL"),
    (
        "chat_template",
        ("ChatTemplateResolutionError: As of transformers v4.44, default chat template is no longer "
        "allowed, so you must provide a chat template if the tokenizer does not define one."),
        "no chat template",
    ),
    (
        "corrupt_model",
        ("safetensors_rust.SafetensorError: Error while deserializing header: incomplete metadata, "
        "file not fully covered"),
        "incomplete metadata",
    ),
    ("shared_memory", "OSError: unable to open shared memory object </torch_1> in /dev/shm", "/dev/shm"),
    (
        "shared_memory",
        ("(Worker_TP1 pid=9) ERROR 11-24 03:07:22 [multiproc_executor.py:953] RuntimeError: "
         "Insufficient space in /dev/shm for shared-memory allocation: 240 MiB required, 162 MiB "
         "free. Increase /dev/shm (e.g. --shm-size or --ipc=host)."),
        "one allocation needs 240 MiB, and 162 MiB are free",
    ),
    (
        "shared_memory",
        "RuntimeError: unable to write to file </torch_7_1>: No space left on device (28)",
        "/dev/shm",
    ),
    ("shared_memory", "OSError: [Errno 28] No space left on device: '/psm_50b1c40c'", "/dev/shm"),
    ("disk_full", "OSError: [Errno 28] No space left on device", "disk is full"),
    ("engine_core_died", "non-default args: {'model': '/dev/shm/smol'}", "names no cause"),
    (
        "worker_failed",
        ("(EngineCore pid=9) ERROR 11-22 [core.py:1512] RuntimeError: Worker failed with error 'the "
         "moon is full', please check the stack trace above for the root cause"),
        "the moon is full",
    ),
    (
        "engine_core_died",
        ("RuntimeError: Engine core initialization failed. See root cause above. Failed core "
        "proc(s): {'EngineCore_DP0': 1}"),
        "no cause that yibu knows",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("key", "log", "said"), VLLM_LINES)
def test_vllm_says(key: str, log: str, said: str) -> None:
    # The line that follows every failure must not hide the cause above it.
    tail = "\nRuntimeError: Engine core initialization failed. See root cause above.\n"
    found = explain(log + tail, causes_of("vllm"), exit_code=1)
    assert (found.cause, said in found.message) == (key, True), found


@pytest.mark.parametrize("file", sorted(EXCERPTS.glob("*.log")), ids=lambda file: file.stem)
def test_excerpts_of_real_failures(file: Path) -> None:
    """Logs that vLLM 0.32 on a CPU wrote; ``bad_path.2.log`` is cause ``bad_path``."""
    found = explain(file.read_text(encoding="utf-8"), causes_of("vllm"), exit_code=1)
    assert found.cause == file.name.split(".")[0]
    assert "{" not in found.message + found.hint.replace("{model}", "")


def test_the_last_attempt_counts() -> None:
    log = (
        "couldn't bind HTTP server socket, hostname: 127.0.0.1, port: 1111\n"
        "couldn't bind HTTP server socket, hostname: 127.0.0.1, port: 2222\n"
    )
    assert "2222" in explain(log, causes_of("llama.cpp")).message


def test_a_projector_of_another_model_is_named() -> None:
    """In the words of llama.cpp's server, with what it writes before and behind."""
    log = (
        "mtmd_init_from_file: error: Failed to load CLIP model from /m/mmproj-f16.gguf\n"
        "srv    load_model: failed to load multimodal model, '/m/mmproj-f16.gguf'\n"
        "main: exiting due to model loading error\n"
    )
    found = explain(log, causes_of("llama.cpp"), exit_code=1)
    assert (found.cause, "/m/mmproj-f16.gguf" in found.message) == ("bad_projector", True), found
    assert "options.mmproj" in found.hint


def test_secrets_are_taken_out_of_the_lines() -> None:
    found = explain("starting with --api-key sk-very-secret\nstd::bad_alloc", ())
    assert found.cause == "out_of_memory"
    assert "sk-very-secret" not in str(found)


@pytest.mark.parametrize(
    ("code", "oom", "cause"),
    [
        (-4, False, "illegal_instruction"),
        (132, False, "illegal_instruction"),
        (-9, False, "killed"),
        (137, True, "oom_killed"),
        (-11, False, "crashed"),
        (-15, False, "signal"),
        (0, False, "unknown"),
        (3, False, "unknown"),
        (None, False, "unknown"),
    ],
)
def test_without_a_word_the_exit_code_speaks(code: int | None, oom: bool, cause: str) -> None:
    found = explain("all is well\n", (), exit_code=code, oom_killed=oom)
    assert found.cause == cause
    assert found.lines == ("all is well",)
    assert found.hint
    assert ("in the foreground" in found.hint) == (code == 0)


GENERIC_LINES = [
    (("libfoo: error while loading shared libraries: libgomp.so.1: cannot open shared object "
     "file: No such file or directory"), "missing_library", "libgomp.so.1"),
    (("yibu: error: xllamacpp cannot be imported in this environment: libgomp.so.1: cannot open "
     "shared object file: No such file or directory"), "missing_library", "libgomp.so.1"),
    (("WARNING 11-28 [cpu.py:88] Failed to import from vllm._C: ImportError('libnuma.so.1: cannot "
     "open shared object file: No such file or directory')"), "missing_library", "libnuma.so.1"),
    ("ImportError: /lib/libc.so.6: version `GLIBC_2.38' not found", "system_too_old",
     "GLIBC_2.38"),
    ("ModuleNotFoundError: No module named 'uvicorn'", "import_error", "'uvicorn'"),
    ("PermissionError: [Errno 13] Permission denied: '/m/x'", "permission", "/m/x"),
    ("FileNotFoundError: [Errno 2] No such file or directory: '/m/x'", "bad_path", "/m/x"),
    ("OSError: [Errno 98] Address already in use", "port_in_use", "taken"),
    ("libgomp: Thread creation failed: Resource temporarily unavailable", "threads_limit",
     "another thread"),
    ("serve.py: error: unrecognized arguments: --no-such", "bad_flag", "--no-such"),
    ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB", "out_of_memory",
     "The GPU's memory"),
    ("RuntimeError: CUDA driver error: CUDA_ERROR_OUT_OF_MEMORY", "out_of_memory", "The GPU's memory"),
    ("numpy: MemoryError: Unable to allocate 90 GiB", "out_of_memory", "The machine's memory"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "cause", "said"), GENERIC_LINES)
def test_generic_causes(line: str, cause: str, said: str) -> None:
    found = explain(f"Traceback (most recent call last):\n{line}\n", (), exit_code=1)
    assert found.cause == cause
    assert said in found.message
    assert found.lines[-1] == line


@pytest.mark.parametrize(("earlier", "last"), list(itertools.permutations(GENERIC_LINES, 2)))
def test_of_what_every_program_can_meet_the_last_line_is_believed(
    earlier: tuple[str, str, str], last: tuple[str, str, str]
) -> None:
    found = explain(f"WARNING {earlier[0]}, going on without\nINFO loading\n{last[0]}\n", ())
    assert (found.cause, found.lines[-1]) == (last[1], last[0])
    assert last[2] in found.message


# -- the real llama.cpp, made to fail ---------------------------------------------------------

Spawn = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def fail(spawn: Spawn, tmp_path: Path) -> Callable[..., Explanation]:
    def run(path: Path, *, port: int | None = None, **values: Any) -> Explanation:
        log = tmp_path / "engine.log"
        process = spawn(path, log, port or free_port(), **values)
        try:
            code = process.wait(timeout=60)
        finally:
            process.kill()
            process.wait()
        assert code != 0
        causes: Sequence[Cause] = causes_of("llama.cpp")
        return explain(log.read_text(errors="replace"), causes, exit_code=code)

    return run


@pytest.fixture
def altered(smollm2: Path, tmp_path: Path) -> Callable[[Callable[[bytearray], object]], Path]:
    def alter(change: Callable[[bytearray], object]) -> Path:
        data = bytearray(smollm2.read_bytes())
        change(data)
        file = tmp_path / "altered.gguf"
        file.write_bytes(data)
        return file

    return alter


@pytest.mark.engine
def test_real_bad_path(fail: Callable[..., Explanation]) -> None:
    found = fail(Path("/no/such/model.gguf"))
    assert found.cause == "bad_path"
    assert "/no/such/model.gguf" in found.message


@pytest.mark.engine
def test_real_corrupt_files(
    fail: Callable[..., Explanation], altered: Callable[..., Path], tmp_path: Path
) -> None:
    half = altered(lambda data: data.__delitem__(slice(len(data) // 2, None)))
    assert fail(half).cause == "corrupt_model"
    head = altered(lambda data: data.__delitem__(slice(50_000, None)))
    assert fail(head).cause == "corrupt_model"
    page = tmp_path / "page.gguf"
    page.write_text("<!doctype html> not found")
    assert fail(page).cause == "corrupt_model"


@pytest.mark.engine
def test_real_unknown_architecture_and_version(
    fail: Callable[..., Explanation], altered: Callable[..., Path]
) -> None:
    def rename(data: bytearray) -> None:
        at = data.index(b"llama", data.index(b"general.architecture"))
        data[at : at + 5] = b"lolma"

    found = fail(altered(rename))
    assert (found.cause, "lolma" in found.message) == ("unsupported_architecture", True)
    newer = fail(altered(lambda data: data.__setitem__(slice(4, 8), (99).to_bytes(4, "little"))))
    assert (newer.cause, "99" in newer.message) == ("unsupported_version", True)


_SLOW_READER = """
import sys
from yibu.launchers import llama_cpp

flush = llama_cpp.flush_log

def tell_and_flush(module):
    print("at its end", flush=True)
    flush(module)

llama_cpp.flush_log = tell_and_flush
sys.stderr = open("/dev/null", "w")
sys.exit(llama_cpp.main(sys.argv[1:]))
"""


@pytest.mark.engine
def test_real_last_words_are_written_before_the_end(
    llama_cpp_python: Path, altered: Callable[..., Path]
) -> None:
    """A thread of llama.cpp writes its log; here it gets no further until the main one is at its end."""
    file = altered(lambda data: data.__setitem__(slice(4, 8), (99).to_bytes(4, "little")))
    words = ["-c", _SLOW_READER, "--model", str(file), "--port", str(free_port())]
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writing, bytes(4096))
    os.set_blocking(writing, True)
    process = subprocess.Popen([llama_cpp_python, *words], stdout=subprocess.PIPE, stderr=writing)
    os.close(writing)
    with process, os.fdopen(reading, "rb") as log:
        assert process.stdout is not None
        waits, _, _ = select.select([process.stdout], [], [], 60)
        found = log.read()
    assert waits
    assert b"version 99" in found
    assert process.returncode == 1


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        yield holder.getsockname()[1]


@pytest.mark.engine
def test_real_port_in_use(fail: Callable[..., Explanation], smollm2: Path, taken_port: int) -> None:
    found = fail(smollm2, port=taken_port)
    assert found.cause == "port_in_use"
    assert str(taken_port) in found.message


@pytest.mark.engine
def test_real_context_larger_than_memory(fail: Callable[..., Explanation], smollm2: Path) -> None:
    found = fail(smollm2, at={"context": 1_000_000, "parallel": 4})
    assert found.cause == "kv_cache_too_large"
    assert "context" in found.hint


@pytest.mark.engine
def test_real_directory_with_two_models(
    fail: Callable[..., Explanation], smollm2: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "two"
    folder.mkdir()
    for name in ("a.gguf", "b.gguf"):
        (folder / name).symlink_to(smollm2)
    found = fail(folder)
    assert found.cause == "several_models"
    assert "#FILE.gguf" in found.hint


def test_an_engine_of_our_own_tells_its_error_for_every_language() -> None:
    error = UnsupportedError(
        tr("the reference path needs FSMN-VAD"), hint=tr("Set `vad: {vad}`", vad="iic/fsmn")
    )
    record = logging.LogRecord("yibu.speech", logging.ERROR, "", 0, "%s", (told(error),), None)
    line = RedactingFormatter().format(record)
    found = explain(f"loading\n{line}\nbye", causes_of("speech"), exit_code=1)
    assert (found.cause, found.message) == ("unsupported", "the reference path needs FSMN-VAD")
    assert render(found.message, "zh_CN") == "参考路径需要 FSMN-VAD"
    assert render(found.hint, "zh_CN") == "设置 `vad: iic/fsmn`"
    assert found.lines == ("loading",)
    damaged = explain(line[:-9], causes_of("speech"), exit_code=1)
    assert damaged.cause == "unknown"
