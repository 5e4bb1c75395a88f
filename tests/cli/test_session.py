"""How a command ends the node it started."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from yibu.cli import session


def test_an_interrupt_before_the_node_answers_hurries_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C twice in quick succession: the second comes while the first asks the node to stop."""
    node = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    asked: list[dict[str, Any]] = []

    class Client:
        def __init__(self, _paths: object) -> None: ...

        def call(self, _op: str, **fields: Any) -> dict[str, Any]:
            asked.append(fields)
            if len(asked) == 1:
                raise KeyboardInterrupt
            node.kill()
            return {"pid": node.pid, "instance": "one"}

    monkeypatch.setattr(session, "Client", Client)
    session.shut_down(SimpleNamespace(paths=None), "one")  # type: ignore[arg-type]
    assert asked == [{"instance": "one"}, {"instance": "one", "hurry": True}]
    assert node.wait() != 0
