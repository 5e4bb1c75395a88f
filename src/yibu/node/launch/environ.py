"""The environment an engine starts with: the node's own, less what is not the engine's business."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from yibu.node.machine.processes import MARKER
from yibu.redaction import is_secret

# `_TOKEN` as a word: TOKENIZERS_PARALLELISM is no secret. An engine that needs a credential is
# given it by its plan or by the model's `env:` in yibu.yaml, never by accident.
_SECRET_NAME = re.compile(
    r"(?i)(?:^|_)(?:api_?keys?|access_?keys?|private_?keys?|tokens?|secrets?|passwords?|passwd|"
    r"pwd|credentials?|cookies?|auth)(?:_|$)|^(?:aws|azure|gcp|google)_|ssh_auth|_key$|otlp_(?:\w+_)?headers$"
)
# Another interpreter's settings would be mixed into the engine's own environment.
_NOT_ITS_OWN = frozenset(
    {
        *("PYTHONHOME", "PYTHONPATH", "PYTHONSTARTUP", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__"),
        # Images set it to stay small; an engine would then compile all that it imports, vLLM's
        # 4,700 modules in each of its processes, at every start.
        "PYTHONDONTWRITEBYTECODE",
        # What systemd is told of the service is not an engine's to say.
        *("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"),
    }
)
_KEPT = frozenset({"PWD", "OLDPWD"})

_ALWAYS = {
    # A crash's last words must be in the log, not in a lost buffer.
    "PYTHONUNBUFFERED": "1",
    # setproctitle (vLLM's workers use it) would else overwrite /proc/PID/environ, and the
    # marker in it by which left-behind workers are found.
    "SPT_NOENV": "1",
    # What a machine serves is nobody else's business. ONNX Runtime's builds from PyPI and vLLM
    # report to their makers unless they are told not to.
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "ORT_DISABLE_TELEMETRY": "1",
    "VLLM_NO_USAGE_STATS": "1",
}


def _is_secret(name: str, value: str) -> bool:
    """A proxy's address stays, though it may have a password: without it a program has no network."""
    if name in _KEPT or name.lower().endswith("_proxy"):
        return False
    return _SECRET_NAME.search(name) is not None or is_secret(name, value)


def clean_environment(
    parent: Mapping[str, str], own: Mapping[str, str], marker: str
) -> dict[str, str]:
    """``parent`` without credentials, interpreter settings and yibu's own variables; then ``own``
    (the plan's and the model's, taken as they stand) and the marker over it."""
    kept = {
        name: value
        for name, value in parent.items()
        if name not in _NOT_ITS_OWN and not name.startswith("YIBU_") and not _is_secret(name, value)
    }
    return {**kept, **_ALWAYS, **own, MARKER: os.fsdecode(marker.encode())}
