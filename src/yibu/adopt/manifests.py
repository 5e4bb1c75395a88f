"""Compose files, Kubernetes manifests and Helm values: the servers in their containers.

Read as YAML, never as shell. https://docs.docker.com/reference/compose-file and the Kubernetes API
reference have the fields.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import yaml

from yibu.adopt import compose_fields, production_stack
from yibu.adopt.bash import Files, Gap, Setting, UnknownScriptError
from yibu.adopt.containers import Container
from yibu.adopt.marks import any_start
from yibu.errors import UsageError
from yibu.messages import tr

_VARIABLE = re.compile(
    r"\$(?:(?P<twice>\$)|(?P<bare>[A-Za-z_]\w*)|\{(?P<name>[A-Za-z_]\w*)"
    r"(?:(?P<sign>:?[-+?])(?P<rest>[^}]*))?\})"
)
_IN_POD = re.compile(r"\$\(([A-Za-z_]\w*)\)")
_WORKLOADS = frozenset({"Pod", "Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job"})
_MAX_DEPTH = 12


@dataclass(frozen=True, slots=True)
class Service:
    """One container of a manifest."""

    container: Container
    where: str
    """``service vllm``, ``Deployment qwen``."""
    replicas: int = 1
    line: int = 0
    """Of the manifest, where its image stands."""
    gaps: tuple[Gap, ...] = ()
    warnings: tuple[str, ...] = field(default=())


def read_manifest(text: str, setting: Setting) -> list[Service] | None:
    """The containers of a manifest; None where the text is none.

    Raises:
        UsageError: it is a template, or YAML that is not valid.
    """
    if not _is_mapping(text) and not re.search(
        r"^\s*(services|kind|image|containers|modelSpec|repository)\s*:", text, re.MULTILINE
    ):
        return None
    if (template := re.search(r"^(\s*[\w-]+:.*|\s*)(\{\{[^\n]*)", text, re.MULTILINE)) is not None:
        raise UnknownScriptError(
            Gap(text.count("\n", 0, template.start(2)) + 1, template[2]),
            tr("is filled in by Helm, whose values are not known here"),
            tr("Adopt what it renders to: helm template CHART > manifests.yaml"),
        )
    try:
        documents = [one for one in yaml.safe_load_all(text) if isinstance(one, Mapping)]
    except yaml.YAMLError as error:
        if _is_mapping(text):
            raise UsageError(tr("this is no valid YAML: {error}", error=error)) from error
        return None
    found: list[Service] = []
    for document in documents:
        if isinstance(document.get("services"), Mapping):
            found += _compose(document, setting, text)
        elif isinstance(document.get("kind"), str):
            found += _kubernetes(document, documents, text)
        else:
            found += _helm(document, text)
    if not found and _is_mapping(text):
        first = next(
            line for line in text.splitlines() if re.match(r"['\"]?[\w./-]+['\"]?\s*:", line)
        )
        raise UnknownScriptError(
            Gap(_line_of(text, first), first),
            tr(
                "begins a YAML file that is no Compose file, no Kubernetes manifest, no Helm "
                "values with a container and none of llama-swap's"
            ),
            tr("Adopt one server that it starts: yibu adopt -- COMMAND…, or --pid PID"),
        )
    return found or None


def _is_mapping(text: str) -> bool:
    """Whether the first line that says something is ``key:``, or YAML's ``---``."""
    lines = (line for line in text.splitlines() if line.strip() and not line.startswith("#"))
    return re.match(r"(---|['\"]?[\w./-]+['\"]?\s*:(\s|$))", next(lines, "")) is not None


# Compose --------------------------------------------------------------------------------------


