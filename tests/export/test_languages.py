"""Exports in Chinese: the same objects as in English, with comments, titles and alerts in Chinese."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

CONFIG = """\
gateway: {host: 0.0.0.0, funasr_port: 10095, api_key_file: keys}
models:
  - {name: big, source: modelscope:Qwen/Qwen3-8B, engine: vllm, gpus: [0, 1]}
  - {name: mine, source: ./model.gguf, env: {TOKEN: "${env.MINE}"}}
"""
RUN = """
import sys
from yibu.messages import use
use(sys.argv[1])
from yibu.cli.main import app
for words in (["systemd"], ["compose"], ["k8s", "--service-monitor", "--gpus", "2"], ["grafana"]):
    app(["export", *words, "-f", "yibu.yaml", "-o", f"{sys.argv[1]}/{words[0]}"], standalone_mode=False)
"""
HAN = re.compile(r"[\u4e00-\u9fff]")
TYPED = re.compile(
    r"^(\$|docker |kubectl |cp |python3 |pip |--from|- name|[A-Z_]+=|hadolint |syntax=|resources:|promtool"
    r"|nginx\.|proxy-)"
)
"""Lines of comments that are commands or settings, the same in every language."""


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exports")
    (folder / "yibu.yaml").write_text(CONFIG)
    (folder / "model.gguf").write_text("")
    (folder / "keys").write_text("a-key-of-some-length")
    (folder / "keys").chmod(0o600)
    for language in ("en", "zh_CN"):
        done = subprocess.run(
            [sys.executable, "-c", RUN, language], cwd=folder, capture_output=True, text=True,
            timeout=60, check=False, env={"HOME": str(folder), "YIBU_HOME": str(folder / "home")},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    return folder


def _files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_the_objects_are_the_same(exported: Path) -> None:
    names = _files(exported / "en")
    assert names == _files(exported / "zh_CN")
    assert len(names) > 15
    for name in names:
        english, chinese = (
            (exported / language / name).read_text() for language in ("en", "zh_CN")
        )
        if name.endswith((".yaml", ".json")):
            assert _bare(yaml.safe_load(english)) == _bare(yaml.safe_load(chinese)), name
        elif name.endswith("README"):
            assert HAN.search(chinese)
        else:
            assert _code(english) == _code(chinese), name


def _bare(value: Any) -> Any:
    """Without texts for people; what they show of labels stays."""
    if isinstance(value, dict):
        return {
            key: sorted(re.findall(r"\{\{.*?\}\}", item))
            if key in {"title", "description", "legendFormat", "summary", "label"}
            else _bare(item)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_bare(item) for item in value]
    return re.sub(r":\?[^}]*\}", "}", value) if isinstance(value, str) else value


def _code(text: str) -> list[str]:
    return [line for line in text.splitlines() if not line.startswith(("#", "Description="))]


def test_every_comment_is_in_chinese(exported: Path) -> None:
    english = []
    for name in _files(exported / "zh_CN"):
        if not name.endswith(("/yibu.yaml", ".json", "README")):
            for line in (exported / "zh_CN" / name).read_text().splitlines():
                said = line.strip().removeprefix("#").strip()
                if line.strip().startswith("# ") and not (HAN.search(said) or TYPED.match(said)):
                    english.append(f"{name}: {line}")
    assert english == []


def test_the_dashboard_and_the_alerts_are_in_chinese(exported: Path) -> None:
    dashboard = json.loads((exported / "zh_CN/grafana/dashboard.json").read_text())
    titles = [panel["title"] for panel in dashboard["panels"]]
    assert len(titles) > 20
    assert [title for title in titles if not HAN.search(title) and title != "token"] == []
    rules = yaml.safe_load((exported / "zh_CN/grafana/alerts.yaml").read_text())["groups"][0][
        "rules"
    ]
    said = [text for rule in rules for text in rule["annotations"].values()]
    assert [text for text in said if not HAN.search(text)] == []
