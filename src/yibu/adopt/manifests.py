"""Files that describe containers: Compose, Kubernetes, Helm values. Read as YAML, never as shell."""

from __future__ import annotations

import re
from collections.abc import Mapping

import yaml

from yibu.adopt.bash import Gap, Setting, UnknownScriptError
from yibu.adopt.compose import read_compose
from yibu.adopt.helm import read_helm
from yibu.adopt.kubernetes import read_kubernetes
from yibu.adopt.services import ManifestService, line_of
from yibu.errors import UsageError
from yibu.messages import tr


def read_manifest(text: str, setting: Setting) -> list[ManifestService] | None:
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
            raise UsageError("this is no valid YAML: {error}", error=error) from error
        return None
    found: list[ManifestService] = []
    for document in documents:
        if isinstance(document.get("services"), Mapping):
            found += read_compose(document, setting, text)
        elif isinstance(document.get("kind"), str):
            found += read_kubernetes(document, documents, text)
        else:
            found += read_helm(document, text)
    if not found and _is_mapping(text):
        first = next(
            line for line in text.splitlines() if re.match(r"['\"]?[\w./-]+['\"]?\s*:", line)
        )
        raise UnknownScriptError(
            Gap(line_of(text, first), first),
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
