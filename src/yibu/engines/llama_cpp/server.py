"""How a bare llama-server is started, and which of its flags are about the gateway here."""

from __future__ import annotations

from typing import Any

from yibu.engines.flags import whole
from yibu.engines.llama_cpp.table import TABLE
from yibu.engines.servers import server_command


def sequence_context(total: int, parallel: int | None, *, unified: bool) -> int:
    """Tokens a sequence of a ``--ctx-size``, which its slots divide unless they share one cache."""
    return total if unified or not parallel else max(1, total // parallel)


def _adopted(options: dict[str, Any]) -> dict[str, Any]:
    if "chat_template_file" in options:
        options["chat_template"] = options.pop("chat_template_file")
    if str(options.get("parallel", "")) in ("-1", "0"):
        del options["parallel"]
    total = options.pop("ctx_size", None)
    if total is not None and (tokens := whole(total)):
        parallel = options.get("parallel")
        options["context"] = sequence_context(
            tokens, parallel, unified=options.get("kv_unified") is True
        )
    order = ("context", "parallel")
    return {name: options[name] for name in (*order, *options) if name in options}


SERVER = server_command("llama.cpp", TABLE, adopt_options=_adopted)
