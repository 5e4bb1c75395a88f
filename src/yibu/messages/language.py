"""The reader's language: by the environment, or by Accept-Language."""

from __future__ import annotations

from collections.abc import Mapping

ENGLISH = "en"
CHINESE = "zh_CN"
_VARIABLES = ("YIBU_LANG", "LC_ALL", "LC_MESSAGES", "LANG")


def language_of(env: Mapping[str, str]) -> str:
    """``zh_CN`` or ``en``, by the first of YIBU_LANG, LC_ALL, LC_MESSAGES and LANG that is set."""
    return _known(next((value for name in _VARIABLES if (value := env.get(name))), ""))


def accepted(header: str) -> str:
    """The language that an Accept-Language header (RFC 9110, 12.5.4) prefers; English where it names
    neither."""
    best, language = 0.0, ENGLISH
    for part in header.split(","):
        tag, _, parameter = part.strip().partition(";")
        quality = _quality(parameter)
        if quality > best and tag.lower().startswith(("zh", "en", "*")):
            best, language = quality, _known(tag)
    return language


def _known(name: str) -> str:
    return (
        CHINESE if name.lower().replace("_", "-").split(".")[0].split("-")[0] == "zh" else ENGLISH
    )


def _quality(parameter: str) -> float:
    name, _, value = parameter.strip().partition("=")
    if name != "q":
        return 1.0
    try:
        return min(1.0, max(0.0, float(value)))
    except ValueError:
        return 0.0
