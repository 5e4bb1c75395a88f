"""Bytes and seconds as people write and read them."""

from __future__ import annotations

import re

from yibu.messages import tr

_SIZE = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*([KMGT]?)(I?)(B?)", re.IGNORECASE | re.ASCII)
_TIME = re.compile(r"(\d{1,12}(?:\.\d{1,9})?)\s*(ms|[smhdw])", re.ASCII)
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_UNITS = (("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("bytes", 1))


def parse_size(text: str) -> int:
    """``6GiB``, ``6G`` or ``6144 Mi`` as bytes; ``6GB`` is 6,000,000,000.

    Raises:
        ValueError: it is no size.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None or (match[3] and not match[2]):
        raise ValueError(
            tr(
                "{value!r} is not a size; write a number with a unit, such as 6GiB or 512MB",
                value=text,
            )
        )
    base = 1000 if match[4] and not match[3] else 1024
    return int(float(match[1]) * base ** " KMGT".index(match[2].upper() or " "))


def parse_time(text: str) -> float | None:
    """Seconds: ``10m`` is 600. None for what is no number with a unit."""
    match = _TIME.fullmatch(text.strip())
    return float(match[1]) * _SECONDS[match[2]] if match else None


def size(count: float) -> str:
    """Bytes in the largest unit that leaves a number of at least one: ``93.8 MiB``."""
    name, scale = _unit(count)
    return _text(count, name, scale, 0 if abs(count / scale) >= 100 else 1)


def sizes_apart(first: float, second: float) -> tuple[str, str]:
    """Two numbers that are compared, in one unit, and with so many digits that they look unequal
    where they are: ``1.000 GiB`` and ``0.998 GiB``."""
    name, scale = _unit(max(abs(first), abs(second)))
    digits = 0 if min(abs(first), abs(second)) / scale >= 100 else 1
    while True:
        texts = _text(first, name, scale, digits), _text(second, name, scale, digits)
        if texts[0] != texts[1] or first == second or scale == 1:
            return texts
        digits += 1


def _unit(count: float) -> tuple[str, int]:
    return next((unit for unit in _UNITS if abs(count) >= unit[1]), _UNITS[-1])


def _text(count: float, name: str, scale: int, digits: int) -> str:
    return (
        tr("{count:.0f} bytes", count=count) if scale == 1 else f"{count / scale:.{digits}f} {name}"
    )
