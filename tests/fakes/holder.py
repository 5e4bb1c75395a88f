"""A child process that has a model in use until it ends: ``python -m tests.fakes.holder SOURCE``."""

from __future__ import annotations

import os
import sys

from yibu.hub.settings import HubSettings
from yibu.hub.source import parse_source
from yibu.hub.store import Store
from yibu.paths import Paths


def main() -> None:
    store = Store(Paths.from_env(os.environ), HubSettings.from_env(os.environ))
    with store.lease(parse_source(sys.argv[1])):
        print("held", flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
