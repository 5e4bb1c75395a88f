"""Changes that meet others: names that move, a command that is killed, another change meanwhile, a node that is
killed while another one is to take its place."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.e2e.home import Home, fake
from tests.support.counting import Connection, Count, ask_on
from tests.support.polling import eventually, until

Entry = dict[str, Any]


def port(home: Home) -> int:
    return int(home.url().rpartition(":")[2])


def served(home: Home) -> dict[str, list[str]]:
    """The models, each with its replicas."""
    found = home.ps()["models"]
    return {model["name"]: [replica["id"] for replica in model["replicas"]] for model in found}


NAMES = {
    "renamed, its old name kept": ([fake("m")], [fake("n", "--log-lines", "1", aliases=["m"])], "m"),
    "from one to another": ([fake("m", aliases=["x"]), fake("o")], [fake("m"), fake("o", aliases=["x"])], "x"),
    "from one to another, both changed": (
        [fake("m", aliases=["x"]), fake("o")],
        [fake("m", "--log-lines", "1"), fake("o", "--log-lines", "1", aliases=["x"])], "x",
    ),
    "exchanged": (
        [fake("m", aliases=["x"]), fake("o", aliases=["y"])],
        [fake("m", aliases=["y"]), fake("o", aliases=["x"])], "xy",
    ),
    "of one that goes": ([fake("m"), fake("o")], [fake("o", aliases=["m"])], "m"),
    "to a model of its own": ([fake("m", aliases=["x"])], [fake("m"), fake("x")], "x"),
}  # fmt: skip


@pytest.mark.parametrize("kind", NAMES)
async def test_a_name_that_moves_is_answered_all_the_while(home: Home, kind: str) -> None:
    before, after, names = NAMES[kind]
    home.write(before)
    home.yibu("up", "-d")
    count, number = Count(), port(home)
    async with asyncio.TaskGroup() as group:
        for name in names * 2:
            group.create_task(ask_on(number, name, count))
        await eventually(lambda: count.answered > 20, "answers before")
        home.write(after, port=number)
        await asyncio.to_thread(home.yibu, "apply", "--yes")
        had = count.answered
        await eventually(lambda: count.answered > had + 20, "answers after")
        count.stop = True
    assert not count.lost, count
    assert served(home).keys() == {entry["name"] for entry in after}
    assert "Nothing is to be changed" in home.yibu("apply", "--yes").stderr


def test_a_name_stays_where_it_is_if_its_heir_fails(home: Home) -> None:
    home.write([fake("m")])
    home.yibu("up", "-d")
    home.write([fake("n", "--fail-start", "no such device", aliases=["m"])])
    assert "no such device" in home.yibu("apply", "--yes", code=1).stderr
    assert home.chat("m")["choices"]
    assert served(home)["m"] == ["m-0"]
    home.yibu("rollback", "--yes")
    assert served(home) == {"m": ["m-0"]}


def test_a_file_without_models_stops_what_it_had(home: Home) -> None:
    home.write([])
    for verb in (["up", "-d"], ["apply", "--yes"], ["plan"]):
        assert "yibu.yaml has none" in home.yibu(*verb, code=2).stderr
    home.write([fake("m")])
    home.yibu("up", "-d")
    for emptied in ("", "gateway: {port: 0}", "models:"):
        (home.root / "yibu.yaml").write_text(emptied)
        assert "models: []" in home.yibu("apply", "--yes", code=2).stderr
    home.write([], port=port(home))
    assert "yibu apply -f" in home.yibu("up", "-d", code=2).stderr
    assert "m" in home.yibu("diff", "--exit-code", code=1).stdout
    home.yibu("apply", "--yes")
    assert served(home) == {}
    home.yibu("rollback", "--yes")
    assert served(home).keys() == {"m"}


def test_names_that_others_have_are_refused_before_anything_changes(home: Home) -> None:
    home.write([fake("m"), fake("o")])
    home.yibu("up", "-d")
    typed = home.root / "typed.yaml"
    typed.write_text(home.write([fake("p", aliases=["m"]), fake("q")]).read_text())
    assert "'m', which m has" in home.yibu("apply", "--yes", "-f", str(typed), code=2).stderr
    assert served(home) == {"m": ["m-0"], "o": ["o-0"]}


@pytest.mark.parametrize(
    "told", ["{root}/sub/../yibu.yaml", "sub/../yibu.yaml", "{link}/yibu.yaml"]
)
@pytest.mark.parametrize("first", [True, False])
def test_a_file_is_the_same_by_every_path(
    home: Home, tmp_path_factory: pytest.TempPathFactory, told: str, first: bool
) -> None:
    """Whichever of the two paths the node was started with, engines go on and what is gone goes."""
    link = tmp_path_factory.mktemp("other") / "link"
    link.symlink_to(home.root)
    (home.root / "sub").mkdir()
    other = told.format(root=home.root, link=link)
    before, after = (other, "yibu.yaml") if first else ("yibu.yaml", other)
    home.write([fake("m"), fake("o")])
    home.yibu("up", "-d", "-f", before)
    engine = home.model("m")["replicas"][0]["pid"]
    assert "Nothing would change" in home.yibu("diff", "-f", after).stderr
    home.write([fake("m"), fake("o", "--tokens", "2")])
    home.yibu("up", "-d", "-f", after)
    home.write([fake("m")])
    assert "no longer has o" in home.yibu("up", "-d", "-f", after, code=2).stderr
    home.yibu("apply", "--yes", "-f", after)
    assert served(home) == {"m": ["m-0"]}
    assert home.model("m")["replicas"][0]["pid"] == engine


def test_a_file_that_is_renamed_keeps_its_models(home: Home) -> None:
    path = home.write([fake("m"), fake("o"), fake("p")])
    home.yibu("up", "-d")
    engine = home.model("m")["replicas"][0]["pid"]
    extra = home.root / "extra.yaml"
    home.write([fake("m"), fake("o")]).rename(path := home.root / "prod.yaml")
    extra.write_text(home.write([fake("q")]).read_text())
    (home.root / "yibu.yaml").unlink()
    home.yibu("apply", "--yes", "-f", str(extra))
    assert served(home).keys() == {"m", "o", "p", "q"}
    home.yibu("apply", "--yes", "-f", str(path))
    assert served(home).keys() == {"m", "o", "q"}
    assert "Nothing would change" in home.yibu("diff", "-f", str(path)).stderr
    home.write([fake("m")]).rename(path)
    home.yibu("apply", "--yes", "-f", str(path))
    assert served(home) == {"m": ["m-0"], "q": ["q-0"]}
    assert home.model("m")["replicas"][0]["pid"] == engine


@pytest.mark.parametrize("verb", [("apply", "--yes"), ("up", "-d")])
def test_a_model_is_moved_to_another_file(home: Home, verb: Sequence[str]) -> None:
    """It goes with the file that was applied last, although the other one had it too."""
    path = home.write([fake("m"), fake("o")])
    home.yibu("up", "-d")
    second = home.root / "second.yaml"
    home.write([fake("o")]).rename(second)
    home.write([fake("m")])
    home.yibu(*verb, "-f", str(second))
    assert "Nothing would change" in home.yibu("diff", "-f", str(path)).stderr
    home.yibu("apply", "--yes", "-f", str(path))
    assert served(home) == {"m": ["m-0"], "o": ["o-0"]}


def test_what_an_apply_leaves_as_it_was_is_not_gone_back_to(home: Home) -> None:
    first, second = [fake("m")], [fake("m", "--tokens", "2")]
    home.write(first)
    home.yibu("up", "-d")
    home.write(second)
    home.yibu("apply", "--yes")
    for _ in range(2):
        home.write([fake("m", "--fail-start", "broken")])
        home.yibu("apply", "--yes", code=1)
    home.yibu("rollback", "--yes")
    home.write(first)
    assert "Nothing would change" in home.yibu("diff").stderr
    assert "nothing to go back to" in home.yibu("rollback", "--yes", code=2).stderr


@pytest.mark.parametrize("back", [("rollback",), ("apply",)])
def test_a_change_is_taken_back_before_it_holds(home: Home, back: Sequence[str]) -> None:
    """By `rollback`, or by applying what the file had before."""
    gate = home.root / "gate"
    before = home.write([fake("m")]).read_text()
    home.yibu("up", "-d")
    old = home.model("m")["replicas"]
    path = home.write([fake("m", "--ready-when", str(gate))])
    changing = home.start("apply", "--yes")
    until(lambda: len(engines(home)) == 2, "the new engine beside the old one")
    path.write_text(before)
    home.yibu(*back, "--yes")
    said = changing.communicate(timeout=60)[1]
    assert changing.returncode == 5, said
    assert "was changed again" in said
    until(lambda: len(engines(home)) == 1, "the new engine gone")
    assert home.model("m")["replicas"][0]["pid"] == old[0]["pid"]
    assert "Nothing would change" in home.yibu("diff").stderr


def engines(home: Home) -> list[psutil.Process]:
    found = []
    for one in home.processes():
        with contextlib.suppress(psutil.NoSuchProcess):  # it ended meanwhile, or waits to be reaped
            found += [one] if "engine.py" in " ".join(one.cmdline()) else []
    return found


async def test_a_change_goes_on_when_its_command_is_killed(home: Home) -> None:
    """While one model still answers what it has, before another one has begun to come."""
    gate = home.root / "gate"
    home.write([fake("m"), fake("gone", "--end-when", str(gate))], drain_timeout=120)
    home.yibu("up", "-d")
    line = Connection(port(home))
    stream = asyncio.create_task(line.ask("gone", stream=True))
    await eventually(lambda: "generation 2" in (home.root / "logs/gone-0.log").read_text())
    path = home.write([fake("m", "--tokens", "2"), fake("new")], drain_timeout=120, port=port(home))
    changing = home.start("apply", "--yes")
    await eventually(lambda: "gone" not in served(home), "it is taken down")
    changing.kill()
    changing.communicate()
    gate.touch()
    status, body = await stream
    assert status == 200
    assert body.endswith(b"data: [DONE]\n\n")
    await line.close()

    await eventually(lambda: served(home) == {"m": ["m-0.2"], "new": ["new-0"]}, "all of it")
    assert "Nothing would change" in home.yibu("diff", "-f", str(path)).stderr


def has_lock(pid: int) -> bool:
    """Whether a process has the home's lock open: it holds it, or tries to."""
    try:
        files = [fd.readlink() for fd in Path(f"/proc/{pid}/fd").iterdir()]
    except OSError:
        return False
    return any(file.name == "node.lock" for file in files)


