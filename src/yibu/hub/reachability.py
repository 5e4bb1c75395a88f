"""Whether the hubs and the package index answer from here, for ``yibu doctor``."""

from __future__ import annotations

import time
import urllib.parse
from dataclasses import dataclass, replace

from yibu.errors import HubAuthError, HubError, HubNotFoundError
from yibu.hub import http
from yibu.hub.settings import HubSettings
from yibu.messages import tr

_TIMEOUT = 5.0
"""Seconds; who waits for doctor wants to know, not to wait."""
_MODELSCOPE = "https://www.modelscope.cn"
_HUGGING_FACE = "https://huggingface.co"


@dataclass(frozen=True, slots=True)
class Reachability:
    name: str
    host: str
    reachable: bool
    seconds: float
    detail: str
    """Empty, or why not, in words that name the host."""
    advice: str
    """What to do where it is not reachable."""


def check_reachability(settings: HubSettings) -> list[Reachability]:
    """Ask ModelScope, Hugging Face and the first package index for anything at all."""
    quick = replace(settings, connect_timeout=_TIMEOUT, read_timeout=_TIMEOUT)
    asked = [
        _ask(
            "ModelScope", settings.modelscope_endpoint or _MODELSCOPE, quick,
            advice=tr("Set a proxy (HTTPS_PROXY) or a mirror (MODELSCOPE_ENDPOINT)"),
        ),
        _ask(
            tr("Hugging Face"), settings.hf_endpoint or _HUGGING_FACE, quick,
            advice=tr("Set a proxy (HTTPS_PROXY) or a mirror (HF_ENDPOINT), or use ModelScope"),
        ),
    ]  # fmt: skip
    for url in settings.index.indexes[:1]:
        advice = tr("Set pip's index-url to a mirror, or install engines with --wheels DIR")
        asked.append(_ask(tr("package index"), url, quick, advice, settings.index.ca_bundle))
    return asked


def _ask(
    name: str, url: str, settings: HubSettings, advice: str, ca_bundle: str | None = None
) -> Reachability:
    parts = urllib.parse.urlsplit(url)
    host = parts.hostname or url
    if parts.scheme == "file":
        return Reachability(name, url, True, 0.0, tr("a folder of this machine"), advice)
    client = http.HttpClient(settings, ca_bundle=ca_bundle)
    started = time.monotonic()
    detail = ""
    try:
        with client.get(url, what=name, page=True):
            reachable = True
    except (HubAuthError, HubNotFoundError) as error:
        reachable, detail = True, error.message  # it answered, which is what was asked
    except http.TransientError as error:
        reachable, detail = False, error.args[0]
    except HubError as error:
        reachable, detail, advice = False, error.message, error.hint or advice
    finally:
        client.close()
    return Reachability(name, host, reachable, time.monotonic() - started, detail, advice)
