"""Accounts, and their settings as written on a command line."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from yibu.config.types import NO_LIMITS, Limits
from yibu.errors import UsageError
from yibu.units import parse_time

Priority = Literal["interactive", "batch"]
Period = Literal["day", "month"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_CONFIGURED = re.compile(r"[0-9a-f]{8}")
"""Names of the configuration's keys in logs and usage: no account may look like one."""
OWNER = "yibu"
"""The name of the command line's own requests."""
HEAVIEST = 100
"""The largest weight."""
_LONGEST = 100 * 365 * 86400
"""The longest duration in seconds that is accepted."""
_BUDGET = re.compile(r"(\d{1,15})([kKmM]?)/(day|month)")
_SCALE = {"": 1, "k": 1000, "m": 1000_000}


@dataclass(frozen=True, slots=True)
class TokenBudget:
    """Tokens that may be used in a calendar day or month, UTC."""

    tokens: int
    period: Period

    def __str__(self) -> str:
        return f"{self.tokens}/{self.period}"


@dataclass(frozen=True, slots=True)
class Secret:
    """One key of an account, without the key itself. While a key is rotated there are two."""

    prefix: str
    """The key's first characters, by which people tell keys apart."""
    created: float
    """Unix seconds, like all times here."""
    expires: float | None = None
    """When a replaced key stops working."""


@dataclass(frozen=True, slots=True)
class Account:
    """A named API key with its limits."""

    name: str
    created: float = 0.0
    expires: float | None = None
    admin: bool = False
    priority: Priority = "interactive"
    models: tuple[str, ...] | None = None
    """Names of the models it may use; None: all."""
    limits: Limits = NO_LIMITS
    budget: TokenBudget | None = None
    secrets: tuple[Secret, ...] = ()
    """Its secrets, the newest last."""
    weight: int = 1
    """Its share where requests wait, beside the weights of the other accounts that wait."""

    def row(self) -> dict[str, Any]:
        """Plain data for listings, without secrets."""
        now = time.time()
        expired = self.expires is not None and self.expires <= now
        limits = self.limits
        secrets = [s for s in self.secrets if s.expires is None or s.expires > now]
        return {
            "name": self.name,
            "prefixes": [secret.prefix for secret in secrets],
            "replaced": {s.prefix: stamp(s.expires) for s in secrets if s.expires is not None},
            "state": "expired" if expired else "active",
            "created": stamp(self.created),
            "expires": None if self.expires is None else stamp(self.expires),
            "models": None if self.models is None else list(self.models),
            "rpm": limits.rpm,
            "tpm": limits.tpm,
            "concurrency": limits.concurrency,
            "budget": None if self.budget is None else str(self.budget),
            "priority": self.priority,
            "weight": self.weight,
            "admin": self.admin,
        }


def stamp(seconds: float) -> str:
    """ISO 8601, UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def check_name(name: str) -> str:
    """The name, if an account may have it.

    Raises:
        UsageError: it may not.
    """
    if not _NAME.fullmatch(name) or _CONFIGURED.fullmatch(name) or name == OWNER:
        raise UsageError(
            "{name!r} cannot be the name of a key: expected 1 to 64 letters, digits, '.', '_', '@' "
            "or '-', a letter or digit first; not 8 hex digits alone, and not {owner!r}",
            name=name,
            owner=OWNER,
        )
    return name


def parse_duration(text: str) -> int:
    """``30d`` → seconds, at least one.

    Raises:
        UsageError: it is not a duration.
    """
    seconds = parse_time(text) or 0
    if not 1 <= seconds <= _LONGEST:
        raise UsageError(
            "{text!r} is not a duration",
            text=text,
            hint="Write a number and a unit: 90s, 15m, 1h, 30d, 2w",
        )
    return int(seconds)


def parse_budget(text: str) -> TokenBudget:
    """``200000/day`` or ``5M/month``.

    Raises:
        UsageError: it is not a budget.
    """
    match = _BUDGET.fullmatch(text.strip())
    if match is None or not int(match[1]):
        raise UsageError(
            "{text!r} is not a budget of tokens",
            text=text,
            hint="Write for instance 200000/day or 5M/month",
        )
    period: Period = "day" if match[3] == "day" else "month"
    return TokenBudget(int(match[1]) * _SCALE[match[2].lower()], period)


def parse_priority(text: str) -> Priority:
    """Raises UsageError for anything but the two."""
    for priority in get_args(Priority):
        if text == priority:
            return priority  # type: ignore[no-any-return]
    raise UsageError("{text!r} is not a priority; expected interactive or batch", text=text)


def parse_models(text: str) -> tuple[str, ...]:
    """``A,B`` → the names.

    Raises:
        UsageError: there is none.
    """
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names:
        raise UsageError(
            "--models names no model", hint="Leave it out to allow all, or write --models A,B"
        )
    return names


def changed(account: Account, given: Mapping[str, Any]) -> Account:
    """The account with the settings that are given, by their names: those of ``Limits``, ``models``,
    ``priority``, ``weight`` and ``admin``, and as text ``budget``, and how long it works from now on (``expires``).
    None takes a limit away.

    Raises:
        UsageError: a text cannot be read.
    """
    found = {
        name: given[name] for name in ("models", "priority", "weight", "admin") if name in given
    }
    if "budget" in given:
        found["budget"] = parse_budget(given["budget"]) if given["budget"] else None
    if "expires" in given:
        ends = given["expires"]
        found["expires"] = time.time() + parse_duration(ends) if ends else None
    limits = {name: given[name] for name in ("rpm", "tpm", "concurrency") if name in given}
    return replace(account, **found, limits=replace(account.limits, **limits))
