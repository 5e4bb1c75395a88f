"""Commands run in the tests' own process; the nodes that they start are forked."""

from __future__ import annotations

import subprocess
from types import SimpleNamespace

import pytest

from tests.support.zygote import ZYGOTE
from yibu.cli import launch


@pytest.fixture(autouse=True)
def nodes_are_forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node costs half a second of processor time to import; many of these only begin to start."""
    subprocesses = SimpleNamespace(PIPE=subprocess.PIPE, Popen=ZYGOTE.node)
    monkeypatch.setattr(launch, "subprocess", subprocesses)
