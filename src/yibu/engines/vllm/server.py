"""How a bare vLLM is started, and which of its flags are about the gateway here."""

from __future__ import annotations

from typing import Any

from yibu.engines.flags import whole
from yibu.engines.servers import server_command
from yibu.engines.vllm.table import PINNED
from yibu.engines.vllm.translations import TRANSLATIONS


def _adopted(options: dict[str, Any]) -> dict[str, Any]:
    """``context`` and ``parallel`` as numbers; a length that vLLM would choose is left to the plan."""
    for name in SERVER.options:
        if name not in options:
            continue
        if str(options[name]).lower() in ("auto", "-1"):
            del options[name]
        else:
            options[name] = whole(options[name])
    return options


SERVER = server_command("vllm", PINNED, translations=TRANSLATIONS, adopt_options=_adopted)
