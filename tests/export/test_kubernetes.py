"""Objects that Kubernetes' published schemas take, of every version that they are for."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator, ValidationError
from kubernetes_validate.utils import schema_contents
from referencing import Registry, Resource

from tests.export.deployments import CASES, QWEN, SMOL, deployment
from yibu.errors import UsageError
from yibu.export import kubernetes
from yibu.export.kubernetes import Cluster

VERSIONS = ["1.28", "1.30", "1.34", "1.37"]
UNPUBLISHED = {"Kustomization", "ServiceMonitor"}
"""Kinds that are not Kubernetes' own."""


def objects(folder: Path, cluster: Cluster | None = None, **settings: Any) -> dict[str, Any]:
    files = kubernetes.export(deployment(folder, **settings), cluster or Cluster())
    return {(found := yaml.safe_load(file.text))["kind"]: found for file in files.values()}


@functools.cache
def definitions(version: str) -> Registry:
    """The types of one version, crawled once: ``kubernetes_validate.validate`` does so each time."""
    folder = f"kubernetes-json-schema/v{version}.0-local-strict"
    types = schema_contents(f"{folder}/_definitions.json", version)
    return (Resource.from_contents(types) @ Registry()).crawl()


def check(made: dict[str, Any], version: str) -> None:
    """Hold an object against the schema of its kind, where unknown fields are refused."""
    group, _, number = made["apiVersion"].rpartition("/")
    kind = "-".join(filter(None, [made["kind"].lower(), group.partition(".")[0], number]))
    schema = schema_contents(
        f"kubernetes-json-schema/v{version}.0-local-strict/{kind}.json", version
    )
    registry = Resource.from_contents(schema) @ definitions(version)
    Draft202012Validator(schema, registry=registry).validate(made)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_schemas_take_them(tmp_path: Path, version: str) -> None:
    cluster = Cluster("ai", "fast", "20Gi", "16Gi", "4", service_monitor=True)
    every = CASES if version == VERSIONS[1] else ("key file", "GPUs")
    for case in every:
        for kind, found in objects(tmp_path, cluster, **CASES[case]).items():
            if kind not in UNPUBLISHED:
                check(found, version)


def test_the_schemas_would_refuse_a_wrong_one(tmp_path: Path) -> None:
    found = objects(tmp_path)["StatefulSet"]
    found["spec"]["template"]["spec"]["containers"][0]["imagePolicy"] = "Always"
    with pytest.raises(ValidationError, match="imagePolicy"):
        check(found, "1.30")


@pytest.mark.parametrize("case", CASES)
def test_each_refers_to_what_is_there(tmp_path: Path, case: str) -> None:
    """Selectors find the pod, ports and volumes by their names, the configuration by its own."""
    found = objects(tmp_path, Cluster(service_monitor=True), **CASES[case])
    template = found["StatefulSet"]["spec"]["template"]
    labels, pod = template["metadata"]["labels"], template["spec"]
    container = pod["containers"][0]
    selectors = [
        found["Service"]["spec"]["selector"],
        found["StatefulSet"]["spec"]["selector"]["matchLabels"],
        found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        found["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
    ]
    assert all(selector == labels for selector in selectors)
    ports = {port["name"] for port in container["ports"]}
    probes = [container[f"{name}Probe"]["httpGet"] for name in ("startup", "readiness", "liveness")]
    assert {probe["port"] for probe in probes} <= ports
    assert [probe["path"] for probe in probes] == ["/healthz", "/readyz", "/healthz"]
    assert {port["targetPort"] for port in found["Service"]["spec"]["ports"]} == ports
    assert {port["port"] for port in found["NetworkPolicy"]["spec"]["ingress"][0]["ports"]} == ports
    volumes = {volume["name"] for volume in pod["volumes"]}
    volumes |= {
        one["metadata"]["name"] for one in found["StatefulSet"]["spec"]["volumeClaimTemplates"]
    }
    for one in (container, *pod.get("initContainers", [])):
        assert {mount["name"] for mount in one["volumeMounts"]} <= volumes
        assert one["securityContext"]["readOnlyRootFilesystem"]
    config = next(volume for volume in pod["volumes"] if volume["name"] == "config")
    assert config["configMap"]["name"] == found["ConfigMap"]["metadata"]["name"]
    monitored = found["ServiceMonitor"]["spec"]
    assert monitored["endpoints"][0]["port"] in ports
    assert (
        monitored["selector"]["matchLabels"].items()
        <= found["Service"]["metadata"]["labels"].items()
    )
    allowed = [one["name"] for one in pod["securityContext"].get("sysctls", [])]
    low = [port for port in container["ports"] if port["containerPort"] < 1024]  # nobody is root
    assert allowed == ["net.ipv4.ip_unprivileged_port_start"] * len(low)


def test_secrets_are_referred_to(tmp_path: Path) -> None:
    found = objects(tmp_path, api_keys=["${env.FIRST_KEY}"])["StatefulSet"]
    env = {one["name"]: one for one in found["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert env["FIRST_KEY"]["valueFrom"]["secretKeyRef"] == {
        "name": "yibu-secrets",
        "key": "FIRST_KEY",
    }
    # A mirror and a proxy are needed as in Compose, where the secret has them.
    assert env["PIP_INDEX_URL"]["valueFrom"]["secretKeyRef"]["optional"] is True
    (tmp_path / "keys").write_text("never-to-be-seen\n")
    made = kubernetes.export(deployment(tmp_path, **CASES["key file"]), Cluster())
    assert not any("never-to-be-seen" in file.text for file in made.values())
    pod = yaml.safe_load(made["statefulset.yaml"].text)["spec"]["template"]["spec"]
    # Kubernetes mounts secrets for a group, and yibu refuses keys that a group may read.
    assert pod["initContainers"][0]["command"][:3] == ["install", "-m", "0600"]


def test_a_pod_asks_for_gpus(tmp_path: Path) -> None:
    def asked(**settings: Any) -> Any:
        pod = objects(tmp_path, **settings)["StatefulSet"]["spec"]["template"]["spec"]
        return pod["containers"][0]["resources"].get("limits", {}).get("nvidia.com/gpu")

    assert asked(models=[SMOL]) is None
    assert asked(models=[QWEN]) == 2
    assert asked(models=[QWEN | {"gpus": [2, 3]}]) == 4  # so that there are GPUs of these numbers
    assert asked(models=[SMOL], gpus=1) == 1
    with pytest.raises(UsageError, match="a number of GPUs"):
        asked(models=[SMOL], gpus=None)


def test_a_changed_file_starts_the_pod_again(tmp_path: Path) -> None:
    def template(**settings: Any) -> Any:
        return objects(tmp_path, **settings)["StatefulSet"]["spec"]["template"]["metadata"]

    assert template() == template()
    assert template()["annotations"] != template(max_connections=99)["annotations"]


def test_the_configuration_is_whole_in_it(tmp_path: Path) -> None:
    found = objects(tmp_path, **CASES["Chinese"])["ConfigMap"]
    assert found["data"]["yibu.yaml"].rstrip("\n") == (tmp_path / "yibu.yaml").read_text()
