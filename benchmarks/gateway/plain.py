"""What one writes in an afternoon: FastAPI and httpx, no keys, no validation, no log."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse


def make(upstream: str) -> FastAPI:
    client = httpx2.AsyncClient(base_url=upstream, timeout=60)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with client:
            yield

    app = FastAPI(lifespan=lifespan)

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        body = await request.json()
        answer = await client.send(
            client.build_request("POST", "/v1/chat/completions", json=body), stream=True
        )
        if body.get("stream"):
            return StreamingResponse(answer.aiter_raw(), media_type="text/event-stream")
        content = await answer.aread()
        await answer.aclose()
        return Response(content, answer.status_code, media_type="application/json")

    return app


if __name__ == "__main__":
    app = make(f"http://127.0.0.1:{sys.argv[2]}")
    uvicorn.run(
        app, port=int(sys.argv[1]), loop="uvloop", http="httptools", access_log=False,
        log_level="warning",
    )  # fmt: skip
