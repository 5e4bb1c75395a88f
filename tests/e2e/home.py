"""A home of its own for the real `yibu` command, and what tests ask of it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import psutil

from tests.exposition import Exposition
from tests.support.zygote import ZYGOTE
from yibu.cli.session import shut_down
from yibu.errors import YibuError
from yibu.management.context import Context
from yibu.node.control.client import ControlClient
from yibu.node.machine import processes
from yibu.node.state import home_id
from yibu.paths import Paths

REPOSITORY = Path(__file__).parents[2]
FAKES = REPOSITORY / "tests" / "fakes"
FAKE_ENGINE = FAKES / "engine.py"


@dataclass(frozen=True, slots=True)
class Home:
    """Runs `yibu` as a user would, with every directory of its own below ``root``.

    ``cache``, where given, holds environments and models over test runs: they come from a
    package index and do not change. ``settings`` are environment variables that win over these.
    """

    root: Path
    cache: Path | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    through: Sequence[str] = ()
    """A program that runs the commands, with its first arguments."""

    @property
    def env(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("YIBU_")}
        if self.cache is None:
            return {**kept, "YIBU_HOME": str(self.root), **self.settings}
        return {
            **kept,
            "XDG_CACHE_HOME": str(self.cache / "cache"),
            "XDG_DATA_HOME": str(self.cache / "data"),
            "XDG_STATE_HOME": str(self.root),
            **self.settings,
        }

    def command(self, *words: str) -> list[str]:
        python = [sys.executable, "-P", "-c", "from yibu.cli.main import main; main()"]
        return [*self.through, *python, *words]

    def yibu(
        self, *words: str, code: int | None = 0, timeout: float = 300, **extra: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run one command to its end; ``code`` None takes any exit code."""
        how = {"env": self.env, "cwd": self.root, "timeout": timeout, **extra}
        if self._forks:
            done = ZYGOTE.run(*words, given=how.pop("input", None), **how)
        else:
            done = subprocess.run(
                self.command(*words), capture_output=True, text=True, check=False, **how
            )
        assert code is None or done.returncode == code, (words, done.stdout, done.stderr)
        return done

    @property
    def _forks(self) -> bool:
        """Whether commands are forks of a process that has imported yibu. Beside real engines they
        are started as users start them."""
        return sys.platform == "linux" and self.cache is None and not self.through

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Begin one command in a process group of its own."""
        how: dict[str, Any] = {"env": self.env, "cwd": self.root, "start_new_session": True}
        how |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        if self._forks:
            return ZYGOTE.popen(words, **how)
        # No other thread runs in these tests.
        return subprocess.Popen(self.command(*words), preexec_fn=_heed_interrupts, **how)  # noqa: PLW1509

    def serving(self) -> subprocess.Popen[str]:
        """`yibu up` in the foreground, once it says that it serves: the node knows that earlier."""
        up = self.start("up")
        assert up.stderr is not None
        said = [up.stderr.readline()]
        while said[-1] and "Ctrl-C stops it" not in said[-1]:
            said.append(up.stderr.readline())
        assert said[-1], said
        return up

    def write(self, models: Sequence[dict[str, Any]], **gateway: Any) -> Path:
        """A yibu.yaml (JSON is YAML) with the gateway on a free port."""
        path = self.root / "yibu.yaml"
        path.write_text(json.dumps({"gateway": {"port": 0, **gateway}, "models": list(models)}))
        return path

    @property
    def client(self) -> ControlClient:
        return ControlClient(Paths.from_env(self.env))

    def ps(self) -> dict[str, Any]:
        """What `yibu ps --json` prints, without the time that a process takes to start."""
        status: dict[str, Any] = self.client.call("ps")
        return status

    def kill_node(self) -> None:
        """Its holder first, which would start it again."""
        node = self.ps()["node"]
        for pid in (node["holder"], node["pid"]):
            os.kill(pid, signal.SIGKILL)

    def model(self, name: str) -> dict[str, Any]:
        return next(model for model in self.ps()["models"] if model["name"] == name)

    def url(self) -> str:
        return str(self.ps()["gateway"]["url"])

    def chat(self, model: str = "fake", key: str = "any", **fields: object) -> dict[str, Any]:
        """What the model answers to a greeting, through the gateway."""
        body = {"model": model, "messages": [{"role": "user", "content": "hello"}], **fields}
        request = urllib.request.Request(
            f"{self.url()}/v1/chat/completions",
            json.dumps(body).encode(),
            {"Content-Type": "application/json", "Authorization": f"Bearer {key}"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            found: dict[str, Any] = json.load(answer)
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Take everything down, however the test left it; nothing may stay behind."""
        # What `yibu down` does, without a process for it after each test.
        with contextlib.suppress(YibuError):
            shut_down(Context(self.env, Paths.from_env(self.env), self.root))
        # On a busy machine one that has closed all that it had takes a moment to be gone.
        _, late = psutil.wait_procs(self.processes(), timeout=10)
        left = [process for process in late if process.status() != psutil.STATUS_ZOMBIE]
        for process in left:
            process.kill()
        assert not left, f"left behind: {left}"

    def processes(self) -> list[psutil.Process]:
        """Every process that this home's node started, or that is its node."""
        found = []
        state = Paths.from_env(self.env).state
        # Engines do not get yibu's own variables, but each has a marker of its home.
        marker = f"{home_id(state)}/" if state.exists() else None
        for process in psutil.process_iter():
            try:
                environment = process.environ()
            except psutil.Error:
                continue
            root = environment.get("YIBU_HOME") or environment.get("XDG_STATE_HOME")
            engine = marker and environment.get(processes.MARKER, "").startswith(marker)
            if (root == str(self.root) or engine) and process.pid != os.getpid():
                found.append(process)
        return found


def _heed_interrupts() -> None:
    """A test run in the background of a shell ignores SIGINT, and so would its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def scrape(home: Home, key: str = "none") -> Exposition:
    """The gateway's metrics, the engines' own with them."""
    headers = {"Authorization": f"Bearer {key}"}
    request = urllib.request.Request(f"{home.url()}/metrics", headers=headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return Exposition(answer.read().decode())


def fake(name: str = "fake", *switches: str, **entry: Any) -> dict[str, Any]:
    """An entry of yibu.yaml that runs the fake engine."""
    words = [sys.executable, str(FAKE_ENGINE), "--host", "{host}", "--port", "{port}", *switches]
    options = {"command": words, "ready": "/health", "key_variable": "FAKE_API_KEY"}
    return {"name": name, "engine": "command", "options": options, **entry}


def live_fake(name: str = "ears") -> dict[str, Any]:
    """An entry of yibu.yaml that runs the fake engine of live speech."""
    program = str(FAKES / "live_engine.py")
    words = [sys.executable, program, "--host", "{host}", "--port", "{port}"]
    options = {"command": words, "ready": "/health", "capabilities": ["transcriptions"]}
    return {"name": name, "engine": "command", "options": options}


def user_directories(root: Path) -> dict[str, str]:
    """Settings of an engine with which all that it writes into its user's home lies below ``root``."""
    names = {"HOME": "", "XDG_CACHE_HOME": ".cache", "XDG_CONFIG_HOME": ".config",
             "XDG_DATA_HOME": ".local/share", "XDG_STATE_HOME": ".local/state"}  # fmt: skip
    return {name: str(root / below) for name, below in names.items()}
