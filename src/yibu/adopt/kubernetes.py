"""Kubernetes manifests: the servers in the containers of their pods."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from yibu.adopt.bash import Gap, UnknownScriptError
from yibu.adopt.containers import Container
from yibu.adopt.marks import any_start
from yibu.adopt.services import ManifestService, line_of, mappings_in, text_of, words_of
from yibu.messages import tr

_IN_POD = re.compile(r"\$\(([A-Za-z_]\w*)\)")
_WORKLOADS = frozenset({"Pod", "Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job"})


def read_kubernetes(
    document: Mapping[str, Any], documents: Sequence[Mapping[str, Any]], text: str
) -> Iterator[ManifestService]:
    kind = document["kind"]
    if kind == "List":
        for item in document.get("items") or ():
            if isinstance(item, Mapping) and "kind" in item:
                yield from read_kubernetes(item, [*documents, *document["items"]], text)
        return
    if kind not in _WORKLOADS:
        runs = any("image" in part for _, part in mappings_in(document, "", 0))
        if runs and any_start(yaml.safe_dump(document)):
            raise UnknownScriptError(
                Gap(line_of(text, f"kind: {kind}"), f"kind: {kind}"),
                tr("is not read, and starts a server"),
            )
        return
    spec = document.get("spec") or {}
    pod = spec if kind == "Pod" else ((spec.get("template") or {}).get("spec") or {})
    labels = ((spec.get("template") or document).get("metadata") or {}).get("labels") or {}
    name = (document.get("metadata") or {}).get("name", "?")
    for raw in pod.get("containers") or ():
        env, warnings = pod_env(raw)
        folders, lost = _pod_folders(raw, pod)
        container = Container(
            image=str(raw.get("image", "")),
            name=str(raw.get("name", name)),
            entrypoint=words_of(raw["command"]) if raw.get("command") else None,
            arguments=words_of(raw.get("args")),
            env=env,
            ports=_pod_ports(raw, labels, documents),
            folders=folders,
            host_network=bool(pod.get("hostNetwork")),
        )
        container.entrypoint = _in_pod(container.entrypoint, env)
        container.arguments = _in_pod(container.arguments, env) or ()
        words = " ".join((*(container.entrypoint or ()), *container.arguments))
        warnings += [
            tr(
                "{path} is on a volume of the cluster's ({kind}): put the model on this "
                "machine, and correct the source",
                path=path,
                kind=kind,
            )
            for path, kind in lost.items()
            if path in words
        ]
        replicas = int(spec.get("replicas", 1) or 1)
        line = line_of(text, container.image)
        yield ManifestService(container, f"{kind} {name}", replicas, line, (), tuple(warnings))


def _in_pod(words: tuple[str, ...] | None, env: Mapping[str, str]) -> tuple[str, ...] | None:
    """``$(VAR)`` filled in; what is not set stays as it is, as Kubernetes leaves it."""
    if words is None:
        return None
    return tuple(_IN_POD.sub(lambda m: env.get(m[1], m[0]), word) for word in words)


def pod_env(raw: Mapping[str, Any]) -> tuple[dict[str, str], list[str]]:
    env: dict[str, str] = {}
    warnings = []
    for entry in raw.get("env") or ():
        name = str(entry.get("name", ""))
        if "valueFrom" in entry:
            kind = next(iter(entry["valueFrom"] or {}), tr("a reference")).removesuffix("KeyRef")
            env[name] = f"${{env.{name}}}"
            warnings.append(
                tr("{name} comes from a {kind}: set it in yibu's environment", name=name, kind=kind)
            )
        else:
            env[name] = text_of(entry.get("value"))
    warnings += [
        tr(
            "envFrom of container {container} was not read: variables may be missing",
            container=raw.get("name"),
        )
        for _ in raw.get("envFrom") or ()
    ]
    return env, warnings


def _pod_folders(
    raw: Mapping[str, Any], pod: Mapping[str, Any]
) -> tuple[dict[str, str], dict[str, str]]:
    """Mounted paths that are this machine's, and those that are not, with what they are."""
    volumes = {str(one.get("name")): one for one in pod.get("volumes") or ()}
    folders, lost = {}, {}
    for mount in raw.get("volumeMounts") or ():
        volume = volumes.get(str(mount.get("name")), {})
        path = str(mount.get("mountPath", "")).rstrip("/")
        if isinstance(volume.get("hostPath"), Mapping):
            folders[path] = str(volume["hostPath"].get("path", ""))
        elif path != "/dev/shm":  # noqa: S108 - looked for, not written to
            lost[path] = next((key for key in volume if key != "name"), "unknown")
    return folders, lost


def _pod_ports(
    raw: Mapping[str, Any], labels: Mapping[str, Any], documents: Sequence[Mapping[str, Any]]
) -> dict[str, str]:
    """The container's ports → those of the Service that clients know, where there is one."""
    ports = {str(one.get("containerPort")): str(one.get("hostPort") or one.get("containerPort"))
             for one in raw.get("ports") or ()}  # fmt: skip
    names = {str(one.get("name")): str(one.get("containerPort")) for one in raw.get("ports") or ()}
    for document in documents:
        spec = document.get("spec") or {}
        selector = spec.get("selector")
        if document.get("kind") != "Service" or not isinstance(selector, Mapping):
            continue
        if selector and all(labels.get(key) == value for key, value in selector.items()):
            for port in spec.get("ports") or ():
                target = str(port.get("targetPort", port.get("port")))
                ports[names.get(target, target)] = str(port.get("port"))
    return ports
