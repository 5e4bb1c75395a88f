"""Values of yibu.yaml written as text: sizes, times, addresses, and ``keep``."""

from __future__ import annotations

import re

from yibu.config.types import Keep, Sleep
from yibu.messages import tr
from yibu.units import parse_size, parse_time


def check_size(value: object) -> object:
    """``6GiB`` → bytes; numbers are bytes already. Raises as :func:`parse_size` does."""
    return parse_size(value) if isinstance(value, str) else refuse_switch(value)


def check_seconds(value: object) -> object:
    """``10m`` → 600; numbers are seconds already.

    Raises:
        ValueError: text that is not a number with a unit.
    """
    if not isinstance(value, str):
        return refuse_switch(value)
    seconds = parse_time(value)
    if seconds is None and (seconds := parse_time(f"{value}s")) is None:
        raise ValueError(
            tr("{value!r} is no time; write seconds, or a number with s, m, h or d", value=value)
        )
    return seconds


def check_host(text: str) -> str:
    """An address without the brackets of a URL.

    Raises:
        ValueError: it has a scheme, a port or characters that no address has.
    """
    host = text.strip().removeprefix("[").removesuffix("]")
    if not re.fullmatch(r"[A-Za-z0-9._:%-]+", host) or re.fullmatch(r"[^:]*:\d+", host):
        raise ValueError(
            tr(
                "an address or a name was expected, without scheme and port: 127.0.0.1, or 0.0.0.0 "
                "for every address of this machine"
            )
        )
    return host


def check_apart(gpus: list[int]) -> list[int]:
    """Raises ValueError when an index stands twice."""
    if len(set(gpus)) < len(gpus):
        raise ValueError(tr("a GPU stands there twice"))
    return gpus


def refuse_switch(value: object) -> object:
    """``true`` would count as the number 1.

    Raises:
        ValueError: the value is true or false.
    """
    if isinstance(value, bool):
        raise ValueError(tr("a number was expected"))
    return value


_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_TIME = r"(?: (\d+(?:\.\d+)?)([smhd]?))?"
_KEEP = re.compile(rf"(always|manual|idle){_TIME}")
_SLEEP = re.compile(rf"(auto|1|2|off){_TIME}")
YEAR = 365 * 86400
"""Seconds: no timer may be longer."""


def split_keep(text: str) -> tuple[Keep, float | None]:
    """``idle 10m`` → (``idle``, 600.0); the seconds are None where they are not given.

    Raises:
        ValueError: it is something else.
    """
    match = _KEEP.fullmatch(" ".join(text.split()))
    if match is None or (match[2] and match[1] != "idle"):
        raise ValueError(
            tr(
                "{text!r} is none of: always, manual, idle, or idle with a time, such as: idle 10m",
                text=text,
            )
        )
    if (seconds := _seconds(match)) is not None and seconds > YEAR:
        raise ValueError(
            tr("{text!r} is longer than a year; to keep it loaded, write: always", text=text)
        )
    return match[1], seconds  # type: ignore[return-value]


def split_sleep(text: str) -> tuple[Sleep, float | None]:
    """``auto 6h`` → (``auto``, 21600.0), as :func:`split_keep`."""
    match = _SLEEP.fullmatch(" ".join(text.split()))
    if match is None or (match[2] and match[1] == "off"):
        raise ValueError(
            tr(
                "{text!r} is none of: auto, 1, 2, off, or one of the first three with a time: auto 6h",
                text=text,
            )
        )
    if (seconds := _seconds(match)) is not None and seconds > YEAR:
        raise ValueError(tr("{text!r} is longer than a year", text=text))
    return match[1], seconds  # type: ignore[return-value]


def _seconds(match: re.Match[str]) -> float | None:
    return float(match[2]) * _SECONDS[match[3]] if match[2] else None


def check_sleep(value: object) -> object:
    """The text, of a number or of ``off`` as YAML has it too; raises as :func:`split_sleep` does."""
    text = "off" if value is False else str(value) if type(value) is int else value
    if isinstance(text, str):
        split_sleep(text)
    return text


def check_keep(text: str) -> str:
    """The text; raises ValueError where :func:`split_keep` does."""
    split_keep(text)
    return text
