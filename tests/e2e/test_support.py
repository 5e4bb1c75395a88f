"""The archive of `yibu support`: whole with and without a node, and without any secret."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from tests.e2e.home import Home, fake
from tests.support.polling import until
from yibu.cli.support.contents import collect
from yibu.management.context import Context
from yibu.node.control.client import ControlClient
from yibu.paths import Paths

SECRETS = {
    "environment": "envsecret-Zq81kd",
    "hub token": "hf_AbCdEfGhIjKlMnOpQrStUv",
    "token of a file": "fileTokenXx-77aabb",
    "proxy": "proxyPassZ9",
    "proxy without a scheme": "bareProxyPassZ9",
    "password by a short name": "shortNamePassZ9",
    "index": "indexPassZ9",
    "collector": "collectorKeyZ9",
    "gateway key": "gatewaykey-Zz00112233",
    "key of a file": "keyoffile-Zz445566",
    "variable of a model": "modelenv-Zz778899",
    "variable with a harmless name": "harmless-Zz121212",
    "flag": "flagsecret-Zz343434",
    "joined flag": "joinedsecret-Zz565656",
    "option": "optionsecret-Zz787878",
    "command": "commandsecret-Zz909090",
    "comment": "commentsecret-Zz010101",
    "log": "sk-logsecretZz0123456789",
}

SAID = "".join(f"and {secret} again\n" for kind, secret in SECRETS.items() if kind != "comment")
"""As a log may say each, but the comment's, which nobody can tell from other words."""


def planted(home: Home) -> Home:
    """A home with a secret in every place that there is for one."""
    (home.root / "hf-token").write_text(SECRETS["token of a file"] + "\n")
    keys = home.root / "keys"
    keys.write_text(SECRETS["key of a file"] + "\n")
    keys.chmod(0o600)
    settings = {
        "MY_SERVICE_TOKEN": SECRETS["environment"],
        "HF_TOKEN_PATH": str(home.root / "hf-token"),
        "MODELSCOPE_API_TOKEN": SECRETS["hub token"],
        "HTTPS_PROXY": f"http://me:{SECRETS['proxy']}@127.0.0.1:9",
        "PIP_PROXY": f"me:{SECRETS['proxy without a scheme']}@127.0.0.1:9",
        "UV_KEYRING_PASS": SECRETS["password by a short name"],
        "PIP_INDEX_URL": f"https://me:{SECRETS['index']}@index.example/simple",
        "OTEL_EXPORTER_OTLP_HEADERS": f"x-key={SECRETS['collector']}",
        "YIBU_OFFLINE": "1",
        "NO_PROXY": "*",
    }
    entry = fake("fake", "--print-env")
    entry["options"]["command"] += ["--model-name", "fake"]
    entry["env"] = {
        "UPSTREAM_PASSWORD": SECRETS["variable of a model"],
        "GREETING": SECRETS["variable with a harmless name"],
        "WHERE": "/var/lib/somewhere",
    }
    remote = {
        "name": "remote",
        "engine": "vllm",
        "source": "./nothing",
        "flags": ["--api-key", SECRETS["flag"], f"--hf-token={SECRETS['joined flag']}", "--dtype", "auto"],
        "options": {"some_password": SECRETS["option"], "max_model_len": 4096},
    }  # fmt: skip
    own = {
        "name": "own",
        "engine": "command",
        "options": {"command": f"serve --port {{port}} --token {SECRETS['command']}"},
    }
    path = home.write(
        [entry, remote, own], api_keys=[SECRETS["gateway key"]], api_key_file=str(keys)
    )
    path.write_text(f"# {SECRETS['comment']}\n{path.read_text()}")
    return replace(home, settings={**home.settings, **settings})


def members(archive: Path) -> dict[str, str]:
    with tarfile.open(archive) as opened:
        found = {}
        for entry in opened:
            assert entry.mode == 0o600
            file = opened.extractfile(entry)
            assert file is not None
            found[entry.name.partition("/")[2]] = file.read().decode()
    return found


def leaks(found: dict[str, str]) -> dict[str, list[str]]:
    whole = {
        kind: [name for name, text in found.items() if secret in text]
        for kind, secret in SECRETS.items()
    }
    return {kind: names for kind, names in whole.items() if names}


