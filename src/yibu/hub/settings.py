"""The hub's settings, read from the environment once.

The hubs' own variables keep their meaning: MODELSCOPE_ENDPOINT, MODELSCOPE_API_TOKEN,
MODELSCOPE_CACHE, HF_ENDPOINT, HF_TOKEN, HF_TOKEN_PATH, HF_HOME, HF_HUB_CACHE, HF_HUB_OFFLINE,
HTTP(S)_PROXY, ALL_PROXY, NO_PROXY. ``YIBU_OFFLINE`` and ``YIBU_DOWNLOAD_CONNECTIONS`` are ours,
and ``YIBU_HOME`` moves both caches unless their own variables place them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from string import Template

from yibu.errors import ConfigError
from yibu.hub.tokens import clean_token, token_of_file
from yibu.paths import expanded, own_home
from yibu.pipconfig import PYPI, is_true, pip_options
from yibu.proxies import Proxies, certificates
from yibu.redaction import register_urls


@dataclass(frozen=True, slots=True)
class IndexSettings:
    """Where packages come from; URLs may hold passwords."""

    indexes: tuple[str, ...] = field(default=(PYPI,), repr=False)
    find_links: tuple[str, ...] = field(default=(), repr=False)
    ca_bundle: str | None = None

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> IndexSettings:
        """pip's configuration files and variables, then uv's variables, then PyPI."""
        options = pip_options(env, "download")
        default = (
            options.get("index-url")
            or env.get("UV_DEFAULT_INDEX")
            or env.get("UV_INDEX_URL")
            or PYPI
        )
        extra = [
            *options.get("extra-index-url", "").split(),
            *env.get("UV_INDEX", "").split(),
            *env.get("UV_EXTRA_INDEX_URL", "").split(),
        ]
        found = [] if is_true(options.get("no-index", "")) else [default, *extra]
        # uv writes an index as NAME=URL where it has a name.
        indexes = tuple(dict.fromkeys(re.sub(r"^[\w.-]+=(?=\w+:)", "", url) for url in found))
        links = [
            *options.get("find-links", "").split(),
            *filter(None, map(str.strip, env.get("UV_FIND_LINKS", "").split(","))),
        ]
        register_urls(*indexes, *links)
        return cls(indexes, tuple(links), options.get("cert") or None)


OFFLINE_VARIABLE = "YIBU_OFFLINE"
_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"", "0", "false", "no", "off"}


@dataclass(frozen=True, slots=True)
class HubSettings:
    """Endpoints, tokens, caches and timeouts."""

    modelscope_cache: Path
    hf_cache: Path
    """``HF_HUB_CACHE``: the directory that holds ``models--ORG--NAME``."""
    modelscope_endpoint: str | None = None
    """None: the SDK's own default."""
    hf_endpoint: str | None = None
    modelscope_token: str | None = field(default=None, repr=False)
    """None: the token that ``modelscope login`` kept, if any."""
    hf_token: str | None = field(default=None, repr=False)
    """None: the token that ``hf auth login`` kept, if any."""
    proxies: Proxies = field(default_factory=Proxies)
    ca_bundle: str | None = None
    offline: bool = False
    index: IndexSettings = field(default_factory=IndexSettings)
    """Where ``pypi:`` sources come from."""
    connections: int = 8
    """Concurrent HTTP connections of one pull, over all of its files."""
    segment_bytes: int = 32 * 1024 * 1024
    """Files larger than this are fetched in ranges of at least this size."""
    attempts: int = 6
    """Tries in a row without a single new byte before a download is given up."""
    backoff: float = 0.5
    """Seconds before the second try; doubled each time, at most ``max_backoff``."""
    max_backoff: float = 20.0
    connect_timeout: float = 15.0
    read_timeout: float = 30.0
    """Seconds without a byte before a connection counts as dead."""

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> HubSettings:
        """Read the environment.

        Raises:
            ConfigError: a variable holds something that cannot be used.
        """
        hf_home = _path(_filled(env, "HF_HOME"), env)
        login = _path(_filled(env, "HF_TOKEN_PATH"), env) or _login(env, hf_home)
        own = own_home(env)
        if hf_home is None:
            hf_home = own / "hub" / "huggingface" if own else _usual_hf_home(env)
        hf_cache = (
            _path(_filled(env, "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"), env) or hf_home / "hub"
        )
        modelscope_cache = _path(env.get("MODELSCOPE_CACHE"), env)
        if modelscope_cache is None:
            modelscope_cache = (
                own / "hub" / "modelscope" if own else expanded("~/.cache/modelscope", env)
            )
        return cls(
            modelscope_cache=modelscope_cache,
            hf_cache=hf_cache,
            modelscope_endpoint=_endpoint(
                env.get("MODELSCOPE_ENDPOINT") or env.get("MODELSCOPE_DOMAIN")
            ),
            hf_endpoint=_endpoint(env.get("HF_ENDPOINT")),
            modelscope_token=_token(env, "MODELSCOPE_API_TOKEN"),
            hf_token=_token(env, "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
            or (token_of_file(login) if login else None),
            proxies=Proxies.from_env(env),
            ca_bundle=certificates(env),
            offline=is_offline(env),
            index=IndexSettings.from_env(env),
            connections=_count(env, "YIBU_DOWNLOAD_CONNECTIONS", 8),
        )


def moved_caches(env: Mapping[str, str]) -> dict[str, str]:
    """The hubs' own variables for programs that use the hubs' SDKs themselves, where YIBU_HOME
    moves the caches and the user has not placed them."""
    own = own_home(env)
    if own is None:
        return {}
    hub = own / "hub"
    moved = {"HF_HOME": str(hub / "huggingface"), "MODELSCOPE_CACHE": str(hub / "modelscope")}
    return {name: value for name, value in moved.items() if not env.get(name)}


def is_offline(env: Mapping[str, str]) -> bool:
    """Whether an environment allows only what is on this disk.

    Raises:
        ConfigError: YIBU_OFFLINE is neither yes nor no.
    """
    # The hub's own switches are read as the hub's SDK reads them: anything odd means no.
    return _switch(env, OFFLINE_VARIABLE) or any(
        env.get(name, "").strip().lower() in _TRUE
        for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    )


def _filled(env: Mapping[str, str], *names: str) -> str | None:
    """The first of these variables that is set, with other variables expanded, as Hugging Face's SDK does."""
    value = next((env[name] for name in names if env.get(name)), None)
    return value and Template(value).safe_substitute(env)


def _path(value: str | None, env: Mapping[str, str]) -> Path | None:
    return expanded(value, env).absolute() if value else None


def _usual_hf_home(env: Mapping[str, str]) -> Path:
    cache = expanded(env.get("XDG_CACHE_HOME", ""), env)  # Hugging Face's SDK takes "~" there
    return (cache if cache.is_absolute() else expanded("~/.cache", env)) / "huggingface"


def _login(env: Mapping[str, str], hf_home: Path | None) -> Path | None:
    """Where ``hf auth login`` keeps its token; None for a user without a home directory."""
    try:
        return (hf_home or _usual_hf_home(env)) / "token"
    except ConfigError:
        return None


def _token(env: Mapping[str, str], *names: str) -> str | None:
    return next((token for name in names if (token := clean_token(env.get(name, ""), name))), None)


def _endpoint(value: str | None) -> str | None:
    value = (value or "").strip().rstrip("/")
    if not value:
        return None
    return value if "://" in value else f"https://{value}"


def _switch(env: Mapping[str, str], name: str) -> bool:
    value = env.get(name, "").strip().lower()
    if value in _TRUE:
        return True
    if value in _FALSE:
        return False
    raise ConfigError(
        "{name} is {env!r}; 1 or 0 was expected.",
        name=name,
        env=env[name],
        hint="export {name}=1, or unset it",
    )


def _count(env: Mapping[str, str], name: str, default: int) -> int:
    value = env.get(name, "").strip()
    if not value:
        return default
    if value.isascii() and value.isdigit() and 1 <= int(value) <= 64:
        return int(value)
    raise ConfigError(
        "{name} is {value!r}; a number from 1 to 64 was expected.",
        name=name,
        value=value,
        hint=f"export {name}={default}",
    )
