"""Write src/yibu/engines/ENGINE/flags.json from the parser of an engine's own server.

Run it after the engine's pin has changed, with an interpreter that can import the pinned version:

    $ENVIRONMENT/bin/python scripts/server_flags.py ENGINE
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from yibu.launchers.flags import read_table

ENGINES = Path(__file__).parents[1] / "src/yibu/engines"

if __name__ == "__main__":
    engine = sys.argv[1]
    text = json.dumps(read_table(engine), indent=1, sort_keys=True)
    (ENGINES / engine / "flags.json").write_text(text + "\n", encoding="utf-8")
