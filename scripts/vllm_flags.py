"""Write src/yibu/engines/vllm/flags.json from the installed vLLM's own parser.

Run it with the vllm environment's interpreter after its pin has changed:

    $ENVIRONMENT/bin/python scripts/vllm_flags.py
"""

from __future__ import annotations

import json
from pathlib import Path

from yibu.launchers.vllm_flags import read_table

TARGET = Path(__file__).parents[1] / "src/yibu/engines/vllm/flags.json"

if __name__ == "__main__":
    TARGET.write_text(json.dumps(read_table(), indent=1, sort_keys=True) + "\n", encoding="utf-8")
