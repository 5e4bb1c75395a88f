"""``yibu export``: which files are written, with which modes, and when it refuses."""

from __future__ import annotations

import pytest
import yaml

from tests.e2e.home import Home
from tests.export.deployments import QWEN, SMOL

FORMATS = {
    "systemd": ["yibu.env", "yibu.service", "yibu.yaml"],
    "compose": [".dockerignore", ".env.example", "Dockerfile", "compose.yaml", "wheels/README", "yibu.yaml"],
    "k8s": ["configmap.yaml", "kustomization.yaml", "networkpolicy.yaml", "poddisruptionbudget.yaml",
            "service.yaml", "statefulset.yaml"],
    "grafana": ["alerts.yaml", "dashboard.json", "prometheus.yaml"],
}  # fmt: skip


@pytest.mark.parametrize("kind", FORMATS)
def test_it_writes_its_files_once(home: Home, kind: str) -> None:
    file = home.write([SMOL])
    done = home.yibu("export", kind)
    folder = home.root / kind
    written = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    assert sorted(written) == FORMATS[kind]
    assert sorted(done.stdout.splitlines()) == [f"{kind}/{name}" for name in FORMATS[kind]]
    private = {"yibu.env", "yibu.yaml"} if kind == "systemd" else set()
    for name, path in written.items():
        assert path.stat().st_mode & 0o777 == (0o600 if name in private else 0o644), name
    if "yibu.yaml" in written:
        assert written["yibu.yaml"].read_text() == file.read_text() + "\n"

    # The same again is no change; another is refused, and replaced where that is said.
    assert home.yibu("export", kind).stdout == ""
    changed = written[FORMATS[kind][0]]
    before = changed.read_text()
    changed.write_text("mine\n")
    refused = home.yibu("export", kind, code=2)
    assert str(changed.relative_to(home.root)) in refused.stderr
    assert "--force" in refused.stderr
    assert changed.read_text() == "mine\n"
    home.yibu("export", kind, "--force")
    assert changed.read_text() == before


def test_a_file_that_cannot_be_used_is_not_exported(home: Home) -> None:
    home.write([SMOL | {"options": {"contxt": 4096}}])
    assert "contxt" in home.yibu("export", "compose", code=2).stderr
    assert not (home.root / "compose").exists()


def test_variables_need_not_be_set_where_it_is_exported(home: Home) -> None:
    home.write([SMOL | {"env": {"HF_TOKEN": "${env.NOWHERE_SET}"}}], api_keys=["${env.NOR_THIS}"])
    home.yibu("export", "compose", "-o", "out")
    assert "NOWHERE_SET=" in (home.root / "out/.env.example").read_text()
    # This machine's own settings are not the file's.
    assert "NOR_THIS" in (home.root / "out/compose.yaml").read_text()


def test_files_are_mounted_where_the_container_s_yibu_looks_for_them(home: Home) -> None:
    """Sources and adapters are completed for this machine before they are checked, and not in the export."""
    (home.root / "模型").mkdir()
    for name in ("模型/千问.gguf", "legal.gguf"):
        (home.root / name).write_text("x")
    lora = {"options": {"lora": {"legal": "./legal.gguf"}}}
    home.write([SMOL | {"source": "./模型/千问.gguf"}, QWEN | lora])
    home.yibu("export", "compose")
    made = yaml.safe_load((home.root / "compose/compose.yaml").read_text())
    volumes = made["services"]["yibu"]["volumes"]
    assert {one["target"] for one in volumes if isinstance(one, dict)} == {
        "/etc/yibu/模型/千问.gguf",
        "/etc/yibu/legal.gguf",
    }
    said = home.yibu("export", "k8s")
    assert "/models/千问.gguf" in said.stderr
    assert (
        f"{home.root}/legal.gguf as /models/legal.gguf"
        in (home.root / "k8s/configmap.yaml").read_text()
    )


def test_another_machine_is_told_what_it_needs(home: Home) -> None:
    """Files that are named beside yibu.yaml, and a key where the address needs one."""
    (home.root / "model.gguf").write_text("x")
    home.write([SMOL | {"source": "./model.gguf"}], host="0.0.0.0")
    done = home.yibu("export", "systemd", "--config", "/srv/ai/yibu.yaml")
    assert f"{home.root}/model.gguf: that machine needs it at /srv/ai/model.gguf" in done.stderr
    assert 'YIBU_API_KEYS=""' in (home.root / "systemd/yibu.env").read_text()
    home.write([SMOL])
    home.yibu("export", "systemd", "--force")
    assert "YIBU_API_KEYS" not in (home.root / "systemd/yibu.env").read_text()


def test_it_says_where_it_cannot_know_of_gpus(home: Home) -> None:
    home.write([{"name": "qwen", "source": "modelscope:Qwen/Qwen3-8B"}])
    assert "--gpus N" in home.yibu("export", "compose").stderr
    assert "--gpus N" not in home.yibu("export", "compose", "--gpus", "0").stderr
    home.yibu("export", "compose", "--gpus", "2", "--force")
    assert "count: 2" in (home.root / "compose/compose.yaml").read_text()
    assert "a number was expected" in home.yibu("export", "k8s", "--gpus", "many", code=2).stderr


@pytest.mark.parametrize("name", ["", "Yibu", "a_b", "-x", "x" * 51, "é"])
def test_a_name_is_one_that_all_take(home: Home, name: str) -> None:
    home.write([SMOL])
    assert "is no name for a service" in home.yibu("export", "k8s", "--name", name, code=2).stderr
