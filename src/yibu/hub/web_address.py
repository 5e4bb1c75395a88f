"""Pages and links of the hubs' web sites, as people paste them, read as sources.

``https://huggingface.co/ORG/NAME/resolve/main/FILE?download=true``, ``hf.co/ORG/NAME:Q4_K_M``,
``https://modelscope.cn/models/ORG/NAME/file/view/master/FILE``, ``hf://ORG/NAME`` and the like.
"""

from __future__ import annotations

import re
import urllib.parse
from dataclasses import dataclass

from yibu.errors import SourceError
from yibu.messages import tr
from yibu.redaction import register_urls

_HOSTS = {
    "hf.co": "hf",
    "huggingface.co": "hf",
    "hf-mirror.com": "hf",
    "modelscope.cn": "modelscope",
    "modelscope.ai": "modelscope",
}
_SCHEMES = {"hf": "hf", "huggingface": "hf", "modelscope": "modelscope", "ms": "modelscope"}
_WEB = frozenset({"http", "https", "git", "git+https", "ssh", "git+ssh"})
_OLLAMA = ("ollama.com", "registry.ollama.ai", "ollama.ai")
FILE_PAGES = ("blob", "resolve", "raw", "blame", "tree", "edit")
_NO_MODELS = (
    "datasets", "spaces", "collections", "studios", "buckets", "papers", "organization",
    "organizations", "docs", "blog", "learn", "tasks", "settings", "profile", "mcp", "my", "search",
)  # fmt: skip
_ADDRESS = re.compile(
    r"(?:([A-Za-z][A-Za-z0-9+.-]*)://)?([^/?#\s]+)(/[^?#]*)?(?:\?([^#]*))?(?:#(.*))?"
)


@dataclass(frozen=True, slots=True)
class Address:
    """What an address says: ``hub:repo@revision#file``; the repository may end in ``:TAG``."""

    hub: str
    repo: str
    revision: str | None = None
    file: str | None = None


def read_address(text: str) -> Address | None:
    """The model (and file) that an address of a hub names; None where it is no address.

    Raises:
        SourceError: it is an address, and of something else.
    """
    # git@hf.co:ORG/NAME, as git has it
    match = _ADDRESS.fullmatch(re.sub(r"^(?:ssh://)?git@([\w.-]+)[:/]", r"https://\1/", text))
    if match is None:
        return None
    scheme, host, path, query, fragment = match.groups()
    parts = [urllib.parse.unquote(part) for part in (path or "").split("/") if part]
    if scheme is not None and scheme.lower() in _SCHEMES:
        # hf://ORG/NAME/FILE, as fsspec writes it: where a host stands is the organization.
        organization = [] if host == "models" else [host]
        return _files_of(_SCHEMES[scheme.lower()], [*organization, *parts], text)
    if "@" in host:  # a user and a token, as git takes them
        register_urls(text)
        host = host.rpartition("@")[2]
    host = host.lower().removeprefix("www.").removesuffix(":443")
    if host in _OLLAMA or (scheme or "").lower() == "ollama":
        raise ollama_name(text, (parts or [host])[-1])
    if host not in _HOSTS:
        if scheme is None:
            return None
        raise _unknown_host(text, scheme.lower(), host, parts)
    asked = {name: values[0] for name, values in urllib.parse.parse_qs(query or "").items()}
    if fragment and scheme is None:  # hf.co/ORG/NAME#FILE; of a page it is a heading
        asked["FilePath"] = urllib.parse.unquote(fragment)
    return _page(_HOSTS[host], parts, asked, text)


def ollama_name(text: str, name: str) -> SourceError:
    """``qwen3:0.6b`` and ``llama3.2`` are names of Ollama's own library."""
    bare = re.split(r"[:@]", name)[0] or "NAME"
    return SourceError(
        "{text!r} is a name of Ollama's library, which is a registry of its own; yibu "
        "takes models from ModelScope and Hugging Face.",
        text=text,
        bare=bare,
        hint="Find its GGUF repository and name the quantization, such as "
        "modelscope:ORG/{bare}-GGUF:Q4_K_M, or see what yibu knows by name: yibu pull --help",
    )