def _compose(document: Mapping[str, Any], setting: Setting, text: str) -> Iterator[Service]:
    variables = {**_dotenv(setting.files), **setting.variables, **setting.given}
    for name, raw in document["services"].items():
        if not isinstance(raw, Mapping):
            continue
        gaps: list[Gap] = []
        service = _interpolated(raw, variables, gaps)
        gaps = [replace(gap, line=_line_of(text, gap.construct)) for gap in gaps]
        warnings = []
        env, unread = _compose_env(service, setting.files)
        warnings += [tr(
"{file}, which service {name} takes variables from, is not here and was not read",
file=file,
name=name
) for file in unread]  # fmt: skip
        if "extends" in service:
            gaps.append(
                Gap(_line_of(text, "extends:"), tr("extends: of service {name}", name=name))
            )
        container = Container(
            image=str(service.get("image", "")),
            name=str(service.get("container_name", name)),
            entrypoint=_words(service["entrypoint"]) if service.get("entrypoint") else None,
            arguments=_words(service.get("command")),
            env=env | compose_fields.gpus(service),
            ports=dict(map(compose_fields.port, service.get("ports") or ())),
            folders={
                inside: compose_fields.at_home(outside, variables)
                for inside, outside in filter(
                    None, map(compose_fields.volume, service.get("volumes") or ())
                )
            },
            host_network=service.get("network_mode") == "host",
        )
        scale = (service.get("deploy") or {}).get("replicas", service.get("scale", 1))
        line = _line_of(text, f"{name}:")
        yield Service(
            container,
            tr("service {name}", name=name),
            int(scale or 1),
            line,
            tuple(gaps),
            tuple(warnings),
        )


def _line_of(text: str, construct: str) -> int:
    return text.count("\n", 0, max(text.find(construct), 0)) + 1


def _dotenv(files: Files) -> dict[str, str]:
    """Compose reads ``.env`` beside its file."""
    return _env_file(files.read(".env") or "")


def _env_file(text: str) -> dict[str, str]:
    pairs = (line.strip().removeprefix("export ").partition("=") for line in text.splitlines())
    return {
        name.strip(): value.strip().strip("'\"")
        for name, equals, value in pairs
        if equals and not name.startswith("#")
    }


def _interpolated(value: Any, variables: Mapping[str, str], gaps: list[Gap]) -> Any:
    """The same with ``${X}`` filled in as Compose does; what is not set goes to ``gaps``."""
    if isinstance(value, Mapping):
        return {key: _interpolated(one, variables, gaps) for key, one in value.items()}
    if isinstance(value, list):
        return [_interpolated(one, variables, gaps) for one in value]
    if not isinstance(value, str):
        return value

    def fill(match: re.Match[str]) -> str:
        if match["twice"]:
            return "$"
        name, sign = match["bare"] or match["name"], match["sign"] or ""
        known = variables.get(name)
        missing = known is None or (sign[:1] == ":" and not known)
        if sign.endswith("+"):
            return "" if missing else match["rest"]
        if not missing:
            assert known is not None
            return known
        if sign.endswith("-"):
            return str(_interpolated(match["rest"], variables, gaps))
        gaps.append(Gap(1, match[0], unset=name))
        return ""

    return _VARIABLE.sub(fill, value)


def _words(value: Any) -> tuple[str, ...]:
    """A command as Compose and Kubernetes have it: a list, or words that a shell would part."""
    if isinstance(value, str):
        try:
            return tuple(shlex.split(value))
        except ValueError as error:
            raise UsageError(
                tr("the command {value!r} cannot be read: {error}", value=value, error=error)
            ) from error
    return tuple(map(_text, value)) if isinstance(value, Sequence) else ()


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else "" if value is None else str(value)


def _compose_env(service: Mapping[str, Any], files: Files) -> tuple[dict[str, str], list[str]]:
    env: dict[str, str] = {}
    unread: list[str] = []
    listed = service.get("env_file") or []
    for entry in [listed] if isinstance(listed, str | Mapping) else listed:
        path = str(entry.get("path", "")) if isinstance(entry, Mapping) else str(entry)
        text = files.read(path)
        if text is None:
            unread.append(path)
        else:
            env |= _env_file(text)
    given = service.get("environment") or {}
    pairs = (
        given.items()
        if isinstance(given, Mapping)
        else ((name, value) for name, _, value in (str(one).partition("=") for one in given))
    )
    return env | {str(name): _text(value) for name, value in pairs}, unread


# Kubernetes -----------------------------------------------------------------------------------


