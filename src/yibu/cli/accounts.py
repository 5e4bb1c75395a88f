"""The database of keys as the command line uses it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from yibu.accounts.store import FILE, AccountStore
from yibu.accounts.types import Account
from yibu.cli import output
from yibu.cli.context import Context
from yibu.errors import NotRunningError, YibuError
from yibu.node.client import Client


@contextmanager
def read(context: Context) -> Iterator[AccountStore]:
    """The store of this home. Raises AccountsError."""
    context.paths.make()
    with AccountStore.open(context.paths.state / FILE) as store:
        yield store


@contextmanager
def change(context: Context) -> Iterator[AccountStore]:
    """The same; on leaving, a running node has taken the change up."""
    with read(context) as store:
        yield store
    try:
        sync(context)
    except YibuError as error:  # the change is stored, and the key must still be shown
        output.talk(f"yibu: the running node could not be told: {error}")
        output.talk("It looks at the database twice a second by itself.")


def sync(context: Context) -> None:
    """Let a running node write what it has counted, and read what has changed."""
    try:
        Client(context.paths).call("accounts")
    except NotRunningError:
        return


def row(account: Account) -> dict[str, Any]:
    """An account as ``--json`` prints it."""
    now = time.time()
    expired = account.expires is not None and account.expires <= now
    limits = account.limits
    return {
        "name": account.name,
        "prefixes": [s.prefix for s in account.secrets if s.expires is None or s.expires > now],
        "state": "expired" if expired else "active",
        "created": _stamp(account.created),
        "expires": None if account.expires is None else _stamp(account.expires),
        "models": None if account.models is None else list(account.models),
        "rpm": limits.rpm,
        "tpm": limits.tpm,
        "concurrency": limits.concurrency,
        "budget": None if account.budget is None else str(account.budget),
        "priority": account.priority,
        "admin": account.admin,
    }


def _stamp(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
