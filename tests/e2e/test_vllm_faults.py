"""The real vLLM killed, hung and stopped; cut in two; and as a reranker.

Two engines come up together: a model without a chat template over two workers, which all the
killing is done to, and a reranker.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import psutil
import pytest

from tests.e2e.home import REPOSITORY, Home, fake, user_directories
from tests.e2e.vllm_models import VllmModels
from tests.support.polling import until
from yibu.node.launch.leftovers import shared_files
from yibu.paths import Paths
from yibu.speech.precision import cpu_flags

pytestmark = [pytest.mark.engine, pytest.mark.vllm, pytest.mark.timeout(900)]

_START = 400.0
"""Seconds that two vLLMs may take to start on a busy machine of two cores."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, engine_cache: Path) -> Iterator[Home]:
    models = VllmModels.of(engine_cache)
    temporary = tempfile.mkdtemp(prefix="yt", dir="/tmp")  # sockets are made in it: a short path
    served = Home(tmp_path_factory.mktemp("home"), models.cache, {"TMPDIR": temporary})
    (served.root / "user").mkdir()
    common = {"engine": "vllm", "env": user_directories(served.root / "user")}
    options = {"max_model_len": 1024, "max_num_seqs": 4}
    served.write([
        {"name": "halves", "source": str(models.mute()), **common,
         "options": {**options, "tensor_parallel_size": 2}},
        {"name": "ranks", "source": str(models.reranker()), **common, "options": options},
    ])  # fmt: skip
    with served:
        served.yibu("up", "-d", timeout=_START)
        yield served
        shutil.rmtree(temporary)


@pytest.fixture
def client(served: Home) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{served.url()}/v1", api_key="-", max_retries=0) as client:
        yield client


def replica(served: Home) -> dict[str, Any]:
    found: dict[str, Any] = served.model("halves")["replicas"][0]
    return found


def processes(served: Home) -> list[psutil.Process]:
    """The engine's own: the API server, the engine core, two workers, and helpers."""
    server = psutil.Process(replica(served)["pid"])
    return [server, *server.children(recursive=True)]


def named(found: list[psutil.Process], name: str) -> list[psutil.Process]:
    return [process for process in found if name in " ".join(process.cmdline())]


def gives_tokens(client: openai.OpenAI) -> bool:
    answer = client.completions.create(model="halves", prompt="a", max_tokens=8)
    return answer.usage is not None and answer.usage.completion_tokens > 0


def test_tensor_parallel(served: Home, client: openai.OpenAI) -> None:
    assert len(named(processes(served), "Worker")) == 2
    assert gives_tokens(client)


def test_a_model_without_a_chat_template(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="chat template"):
        client.chat.completions.create(model="halves", messages=[{"role": "user", "content": "a"}])


def test_reranking_and_scoring(client: openai.OpenAI) -> None:
    texts = ["a kitten", "tax law", "a cat"]
    body: dict[str, Any] = {"model": "ranks", "query": "a cat", "documents": texts}
    ranked = client.post("/rerank", body=body, cast_to=dict)
    assert ranked["model"] == "ranks"
    assert sorted(result["index"] for result in ranked["results"]) == [0, 1, 2]
    scores = [result["relevance_score"] for result in ranked["results"]]
    assert scores == sorted(scores, reverse=True)
    assert len(set(scores)) == 3
    body = {"model": "ranks", "text_1": "a cat", "text_2": texts}
    scored = client.post("/score", body=body, cast_to=dict)
    by_index = {result["index"]: result["relevance_score"] for result in ranked["results"]}
    for item in scored["data"]:
        assert item["score"] == pytest.approx(by_index[item["index"]], abs=0.01)
    with pytest.raises(openai.NotFoundError, match="its engine is vllm"):
        client.completions.create(model="ranks", prompt="a")


@pytest.mark.parametrize(
    ("victim", "number"),
    [
        ("API server", signal.SIGKILL),
        ("EngineCore", signal.SIGKILL),
        ("Worker", signal.SIGKILL),
        ("API server", signal.SIGTERM),
    ],
)
def test_a_killed_process_comes_back_whole(
    served: Home, client: openai.OpenAI, victim: str, number: signal.Signals
) -> None:
    before = processes(served)
    restarts = replica(served)["restarts"]
    shared = shared_files([process.pid for process in before], 0.0)
    assert {Path(file.path).name[:4] for file in shared} == shared_kinds()
    temporary = Path(before[0].environ()["TMPDIR"])
    assert list(temporary.glob("vllm_dist_*"))
    doomed = before[0] if victim == "API server" else named(before, victim)[-1]
    os.kill(doomed.pid, number)
    until(lambda: back(served, restarts), f"vLLM back after its {victim} was killed", _START)
    assert not [process for process in before if process.is_running()], "left behind"
    assert not [file.path for file in shared if Path(file.path).exists()]
    assert set(temporary.parent.iterdir()) == temporary_directories(served)
    assert not temporary.exists()
    assert gives_tokens(client)


