"""Others on whom a node depends and who do as they like: a listener on an engine's port, and a hub."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import random
import signal
import socket

import psutil

from tests.chaos.engine import WEIGHTS, WRONG_WEIGHTS
from tests.chaos.models import CALM, WILD
from tests.chaos.world import World, send_signal
from tests.fakes.faults import Faults
from tests.support.polling import eventually
from yibu.errors import EngineStartError, YibuError

_CONFIG = b"""{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64,
"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 128, "vocab_size": 100}"""


def _safetensors(data: bytes) -> bytes:
    described = {"w": {"dtype": "U8", "shape": [len(data)], "data_offsets": [0, len(data)]}}
    head = json.dumps(described).encode()
    return len(head).to_bytes(8, "little") + head + data


async def take_the_port(world: World, chance: random.Random) -> None:
    pids = await world.engines(WILD)
    try:
        pid = chance.choice(pids)
        words = psutil.Process(pid).cmdline()
        port = int(words[words.index("--port") + 1])
    except (IndexError, psutil.Error):  # it was killed by a prompt meanwhile
        return
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        send_signal(pid, signal.SIGKILL)
        for _ in range(500):
            try:
                listener.bind(("127.0.0.1", port))
                break
            except OSError:  # the engine is not gone yet, or the next one was faster
                await asyncio.sleep(0.001)
        else:
            world.books.notes.append("a killed engine's port could not be taken")
            return
        listener.setblocking(False)
        clients: list[asyncio.StreamWriter] = []
        over = False

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if over:  # accepted just before the listener closed
                writer.transport.abort()
                return
            clients.append(writer)
            await _answer(reader, writer)

        try:
            async with await asyncio.start_server(answer, sock=listener):
                await eventually(lambda: world.all_ready(WILD), "an engine came up on another port")
                # asyncio drops, and does not close, a connection that is accepted as its server closes.
                asyncio.get_running_loop().remove_reader(listener)
                await asyncio.sleep(0.01)
        finally:
            over = True
            for client in clients:
                client.transport.abort()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """What another program may say there, to whatever it is asked: the most misleading thing, a right
    answer to somebody else."""
    with contextlib.suppress(ConnectionError, TimeoutError):
        async with asyncio.timeout(2):
            await reader.read(65536)
        message = {"role": "assistant", "content": "you have reached a stranger"}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        answer = {
            "id": "x",
            "object": "chat.completion",
            "created": 1,
            "model": "x",
            "choices": [choice],
        }
        body = json.dumps(answer).encode()
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        writer.write(head % len(body) + body)
    writer.close()


async def lying_hub(world: World, chance: random.Random) -> None:
    """Whatever it does, an engine gets the right files or is not started, and the old one serves on."""
    weights = _safetensors(chance.randbytes(300_000))
    name = f"org/m{chance.getrandbits(32):x}"
    world.hub.repos = {name: {"config.json": _CONFIG, WEIGHTS: weights}}
    kind = chance.choice(["cut", "corrupt", "body", "status", "etag", "empty"])
    options = {
        "cut": {"value": 100_000, "times": chance.choice([1, 2, None])},
        "body": {"body": b"<html>log in</html>", "headers": {"Content-Type": "text/html"}},
        "status": {"value": chance.choice([429, 500, 503]), "times": chance.choice([1, 3])},
    }.get(kind, {})
    world.hub.faults = Faults()
    fault = world.hub.fault(f"{name}.*{WEIGHTS}", kind, **options)
    model = chance.choice([CALM, WILD])
    digest = hashlib.sha256(weights).hexdigest()
    try:
        await world.apply(model, name, words=("--weights", "{model}", digest), source=f"hf:{name}")
        outcome = "served"
    except EngineStartError as error:
        outcome = "refused by its engine"
        if str(WRONG_WEIGHTS) in str(error):
            world.books.wrong.append(f"hub ({kind}): an engine was given wrong files: {error}")
    except YibuError as error:
        outcome = f"refused: {type(error).__name__}"
    finally:
        world.hub.faults = Faults()
    if not fault.met:
        world.books.wrong.append(f"hub ({kind}): nobody asked it for the files, yet: {outcome}")
    world.books.notes.append(f"hub, {kind} met {fault.met}: {outcome}")
