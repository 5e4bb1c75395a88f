"""Redacting secrets from text before anybody sees it: error messages, logs, answers.

Two rules. Whatever looks like a credential is replaced by its form (a URL's user and password, a
signed link's signature, an Authorization header, ``token=…``); and what is known to be one (the hubs'
tokens, API keys, passwords of proxies and indexes) is replaced wherever it stands.
"""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping, Sequence

_MASK = "***"
_SHORTEST = 6
"""Characters. A shorter secret would black out ordinary words, and guards nothing."""

_USER_INFO = re.compile(r"(?<=://)[^\s/?#\"'<>]*@")
_SIGNED = re.compile(
    r"(?i)([?&;](?:[\w.-]*(?:signature|credential|token|secret|password|api[-_]?key|access[-_]?key"
    r"(?:[-_]?id)?)|sig|policy|key-pair-id|q-ak|auth[-_]key|auth|key|code)=)[^\s&;\"'<>]+"
)
_HEADER = re.compile(
    r"(?i)((?:authorization|cookie)[\"']?\s*[:=]\s*[\"']?(?:[a-z]+\s+)?|\bbearer\s+)"
    r"(?!YOUR_)([^\s\"',}]{8,})"  # YOUR_KEY stands in the help for what a client sends
)
_ASSIGNED = re.compile(
    r"(?i)((?:api[-_]?key|token|password|passwd|secret|m_session_id)"
    r"(?:[\"']?\s*=\s*[\"']?|[\"']\s*:\s*[\"']?|\s*:\s*[\"']))([^\s\"',}]{4,})"
)
# After a bare colon prose follows too ("token: expected a string"): a digit tells a secret, or that
# the line ends with it.
_SAID = re.compile(
    r"(?im)((?:api[-_ ]?key|token|password|passwd|secret)\s*:\s*)"
    r"(?=[^\s\"',}]*(?:\d|[\"',;.)}]*$))([^\s\"',}]{4,})"
)
_FLAG = re.compile(r"(?i)(--?[\w-]*(?:api[-_]key|token|password|secret)[=\s]\s*)([^\s\"',}]{4,})")
_WORD = re.compile(r"--?([A-Za-z][\w-]*)(?:=(.*))?", re.DOTALL)
"""A flag, and the value in the same word."""
_SHAPE = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{16,}|sk-[A-Za-z0-9_-]{16,}|ms-[0-9a-f-]{16,}|yibu-[A-Za-z0-9_-]{43}|gh[opsu]_[A-Za-z0-9]{16,})"
)
_SIGNS = (
    "://", "bearer", "auth", "cookie", "key", "token", "passw", "secret", "session", "sig",
    "credential", "policy=", "q-ak=", "code=", "hf_", "sk-", "ms-", "yibu-", "gh",
)  # fmt: skip
"""One of these stands in whatever the patterns find; looking for them is ten times cheaper. A mere
"=" is none: every line of the gateway's log has it."""

_LAST_PART = (
    r"[a-z0-9]_pwd|(?:^|_)(?:pass|pat)|password|passwd|passphrase"
    r"|(?:access|api|auth|client|private|secret)(?:key|secret|token)"
)
"""What ends the name of a secret though it is no word of it, or a word that means something else
elsewhere: PGPASSWORD, OPENAI_APIKEY, accessToken, SMTP_PASS, MYSQL_PWD, and not PWD."""
_SECRET_NAME = re.compile(
    r"(?i)(?:(?:^|_)(?:key|keys|token|secret|credentials?|otlp_(?:\w+_)?headers)"
    rf"|{_LAST_PART})$"
)
"""OTEL_EXPORTER_OTLP_HEADERS has a collector's credentials: ``name=value,name=value``."""

_SECRET_PART = re.compile(
    r"(?i)(?:^|_)(?:key|keys|token|secret|password|passwd|credentials?|auth|authorization|cookie"
    r"|auth_header|otlp_headers|otlp_traces_headers)(?:$|_(?!encodings|parallel|limit|count|base$|url$|dir$|path$|type$|name$|file$))"
    rf"|(?:{_LAST_PART})$"
)
_LOGIN = re.compile(r"://(?:[^\s/]*|[^\s:]*:\S*)@")
"""A user and a password that may hold what should have been escaped."""
_NO_SECRET = re.compile(r"(?i)(?:tokeniz|^tiktoken|max_|_tokens?_(?:per|limit|max)|keyfile$)")


