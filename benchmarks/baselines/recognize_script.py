"""The tutorial's offline speech service, as it is deployed: what yibu is measured against.

    python benchmarks/baselines/recognize_script.py --model DIR --vad DIR --port 8000

The handler, the model's arguments and the temporary file named after the thread are the
tutorial's own, faults included (see the project's README for what is wrong with them); only
the paths and the port come from the command line, and the port is printed once it serves.
Needs the environment speech-torch with fastapi, uvicorn and python-multipart.
"""

from __future__ import annotations

import argparse
import os
import threading

import uvicorn
from fastapi import FastAPI, File, UploadFile
from funasr import AutoModel
from funasr.utils.postprocess_utils import rich_transcription_postprocess


def make_app(model_dir: str, vad_dir: str) -> FastAPI:
    app = FastAPI()
    model = AutoModel(
        model=model_dir,
        trust_remote_code=False,
        vad_model=vad_dir,
        vad_kwargs={"max_single_segment_time": 30000},
        ban_emo_unk=True,
        disable_update=True,
    )

    @app.get("/")
    async def hello() -> dict:
        return {"message": "hello"}

    @app.post("/recognize/")
    async def recognize(file: UploadFile = File(...)) -> dict:  # noqa: B008
        audio_path = f"temp_audio_{threading.get_ident()}.wav"
        try:
            with open(audio_path, "wb") as audio:  # noqa: PTH123
                audio.write(await file.read())
            res = model.generate(
                input=audio_path,
                cache={},
                language="auto",
                use_itn=True,
                batch_size_s=60,
                merge_vad=True,
                merge_length_s=15,
            )
            return {"result": rich_transcription_postprocess(res[0]["text"])}
        except Exception as error:  # noqa: BLE001 - the script's own: errors answer 200
            return {"error": str(error)}
        finally:
            if os.path.exists(audio_path):  # noqa: PTH110
                os.remove(audio_path)  # noqa: PTH107

    return app


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--vad", required=True)
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    app = make_app(arguments.model, arguments.vad)
    print(f"serving on {arguments.port}", flush=True)
    uvicorn.run(app, host="127.0.0.1", port=arguments.port, log_level="warning")


if __name__ == "__main__":
    main()
