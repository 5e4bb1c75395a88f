"""Which package indexes a wheel comes from: those that the user's pip and uv would use."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from yibu.pipconfig import PYPI, is_true, pip_options
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
        links = [*options.get("find-links", "").split(), *_commas(env.get("UV_FIND_LINKS", ""))]
        register_urls(*indexes, *links)
        return cls(indexes, tuple(links), options.get("cert") or None)


def _commas(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]