def is_secret(name: str, value: str) -> bool:
    """Whether an environment variable holds a credential: its name says so, or its value is a URL with
    a password or an Authorization header."""
    if value.lower() in ("", "0", "1", "true", "false", "yes", "no") or value.startswith("${"):
        return False
    if _LOGIN.search(value) or re.match(r"(?i)(?:bearer|basic)\s+\S", value):
        return True
    if _SHAPE.search(value):
        return True
    return _SECRET_PART.search(name) is not None and _NO_SECRET.search(name) is None


def secret_flags(words: Sequence[object]) -> Iterator[tuple[int, str]]:
    """The words of a command line that hold a secret flag's value, each with its number and the value."""
    for at, word in enumerate(words):
        found = _WORD.fullmatch(word) if isinstance(word, str) else None
        if found is None:
            continue
        flag, joined = found[1].replace("-", "_"), found[2]
        if joined is not None and is_secret(flag, joined):
            yield at, joined
        elif joined is None and at + 1 < len(words):
            following = words[at + 1]
            if isinstance(following, str) and is_secret(flag, following):
                yield at + 1, following


class _Known:
    """The secrets of this process. It is the process's own, because a message can be shown by
    anyone: whoever renders it does not know which of its parts came out of which setting."""

    def __init__(self) -> None:
        self.secrets: frozenset[str] = frozenset()
        self.pattern: re.Pattern[str] | None = None

    def add(self, secrets: Iterable[str]) -> None:
        fresh = self.secrets.union(secrets)
        if fresh == self.secrets:
            return
        longest_first = sorted(fresh, key=len, reverse=True)
        words = "|".join(map(re.escape, longest_first))
        self.secrets, self.pattern = (
            fresh,
            re.compile(rf"(?<![A-Za-z0-9])(?:{words})(?![A-Za-z0-9])"),
        )


_KNOWN = _Known()


def register(*secrets: str | None) -> None:
    """Redact these from now on in this process, URL-encoded too."""
    spelled: set[str] = set()
    for secret in secrets:
        if secret and len(plain := secret.strip()) >= _SHORTEST:
            spelled |= {plain, urllib.parse.quote(plain, safe=""), urllib.parse.unquote(plain)}
    if spelled:
        _KNOWN.add(spelled)


def register_urls(*urls: str | None) -> None:
    """Redact user and password in URLs of proxies and package indexes."""
    for url in urls:
        # Greedy: a password may hold an @ or a slash that should have been escaped.
        # Proxies may stand without their scheme: user:password@host:port.
        if url and (found := re.match(r"(?:[^\s:]*://(.*)|([^\s:/@]+:\S+))@", url)):
            user, _, password = (found[1] or found[2] or "").partition(":")
            register(password or user)


def is_secret_name(variable: str) -> bool:
    """Whether a variable's name marks a secret: ``HF_TOKEN``, ``X_API_KEY`` …"""
    return _SECRET_NAME.search(variable) is not None


def register_environment(env: Mapping[str, str]) -> None:
    """Redact the values of variables whose names mark secrets."""
    for name, value in env.items():
        if is_secret_name(name):
            parts = value.split(",")
            register(*parts, *(part.partition("=")[2] for part in parts))
        elif "://" in value or name.lower().endswith("proxy"):
            register_urls(*value.split())


def redact(text: str) -> str:
    """The text with ``***`` in place of every credential."""
    if _KNOWN.pattern is not None:
        for secret in _KNOWN.secrets:
            if secret in text:
                text = _KNOWN.pattern.sub(_MASK, text)
                break
    low = text.lower()
    for sign in _SIGNS:  # every line of the log comes by: a loop costs half of any()
        if sign in low:
            return _masked(text)
    return text


def _masked(text: str) -> str:
    text = _USER_INFO.sub(f"{_MASK}@", text)
    text = _SIGNED.sub(rf"\1{_MASK}", text)
    for pattern in (_HEADER, _ASSIGNED, _SAID, _FLAG):
        text = pattern.sub(rf"\1{_MASK}", text)
    return _SHAPE.sub(_MASK, text)
