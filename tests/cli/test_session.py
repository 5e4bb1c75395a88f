"""How a command ends the node it started."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.polling import until
from yibu.cli import launch, session
from yibu.config import Config, GatewayConfig, ModelConfig
from yibu.config.wire import plain_config
from yibu.management.context import Context
from yibu.management.difference import difference
from yibu.node.control.client import ControlClient


def test_an_interrupt_before_the_node_answers_hurries_it() -> None:
    """Ctrl-C twice in quick succession: the second comes while the first asks the node to stop."""
    node = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    asked: list[dict[str, Any]] = []

    class Asked:
        def call(self, _op: str, **fields: Any) -> dict[str, Any]:
            asked.append(fields)
            if len(asked) == 1:
                raise KeyboardInterrupt
            node.kill()
            return {"pid": node.pid, "instance": "one"}

    session.shut_down(SimpleNamespace(client=Asked()), "one")  # type: ignore[arg-type]
    assert asked == [{"instance": "one"}, {"instance": "one", "hurry": True}]
    assert node.wait() != 0


@pytest.mark.parametrize(
    "moment",
    ["yibu.cli.launch._first_line", "yibu.cli.session.NodeWatch", "yibu.cli.session.bring_up"],
)
def test_an_interrupt_while_the_node_starts_leaves_no_node(
    moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(moment, interrupted)
    monkeypatch.setenv("YIBU_HOME", str(tmp_path))
    context, config = Context.here(), Config(GatewayConfig(port=0))
    with launch.NodeLaunch(context) as node:
        begun = node._process
        assert begun is not None
        one = session.NodeSession(context, config, node)
        with pytest.raises(KeyboardInterrupt), one.running([]):
            pass
    until(lambda: begun.poll() is not None, "the node's end")
    assert not ControlClient(context.paths).running()


def test_a_node_of_the_version_before_tells_nothing_of_what_comes() -> None:
    """Between an update of the package and `yibu node upgrade`."""
    one = ModelConfig("one", source="/m")
    told = {"models": [plain_config(one)]}
    assert not difference([one], told, [])
    assert [each.name for each in difference([one, ModelConfig("two")], told, []).added] == ["two"]
