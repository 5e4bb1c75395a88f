"""Accounts as plain data, for listings."""

from __future__ import annotations

import time
from typing import Any

from yibu.accounts.types import Account


def row(account: Account) -> dict[str, Any]:
    """An account as plain data, without its secrets."""
    now = time.time()
    expired = account.expires is not None and account.expires <= now
    limits = account.limits
    secrets = [s for s in account.secrets if s.expires is None or s.expires > now]
    return {
        "name": account.name,
        "prefixes": [secret.prefix for secret in secrets],
        "replaced": {s.prefix: stamp(s.expires) for s in secrets if s.expires is not None},
        "state": "expired" if expired else "active",
        "created": stamp(account.created),
        "expires": None if account.expires is None else stamp(account.expires),
        "models": None if account.models is None else list(account.models),
        "rpm": limits.rpm,
        "tpm": limits.tpm,
        "concurrency": limits.concurrency,
        "budget": None if account.budget is None else str(account.budget),
        "priority": account.priority,
        "admin": account.admin,
    }


def stamp(seconds: float) -> str:
    """ISO 8601, UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
