"""A child process that pulls one source: ``python -m tests.fakes.pull SOURCE [CHANGES]``.

CHANGES is a JSON object of HubSettings' fields. Each progress report's phase goes to stderr, the
model's path to stdout.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace

from yibu.hub.settings import HubSettings
from yibu.hub.source import parse_source
from yibu.hub.store import Store
from yibu.paths import Paths


def main() -> None:
    changes = json.loads(sys.argv[2]) if len(sys.argv) > 2 else {}
    settings = replace(HubSettings.from_env(os.environ), **changes)
    model = Store(Paths.from_env(os.environ), settings).pull(
        parse_source(sys.argv[1]),
        progress=lambda report: print(report.phase, file=sys.stderr, flush=True),
    )
    print(model.path)


if __name__ == "__main__":
    main()