def successor(home: Home) -> psutil.Process | None:
    """The node that is to take another's place."""
    found = {one.pid: one for one in home.processes()}
    holders = {pid for pid, one in found.items() if "handover=" in " ".join(one.cmdline())}
    return next((one for one in found.values() if one.ppid() in holders), None)


def test_a_node_killed_while_it_is_replaced_comes_back(home: Home) -> None:
    """The new one holds the lock until it notices, and the old one's holder starts another."""
    home.write([fake()])
    home.yibu("up", "-d")
    engine, old = home.model("fake")["replicas"][0]["pid"], home.ps()["node"]
    replacing = home.start("node", "upgrade")

    def restarted() -> int | None:
        children = psutil.Process(old["holder"]).children()
        return next((c.pid for c in children if c.pid != old["pid"] and has_lock(c.pid)), None)

    new = until(lambda: successor(home), "the new node")
    assert new
    new.suspend()
    os.kill(old["pid"], signal.SIGKILL)
    again = until(restarted, "another in the old one's place")
    new.resume()
    replacing.communicate(timeout=60)
    assert replacing.returncode == 5
    until(home.client.running, "it serves")
    assert home.ps()["node"]["pid"] == again
    assert home.chat()["choices"]
    assert home.model("fake")["replicas"][0]["pid"] == engine
    until(lambda: not new.is_running(), "the new one gone")