def temporary_directories(served: Home) -> set[Path]:
    """Of the two engines."""
    pids = [model["replicas"][0]["pid"] for model in served.ps()["models"]]
    return {Path(psutil.Process(pid).environ()["TMPDIR"]) for pid in pids}


def shared_kinds() -> set[str]:
    """Beginnings of the names in shared memory: vLLM's kernels for AVX2 have no exchange of their own
    between ranks, which go through torch's sockets there."""
    return {"psm_", "sem."} | ({"vllm"} if "avx512f" in cpu_flags() else set())


def back(served: Home, restarts: int) -> bool:
    now = replica(served)
    return bool(now["state"] == "ready" and now["restarts"] > restarts)


def test_an_engine_that_hangs_is_found_by_a_token_that_does_not_come(served: Home) -> None:
    """Its server answers /health, but the engine core is stopped. The node is a new one too: the old
    one is killed, and this one takes both engines over as they are."""
    before = processes(served)
    ranks = served.model("ranks")["replicas"][0]["pid"]
    served.kill_node()
    until(lambda: not served.client.running(), "the node gone")
    with subprocess.Popen(
        [sys.executable, "-m", "tests.e2e.impatient_node"], cwd=REPOSITORY, env=served.env
    ) as node:
        until(lambda: served.client.running() and both_ready(served), "both engines adopted", 120)
        assert replica(served)["pid"] == before[0].pid
        assert served.model("ranks")["replicas"][0]["pid"] == ranks
        with openai.OpenAI(base_url=f"{served.url()}/v1", api_key="-", max_retries=0) as client:
            restarts = replica(served)["restarts"]
            (core,) = named(before, "EngineCore")
            core.suspend()
            waiting = threading.Thread(target=wait_for_a_token, args=(client,))
            waiting.start()
            causes: set[str] = set()

            def found() -> bool:
                causes.add(served.model("halves")["cause"] or "")
                return back(served, restarts)

            until(found, "vLLM back after its engine core hung", _START)
            waiting.join(60)
            assert not waiting.is_alive()
            assert any("no tokens came" in cause for cause in causes), causes
            assert not [process for process in before if process.is_running()], "left behind"
            assert gives_tokens(client)
        left = [psutil.Process(ranks), *processes(served)]
        shared = shared_memory(processes(served))
        assert shared
        served.yibu("down")
        assert node.wait(60) == 0
        assert [path for path in shared if path.exists()] == []
    assert not served.processes()
    assert list(Path(served.env["TMPDIR"]).iterdir()) == []
    assert list((served.root / "user").rglob("*")) == [], "left in the home of the user"
    until(lambda: not any(map(alive, left)), "all of them gone", 10)


def alive(process: psutil.Process) -> bool:
    """Whether it still runs; one that waits for init to take its exit status does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_for_a_token(client: openai.OpenAI) -> None:
    """Ask something that is not answered until the engine is ended; it may answer even then."""
    with contextlib.suppress(openai.InternalServerError):
        client.completions.create(model="halves", prompt="a", max_tokens=4)


def shared_memory(processes: list[psutil.Process]) -> set[Path]:
    """The files in /dev/shm that these processes hold."""
    maps = "".join(Path(f"/proc/{process.pid}/maps").read_text() for process in processes)
    return {Path(name) for name in re.findall(r"(/dev/shm/\S+)$", maps, re.MULTILINE)}


def both_ready(served: Home) -> bool:
    return [model["state"] for model in served.ps()["models"]] == ["ready", "ready"]


def test_the_crashes_were_explained(served: Home) -> None:
    """An engine that exits 0 without being asked, as vLLM does at a SIGTERM of somebody else's, has
    crashed too; so much the log of the node says."""
    log = Paths.from_env(served.env).node_log.read_text()
    ended = re.findall(r"halves-0 starting \(.*?the engine (was killed by SIGKILL|exited)", log)
    assert len(ended) >= 4
    assert "halves-0: the engine exited with code 0 though nobody asked it to" in log


def test_engines_that_are_killed_with_their_node_leave_nothing(served: Home) -> None:
    served.yibu("up", "-d", "halves", timeout=_START)
    doomed = processes(served)
    shared = shared_memory(doomed)
    assert shared
    (temporary,) = temporary_directories(served)
    state = Paths.from_env(served.env).state / "node.json"
    until(lambda: all(str(path) in state.read_text() for path in shared), "all of it noted")
    for process in (psutil.Process(served.ps()["node"]["pid"]), *doomed):
        process.kill()
    until(lambda: not any(map(alive, doomed)), "all of them gone", 10)
    assert temporary.exists()
    assert any(path.exists() for path in shared)
    served.write([fake()])
    served.yibu("up", "-d", "fake")
    assert not [path for path in shared if path.exists()]
    assert not temporary.exists()
    served.yibu("down", "halves")  # the node that came back has it started again