def _kubernetes(
    document: Mapping[str, Any], documents: Sequence[Mapping[str, Any]], text: str
) -> Iterator[Service]:
    kind = document["kind"]
    if kind == "List":
        for item in document.get("items") or ():
            if isinstance(item, Mapping) and "kind" in item:
                yield from _kubernetes(item, [*documents, *document["items"]], text)
        return
    if kind not in _WORKLOADS:
        runs = any("image" in part for _, part in _parts(document, "", 0))
        if runs and any_start(yaml.safe_dump(document)):
            raise UnknownScriptError(
                Gap(_line_of(text, f"kind: {kind}"), f"kind: {kind}"),
                tr("is not read, and starts a server"),
            )
        return
    spec = document.get("spec") or {}
    pod = spec if kind == "Pod" else ((spec.get("template") or {}).get("spec") or {})
    labels = ((spec.get("template") or document).get("metadata") or {}).get("labels") or {}
    name = (document.get("metadata") or {}).get("name", "?")
    for raw in pod.get("containers") or ():
        env, warnings = _pod_env(raw)
        folders, lost = _pod_folders(raw, pod)
        container = Container(
            image=str(raw.get("image", "")),
            name=str(raw.get("name", name)),
            entrypoint=_words(raw["command"]) if raw.get("command") else None,
            arguments=_words(raw.get("args")),
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
        line = _line_of(text, container.image)
        yield Service(container, f"{kind} {name}", replicas, line, (), tuple(warnings))


def _in_pod(words: tuple[str, ...] | None, env: Mapping[str, str]) -> tuple[str, ...] | None:
    """``$(VAR)`` filled in; what is not set stays as it is, as Kubernetes leaves it."""
    if words is None:
        return None
    return tuple(_IN_POD.sub(lambda m: env.get(m[1], m[0]), word) for word in words)


def _pod_env(raw: Mapping[str, Any]) -> tuple[dict[str, str], list[str]]:
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
            env[name] = _text(entry.get("value"))
    warnings += [tr(
"envFrom of container {get} was not read: variables may be missing",
get=raw.get("name")
)
                 for _ in raw.get("envFrom") or ()]  # fmt: skip
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


# Helm -----------------------------------------------------------------------------------------


def _helm(values: Mapping[str, Any], text: str) -> Iterator[Service]:
    for path, part in _parts(values, "", 0):
        if isinstance(part.get("modelSpec"), list):
            for spec in part["modelSpec"]:
                if isinstance(spec, Mapping):
                    yield _of_stack(spec, part, text)
        elif "image" in part and any(key in part for key in ("args", "command", "extraArgs")):
            yield _chart(path or "values", part, text)


def _parts(value: Any, path: str, depth: int) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if depth > _MAX_DEPTH:
        return
    if isinstance(value, Mapping):
        yield path, value
        for key, inner in value.items():
            yield from _parts(inner, f"{path}.{key}".lstrip("."), depth + 1)
    elif isinstance(value, list):
        for inner in value:
            yield from _parts(inner, path, depth + 1)


def _chart(path: str, part: Mapping[str, Any], text: str) -> Service:
    image = part["image"]
    if isinstance(image, Mapping):
        command = image.get("command") or part.get("command")
        image = f"{image.get('repository', '')}:{image.get('tag', 'latest')}"
    else:
        command = part.get("command")
    env, warnings = _pod_env({"env": part.get("env") or []}) if isinstance(
        part.get("env", []), list) else ({k: _text(v) for k, v in part["env"].items()}, [])  # fmt: skip
    arguments = _words(part.get("args")) + _words(part.get("extraArgs"))
    entry = _words(command) or None
    container = Container(image=str(image), entrypoint=entry, arguments=arguments, env=env)
    replicas = int(part.get("replicaCount", part.get("replicas", 1)) or 1)
    return Service(container, path, replicas, _line_of(text, "image:"), (), tuple(warnings))


def _of_stack(spec: Mapping[str, Any], engine: Mapping[str, Any], text: str) -> Service:
    env, warnings = _pod_env({"env": production_stack.variables(spec, engine)})
    container = Container(
        image=f"{spec.get('repository', 'vllm/vllm-openai')}:{spec.get('tag', 'latest')}",
        entrypoint=("vllm", "serve"),
        arguments=tuple(production_stack.arguments(spec)),
        env=env,
    )
    line = _line_of(text, str(spec.get("modelURL", "modelSpec:")))
    warnings += production_stack.warnings(spec)
    replicas = int(spec.get("replicaCount", 1) or 1)
    return Service(
        container, tr("model {get}", get=spec.get("name", "")), replicas, line, (), tuple(warnings)
    )


def refuse_gaps(service: Service) -> None:
    """Raise UnknownScriptError where something that is not set reaches a server."""
    if service.gaps:
        gap = service.gaps[0]
        why = (
            tr("in {where} is not set", where=service.where) if gap.unset else tr("is not followed")
        )
        raise UnknownScriptError(gap, why)
