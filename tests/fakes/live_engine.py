"""A fake engine of live speech: it says how much it has heard, and echoes the rest.

``python live_engine.py --port P``; ``heard 5`` is answered with the report of 5 s of audio, then ``told``.
"""

from __future__ import annotations

import argparse
import json

from aiohttp import web


async def talk(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        if message.data.startswith("heard "):
            report = {"type": "yibu.usage", "audio_seconds": float(message.data[6:])}
            await socket.send_str(json.dumps(report, separators=(",", ":")))
            await socket.send_str("told")
        else:
            await socket.send_str(message.data)
    return socket


async def health(_request: web.Request) -> web.Response:
    return web.Response()


async def transcribe(request: web.Request) -> web.Response:
    await request.read()
    return web.json_response({"text": ""})


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    args = parser.parse_args()
    app = web.Application(client_max_size=2**24)
    app.router.add_get("/health", health)
    app.router.add_get("/v1/realtime", talk)
    app.router.add_post("/v1/audio/transcriptions", transcribe)
    web.run_app(app, host=args.host, port=args.port, print=None)


if __name__ == "__main__":
    main()
