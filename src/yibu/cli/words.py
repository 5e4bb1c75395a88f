"""States, phases and other short values of the node's data, in the terminal's language.

The data keep their English codes, which programs read; only what is printed for people is translated.
"""

from __future__ import annotations

from yibu.messages import tr

_WORDS = {
    "all": tr("all"),
    "asleep": tr("asleep"),
    "building": tr("building"),
    "chat": tr("chat"),
    "compile": tr("compile"),
    "creating": tr("creating"),
    "damaged": tr("damaged"),
    "done": tr("done"),
    "download": tr("download"),
    "downloading": tr("downloading"),
    "draining": tr("draining"),
    "embedding": tr("embedding"),
    "environment": tr("environment"),
    "expired": tr("expired"),
    "failed": tr("failed"),
    "fits": tr("fits"),
    "imports": tr("imports"),
    "installed": tr("installed"),
    "installing": tr("installing"),
    "listing": tr("listing"),
    "load": tr("load"),
    "no": tr("no"),
    "ok": tr("ok"),
    "outdated": tr("outdated"),
    "pending": tr("pending"),
    "plan": tr("plan"),
    "planning": tr("planning"),
    "preparing": tr("preparing"),
    "punctuation": tr("punctuation"),
    "ready": tr("ready"),
    "resolving": tr("resolving"),
    "sleeping": tr("sleeping"),
    "speakers": tr("speakers"),
    "speech": tr("speech"),
    "start": tr("start"),
    "starting": tr("starting"),
    "stopped": tr("stopped"),
    "stopping": tr("stopping"),
    "unloaded": tr("unloaded"),
    "unverified": tr("unverified"),
    "vad": tr("vad"),
    "verifying": tr("verifying"),
    "waiting": tr("waiting"),
    "warm-up": tr("warm-up"),
    "yes": tr("yes"),
}


def word(code: str) -> str:
    """The word for a code; a code without one stands for itself."""
    return _WORDS.get(code, code)