def test_it_holds_everything_but_secrets(home: Home) -> None:
    home = planted(home)
    home.yibu("up", "-d", "fake")
    node = home.client.call("access")["key"]
    state = json.loads(next(home.root.rglob("node.json")).read_text())
    engine = state["models"][0]["replicas"][0]["key"]
    account = json.loads(home.yibu("key", "add", "somebody", "--json").stdout)["key"]
    log = next(home.root.rglob("fake-0.log"))
    with log.open("a") as file:
        file.write(f"Authorization: Bearer {SECRETS['log']}\n")
        file.write(SAID)
        file.write(f"inner {engine} own {node} account {account} at /var/lib/somewhere\n")
    archive = home.root / "x.tar.gz"
    done = home.yibu("support", "-o", str(archive))
    assert done.stdout.strip() == str(archive)
    assert archive.stat().st_mode & 0o777 == 0o600
    found = members(archive)
    wanted = {
        *(
            "versions.json",
            "doctor.json",
            "environment.json",
            "yibu.yaml",
            "plans/fake-0.json",
            "plans/own-0.json",
            "store.json",
        ),
        *("node.json", "ps.json", "reserved.json", "settings.json", "metrics.txt", "MANIFEST.txt"),
        *("logs/node.log", "logs/fake-0.log"),
    }
    assert set(found) == wanted
    assert leaks(found) == {}
    everything = "".join(found.values())
    for secret in (node, engine, account):
        assert secret not in everything
    assert "plans/remote-0.json" in found["MANIFEST.txt"].partition("Not in it:")[2]
    # What is no secret stays, or the archive would be of no use.
    assert "again" in found["logs/fake-0.log"]
    assert "/var/lib/somewhere" in found["logs/fake-0.log"]
    assert "--print-env" in found["yibu.yaml"]
    assert json.loads(found["ps.json"])["models"][0]["name"] == "fake"
    assert 'yibu_model_state{model="fake",state="ready"} 1' in found["metrics.txt"]
    assert json.loads(found["versions.json"])["packages"]["uvicorn"]
    for name in wanted - {"MANIFEST.txt"}:
        assert name in found["MANIFEST.txt"]


def test_without_a_node_a_log_of_before_holds_none_either(home: Home) -> None:
    home = planted(home)
    (home.root / "logs").mkdir()
    (home.root / "logs" / "old-0.log").write_text(SAID)
    summary = json.loads(home.yibu("support", "--json", "-n", "100").stdout)
    assert summary["version"] == 1
    found = members(Path(summary["file"]))
    assert leaks(found) == {}
    assert "again" in found["logs/old-0.log"]
    assert "max_model_len: 4096" in found["yibu.yaml"]
    assert "- --dtype\n" in found["yibu.yaml"]
    assert {"ps.json", "metrics.txt", "node.json"} <= set(summary["missing"])
    assert "No node runs" in summary["missing"]["ps.json"]


def test_what_cannot_be_read_is_left_out_and_said(home: Home) -> None:
    home.write([fake("fake")])
    home.yibu("up", "-d")
    home.kill_node()
    until(lambda: not home.client.running())
    (home.root / "yibu.yaml").write_text("models: [{name: broken, secret: abc\n  - !!")
    summary = json.loads(home.yibu("support", "--offline", "--json").stdout)
    assert "configuration" in summary["missing"]
    assert "not YAML" in summary["missing"]["yibu.yaml"]
    assert "node.json" in [member["name"] for member in summary["members"]]

    taken = home.yibu("support", "--offline", "-o", summary["file"], code=2)
    assert "left as it is" in taken.stderr
    home.yibu("down")


def test_a_node_that_hangs_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside what `yibu doctor` asks: each question waits for as long as a node may take."""
    assert ControlClient.call.__kwdefaults__ is not None
    monkeypatch.setitem(ControlClient.call.__kwdefaults__, "timeout", 0.2)
    env = {"YIBU_HOME": str(tmp_path), "YIBU_OFFLINE": "1", "PATH": os.environ["PATH"]}
    context = Context(env=env, paths=Paths.from_env(env), directory=tmp_path)
    context.paths.make()
    (tmp_path / "yibu.yaml").write_text(json.dumps({"models": [fake(), fake("other")]}))
    with socket.socket(socket.AF_UNIX) as node:
        node.bind(str(context.paths.control_socket))
        node.listen()
        found = collect(context, None, lines=0)
        node.setblocking(False)
        asked = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                node.accept()[0].close()
                asked += 1
    assert asked == 2
    silent = {"ps.json", "reserved.json", "settings.json", "metrics.txt"}
    assert silent | {"plans/fake-0.json", "plans/other-0.json"} <= set(found.missing)
    assert all("does not answer" in found.missing[name] for name in silent)
