"""Binds the port, runs the engine behind uvicorn, and returns an exit code."""

from __future__ import annotations

import logging
import signal
import socket
import sys
from collections.abc import Callable

import uvicorn

from yibu.errors import EngineStartError, YibuError, told
from yibu.speech.engine import SpeechEngine
from yibu.speech.http.app import create_app
from yibu.speech.live.routes import MAX_MESSAGE
from yibu.speech.loading import Loaded
from yibu.speech.settings import SpeechSettings

log = logging.getLogger(__name__)

_GRACE_SECONDS = 8
"""Seconds for requests in flight after SIGTERM; the supervisor kills after ten."""


_PING_SECONDS = 60.0
"""Seconds for a live client to answer a ping; a slow reader answers late."""


def serve(settings: SpeechSettings, load: Callable[[], Loaded]) -> int:
    """Serve until SIGTERM or SIGINT; the port is bound before the model is loaded, and /health
    answers 503 until it is.

    Returns 1 when the model could not be loaded or run; SIGTERM exits with 0, SIGINT with 130.

    Raises:
        EngineStartError: the address cannot be bound.
    """
    engine = SpeechEngine(settings, load)
    listener = _bind(settings.host, settings.port)

    def stop() -> None:
        server.should_exit = True

    server = uvicorn.Server(
        uvicorn.Config(
            create_app(engine, stop),
            http="httptools",
            ws="websockets-sansio",
            ws_max_size=MAX_MESSAGE,
            ws_ping_timeout=_PING_SECONDS,
            ws_per_message_deflate=False,  # audio does not shrink, and each session would hold more
            lifespan="on",
            access_log=False,
            log_config=None,
            server_header=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=_GRACE_SECONDS,
        )
    )
    log.info("listening on http://%s:%d, loading %s", *listener.getsockname()[:2], settings.model)
    # uvicorn ends in order on these signals, then raises them again for the handlers before its
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.signal(signal.SIGINT, lambda *_: sys.exit(130))
    with listener:
        server.run(sockets=[listener])
    if engine.failure is None:
        return 0
    if isinstance(engine.failure, YibuError):
        log.error("%s", engine.failure)
        log.error("%s", told(engine.failure))
    else:
        log.error("the engine failed", exc_info=engine.failure)
    return 1


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(2048)
        listener.set_inheritable(False)
    except OSError as error:
        listener.close()
        raise EngineStartError(
            "Cannot listen on {host}:{port}: {strerror}",
            host=host,
            port=port,
            strerror=error.strerror or error,
            hint="Another program holds the port, or the address is not this machine's",
            cause="port_in_use",
        ) from error
    return listener