def test_a_node_is_replaced_once_at_a_time(home: Home) -> None:
    """Of two upgrades at once one is refused, and the node answers commands after it. One whose command is
    killed leaves the way free for the next."""
    home.write([fake()])
    home.yibu("up", "-d")
    engine, old = home.model("fake")["replicas"][0]["pid"], home.ps()["node"]["pid"]

    def begun() -> tuple[subprocess.Popen[str], psutil.Process]:
        replacing = home.start("node", "upgrade")
        new = until(lambda: successor(home), "the new node")
        assert new
        new.suspend()
        return replacing, new

    killed, new = begun()
    killed.kill()
    killed.communicate()
    until(lambda: successor(home) is None, "the new node gone")
    assert home.ps()["node"]["pid"] == old

    replacing, new = begun()
    assert "is being replaced already" in home.yibu("node", "upgrade", code=2).stderr
    new.resume()
    replacing.communicate(timeout=60)
    assert replacing.returncode == 0
    assert home.ps()["node"]["pid"] == new.pid
    home.yibu("node", "upgrade")
    assert home.chat()["choices"]
    assert home.model("fake")["replicas"][0]["pid"] == engine


@pytest.mark.parametrize(
    ("killed", "code"),
    [("new node", 1), ("new holder", 0), ("old holder", 0), ("both holders", 0)],
)
async def test_what_is_killed_beside_a_node_that_is_replaced(
    home: Home, killed: str, code: int
) -> None:
    """No request is lost, whichever of the two nodes stays."""
    home.write([fake()])
    home.yibu("up", "-d")
    engine, old = home.model("fake")["replicas"][0]["pid"], home.ps()["node"]
    count, number = Count(), port(home)
    async with asyncio.TaskGroup() as group:
        for _ in range(2):
            group.create_task(ask_on(number, "fake", count))
        replacing = home.start("node", "upgrade")
        new = await eventually(lambda: successor(home), "the new node")
        new.suspend()
        if killed == "new node":
            new.kill()
        if killed in ("new holder", "both holders"):
            new.parent().kill()
        if killed in ("old holder", "both holders"):
            os.kill(old["holder"], signal.SIGKILL)
        if killed != "new node":
            new.resume()
        said = await asyncio.to_thread(replacing.communicate, timeout=120)
        had = count.answered
        await eventually(lambda: count.answered > had + 20, "answers after")
        count.stop = True
    assert replacing.returncode == code, said
    assert not count.lost, count
    assert home.ps()["node"]["pid"] == (new.pid if code == 0 else old["pid"])
    assert home.model("fake")["replicas"][0]["pid"] == engine