def _files_of(hub: str, parts: list[str], text: str) -> Address:
    repo, _, revision = _repo(hub, parts, text).partition("@")
    return Address(hub, repo, revision or None, "/".join(parts[2:]) or None)


def _page(hub: str, parts: list[str], asked: dict[str, str], text: str) -> Address:
    if parts[:2] == ["api", "v1"]:  # ModelScope's API: api/v1/models/ORG/NAME/repo?FilePath=…
        parts = parts[2:]
    elif parts[:1] == ["api"]:
        parts = parts[1:4]
    if parts and parts[0] in _NO_MODELS:
        raise SourceError(
            "{text!r} is an address of {parts}, and a model's was expected.",
            text=text,
            parts=parts[0],
            hint="Give the address of the model's own page",
        )
    if parts[:1] == ["models"]:
        parts = parts[1:]
    if len(parts) > 1 and "@" in parts[1]:  # ORG/NAME@REVISION:TAG, behind a host
        name, _, after = "/".join(parts[1:]).partition("@")
        named, colon, tag = after.partition(":")
        return Address(hub, f"{parts[0]}/{name}{colon}{tag}", named, asked.get("FilePath"))
    repo, rest = _repo(hub, parts, text), parts[2:]
    if rest[:2] == ["file", "view"]:
        rest = ["blob", *rest[2:]]
    file = None
    revision = next((asked[n] for n in ("Revision", "revision", "version") if n in asked), None)
    if rest and rest[0] in FILE_PAGES:
        revision, below = _revision(rest[1:])
        if below and rest[0] != "tree":
            file = "/".join(below)
    # The viewers of both sites keep the file's name in the query.
    file = next((asked[n] for n in ("FilePath", "fileName", "show_file_info") if n in asked), file)
    default = {"hf": "main", "modelscope": "master"}[hub]
    return Address(hub, repo, None if revision == default else revision, file)


def _repo(hub: str, parts: list[str], text: str) -> str:
    if len(parts) < 2:
        raise SourceError(
            "{text!r} names no model: ORG/NAME was expected in it.",
            text=text,
            hub=hub,
            hint="For example {hub}:Qwen/Qwen3-0.6B",
        )
    return "/".join(parts[:2]).removesuffix(".git")


def _revision(parts: list[str]) -> tuple[str | None, list[str]]:
    """``refs/pr/3`` is one revision, whose slashes a browser shows as they are."""
    if parts[:1] == ["refs"] and len(parts) >= 3:
        return "/".join(parts[:3]), parts[3:]
    return (parts[0], parts[1:]) if parts else (None, [])


def _unknown_host(text: str, scheme: str, host: str, parts: list[str]) -> SourceError:
    hub = next((hub for known, hub in _HOSTS.items() if host.endswith(f".{known}")), None)
    if scheme not in _WEB:
        hint = tr("Fetch it with that storage's own program, and give the path")
    elif host == "pypi.org" and len(parts) > 1:
        hint = tr("Write {name}", name=f"pypi:{parts[1]}==VERSION")
    elif hub is not None:
        hint = tr("That is a link of its storage: give the model's page, {hub}:ORG/NAME", hub=hub)
    else:
        hint = _mirror(host, parts)
    return SourceError(
        "{text!r} is not a source: yibu knows no hub at {host}.", text=text, host=host, hint=hint
    )


def _mirror(host: str, parts: list[str]) -> str:
    repo = "/".join(parts[1:3] if parts[:1] == ["models"] else parts[:2]) or "ORG/NAME"
    return tr(
        "If it is a mirror of Hugging Face: export HF_ENDPOINT=https://{host}, then "
        "hf:{repo}; of ModelScope: MODELSCOPE_ENDPOINT and modelscope:{repo}.",
        host=host,
        repo=repo,
    )
