"""The usual script around faster-whisper, as tutorials write it: the thing to be better than.

An async handler that writes the upload to a temporary file and runs the model on the event loop,
one request after the other. Kept as it is found, except for reading its address and model from
the command line.
"""

import argparse
import os
import tempfile

import uvicorn
from faster_whisper import WhisperModel
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

parser = argparse.ArgumentParser()
parser.add_argument("--model", required=True)
parser.add_argument("--vad")
parser.add_argument("--port", type=int, required=True)
arguments = parser.parse_args()

model = WhisperModel(arguments.model, device="cpu", compute_type="int8")


async def recognize(request):
    form = await request.form()
    path = os.path.join(tempfile.gettempdir(), f"temp_audio_{os.getpid()}.wav")  # noqa: PTH118
    with open(path, "wb") as file:  # noqa: PTH123
        file.write(await form["file"].read())
    segments, _ = model.transcribe(path, beam_size=5, vad_filter=True)
    text = "".join(segment.text for segment in segments)
    os.remove(path)  # noqa: PTH107
    return JSONResponse({"result": text})


async def root(_):
    return JSONResponse({"message": "hello"})


app = Starlette(routes=[Route("/recognize/", recognize, methods=["POST"]), Route("/", root)])

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=arguments.port, log_level="warning")
