"""Usage by hour, key and model: counted in memory, summed in the database."""

from __future__ import annotations

import dataclasses
import sqlite3
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from yibu.accounts.database import transaction

By = Literal["key", "model", "day", "hour"]


class Tokens(NamedTuple):
    """One request's tokens."""

    prompt: int
    completion: int
    cached: int = 0
    """Tokens of the prompt that the engine had cached."""
    estimated: bool = False
    """Whether the engine did not count them."""


@dataclass(slots=True)
class Used:
    """The usage of some requests."""

    requests: int = 0
    errors: int = 0
    """Requests that were answered with a status of 400 or more, or whose stream ended in an error."""
    estimated: int = 0
    """Requests whose tokens the engine did not count."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    audio_seconds: float = 0.0
    compute_seconds: float = 0.0
    """Seconds that replicas worked on them."""

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def add(self, other: Used) -> None:
        for name in _FIELDS:
            setattr(self, name, getattr(self, name) + getattr(other, name))


_FIELDS = tuple(field.name for field in dataclasses.fields(Used))


Slot = tuple[int, str, str]
"""The hour (Unix seconds / 3600), the key's name, the model."""


def correct(counted: dict[Slot, Used], slot: Slot, now: Used) -> dict[Slot, Used]:
    """The changes after which ``counted``, a request's usage by hour, adds up to ``now``.

    What is more is of this hour's ``slot``. What an estimate had too high is taken back from the latest
    hours first, and from none more than was counted there: no hour may end below zero.
    """
    changes = {slot: Used()}
    counted.setdefault(slot, Used())
    for name in _FIELDS:
        more = getattr(now, name) - sum(getattr(used, name) for used in counted.values())
        if more > 0:
            setattr(changes[slot], name, more)
        elif more < 0:
            for where, used in sorted(counted.items(), reverse=True):
                back = max(more, -getattr(used, name))
                setattr(changes.setdefault(where, Used()), name, back)
                more -= back
    for where, change in changes.items():
        counted[where].add(change)
    return changes


_UPSERT = (
    f"INSERT INTO usage (hour, key, model, {', '.join(_FIELDS)}) "  # noqa: S608 - constants
    f"VALUES ({', '.join('?' * (3 + len(_FIELDS)))}) ON CONFLICT (hour, key, model) DO UPDATE SET "
    + ", ".join(f"{name} = {name} + excluded.{name}" for name in _FIELDS)
)
_GROUPS = {
    "key": "key",
    "model": "model",
    "day": "strftime('%Y-%m-%d', hour * 3600, 'unixepoch')",
    "hour": "strftime('%Y-%m-%dT%H:00Z', hour * 3600, 'unixepoch')",
}


def fold(counted: dict[Slot, Used], most: int) -> None:
    """Add the hours of each day up where there are more than ``most`` records, the latest day's not."""
    if len(counted) <= most:
        return
    latest = max(hour for hour, _, _ in counted) // 24
    for slot in [slot for slot in counted if slot[0] // 24 < latest and slot[0] % 24]:
        hour, key, model = slot
        counted.setdefault((hour // 24 * 24, key, model), Used()).add(counted.pop(slot))


def write(connection: sqlite3.Connection, counted: dict[Slot, Used]) -> None:
    """Add to the stored counts, in one transaction."""
    rows = [(*slot, *(getattr(used, name) for name in _FIELDS)) for slot, used in counted.items()]
    with transaction(connection):
        connection.executemany(_UPSERT, rows)


def read(
    connection: sqlite3.Connection, by: By, since: float, key: str | None = None
) -> list[dict[str, Any]]:
    """Sums from the hour of ``since`` on, of all keys or one, ``{by: …, "requests": …, …}``."""
    group = _GROUPS[by]
    sums = ", ".join(f"sum({name})" for name in _FIELDS)
    rows = connection.execute(
        f"SELECT {group}, {sums} FROM usage WHERE hour >= :first AND (:key IS NULL OR key = :key) "  # noqa: S608
        "GROUP BY 1 ORDER BY 1",
        {"first": int(since // 3600), "key": key},
    )
    return [_row(by, *row) for row in rows]


def spent(connection: sqlite3.Connection, key: str, since: float, until: float) -> int:
    """Tokens that a key has used between the beginnings of two hours: a clock that was ahead may have
    left later ones."""
    found = connection.execute(
        "SELECT coalesce(sum(prompt_tokens + completion_tokens), 0) FROM usage "
        "WHERE key = ? AND hour >= ? AND hour < ?",
        (key, int(since // 3600), int(until // 3600)),
    )
    return int(found.fetchone()[0])


def _row(by: By, group: str, *sums: float) -> dict[str, Any]:
    row: dict[str, Any] = {by: group, **dict(zip(_FIELDS, sums, strict=True))}
    row["total_tokens"] = row["prompt_tokens"] + row["completion_tokens"]
    for name in ("audio_seconds", "compute_seconds"):
        row[name] = round(row[name], 3)
    return row
