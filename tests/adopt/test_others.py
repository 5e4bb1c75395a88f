"""Servers of FunASR's and Xinference's."""

from __future__ import annotations

import pytest

from yibu.adopt import Setting, adopt_script
from yibu.errors import UsageError

START_IIC = """
import os, tempfile
from fastapi import FastAPI, File, UploadFile
from funasr import AutoModel
from funasr.utils.postprocess_utils import rich_transcription_postprocess
import uvicorn

model_dir = "iic/SenseVoiceSmall"
model = AutoModel(
    model=model_dir,
    trust_remote_code=True,
    vad_model="fsmn-vad",
    vad_kwargs={"max_single_segment_time": 30000},
    device="cuda:1",
)
app = FastAPI()

@app.post("/recognize/")
async def recognize(file: UploadFile = File(...)):
    with tempfile.NamedTemporaryFile() as out:
        out.write(await file.read())
        res = model.generate(input=out.name, cache={}, language="auto", use_itn=True)
    return {"result": rich_transcription_postprocess(res[0]["text"])}

if __name__ == "__main__":
    uvicorn.run(app, host="0.0.0.0", port=8106)
"""


def test_the_tutorials_python_file_is_read_and_never_run() -> None:
    adoption = adopt_script(START_IIC)
    assert adoption.document == {
        "gateway": {"host": "127.0.0.1", "port": 8106},
        "models": [
            {
                "name": "SenseVoiceSmall",
                "source": "modelscope:iic/SenseVoiceSmall",
                "engine": "speech",
                "gpus": [1],
            }
        ],
    }
    assert any("anyone on the network" in warning for warning in adoption.warnings)


class OneFile:
    def read(self, path: str) -> str | None:
        return START_IIC if path == "start_iic.py" else None

    def kind(self, path: str) -> str | None:
        return "file" if path == "start_iic.py" else ""


def test_a_script_that_starts_the_python_file() -> None:
    script = "source venv/bin/activate\nnohup python -u start_iic.py > iic.log 2>&1 &"
    adoption = adopt_script(script, Setting(files=OneFile()))
    assert adoption.document["models"][0]["source"] == "modelscope:iic/SenseVoiceSmall"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('model_dir = "iic/SenseVoiceSmall"', "model_dir = pick()", "the model is taken from it"),
        ("iic/SenseVoiceSmall", "paraformer-zh", "SenseVoice and Whisper"),
        ("port=8106", "port=free_port()", "the port is taken from it"),
    ],
)
def test_what_is_not_written_out_is_refused(old: str, new: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        adopt_script(START_IIC.replace(old, new))


def test_funasrs_own_server() -> None:
    command = "python funasr_wss_server.py --asr_model iic/SenseVoiceSmall --port 10096 --ngpu 0"
    adoption = adopt_script(command)
    assert adoption.document["models"][0]["source"] == "modelscope:iic/SenseVoiceSmall"
    assert adoption.document["gateway"]["port"] == 10096
    with pytest.raises(UsageError, match="does not know"):
        adopt_script("funasr-wss-server --model-dir damo/speech_paraformer-large")


def test_xinference() -> None:
    adoption = adopt_script(
        "xinference-local --host 0.0.0.0 --port 9997 &\n"
        "xinference launch --model-engine vllm --model-name qwen2.5-instruct --size-in-billions 7"
        " --model-format awq --quantization Int4 --n-gpu 2 --max_model_len 8192 -u chat\n"
        "xinference launch --model-name bge-m3 --model-type embedding\n"
    )
    chat, embed = adoption.document["models"]
    assert chat == {
        "name": "chat",
        "source": "modelscope:Qwen/Qwen2.5-7B-Instruct-AWQ",
        "engine": "vllm",
        "options": {"context": 8192, "tensor_parallel": 2},
    }
    assert embed == {"name": "bge-m3", "source": "modelscope:BAAI/bge-m3"}
    assert adoption.document["gateway"]["port"] == 9997
    with pytest.raises(UsageError, match="not known here"):
        adopt_script("xinference launch --model-name nobody-knows --model-engine vllm")
