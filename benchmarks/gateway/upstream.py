"""The upstream of the benchmark: the least that speaks HTTP, on uvloop, so that proxies are what
is measured. ``stream`` anywhere in a body asks for CHUNKS events, one a turn of the event loop."""

from __future__ import annotations

import asyncio
import sys

import uvloop

ANSWER = (
    b'{"id":"chatcmpl-1","object":"chat.completion","created":1795368586,"model":"bench",'
    b'"choices":[{"index":0,"message":{"role":"assistant","content":"Hello, how can I help you '
    b'today?","refusal":null},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":'
    b'31,"completion_tokens":9,"total_tokens":40}}'
)
WHOLE = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (
    len(ANSWER),
    ANSWER,
)
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
EVENT = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1795368586,"model":'
    b'"bench","choices":[{"index":0,"delta":{"content":" token"},"finish_reason":null}]}\n\n'
)
CHUNK = b"%x\r\n%b\r\n" % (len(EVENT), EVENT)
END = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"
CHUNKS = 400


class Answer(asyncio.Protocol):
    def __init__(self, pause: float) -> None:
        self.pause = pause
        self.data = b""

    def connection_made(self, transport) -> None:
        self.transport = transport
        self.loop = asyncio.get_running_loop()

    def data_received(self, data: bytes) -> None:
        self.data += data
        head, found, body = self.data.partition(b"\r\n\r\n")
        if not found:
            return
        at = head.lower().find(b"content-length:")
        length = int(head[at + 15 :].split(b"\r\n", 1)[0])
        if len(body) < length:
            return
        self.data = body[length:]
        if b'"stream":true' in body:
            self.transport.write(HEAD)
            self.left = CHUNKS
            self.step()
        else:
            self.transport.write(WHOLE)

    def step(self) -> None:
        if self.transport.is_closing():
            return
        if self.left == 0:
            self.transport.write(END)
            return
        self.left -= 1
        self.transport.write(CHUNK)
        if self.pause:
            self.loop.call_later(self.pause, self.step)
        else:
            self.loop.call_soon(self.step)


async def main(port: int, pause: float) -> None:
    server = await asyncio.get_running_loop().create_server(
        lambda: Answer(pause), "127.0.0.1", port, backlog=512
    )
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), float(sys.argv[2])))
