"""Servers of FunASR's and Xinference's."""

from __future__ import annotations

import re
from typing import Any

import pytest

from yibu.adopt import Setting, adopt_script
from yibu.adopt.funasr import read_python
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
        ("iic/SenseVoiceSmall", "paraformer-en", "Chinese Paraformers and Whisper"),
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
        adopt_script("funasr-wss-server --model-dir damo/speech_paraformer-large_asr-onnx")


def test_a_paraformer_with_all_that_stands_beside_it() -> None:
    script = (
        "from funasr import AutoModel\nfrom fastapi import FastAPI\n"
        'model = AutoModel(model="paraformer-zh", vad_model="fsmn-vad", punc_model="ct-punc",\n'
        '                  spk_model="cam++")\n'
    )
    server = read_python(script)
    assert server.source.startswith("modelscope:iic/speech_seaco_paraformer_large")
    assert server.options == {
        "punctuation": "modelscope:iic/punc_ct-transformer_cn-en-common-vocab471067-large",
        "speakers": "modelscope:iic/speech_campplus_sv_zh-cn_16k-common",
    }
    assert server.warnings == ()


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


SWAP = """macros: {server: 'llama-server --port ${PORT} -m'}
models:
  a: {cmd: "${server} /m/a.gguf -c ${ctx}"}
"""


@pytest.mark.parametrize(
    ("text", "line", "construct"),
    [
        (SWAP, 3, r"\$\{ctx\} has no value"),
        (SWAP.replace("${ctx}", "${env.CTX}"), 3, r"\$\{env.CTX\} has no value"),
        (
            SWAP.replace("${server} /m/a.gguf -c ${ctx}", "/opt/other -x"),
            3,
            r"/opt/other -x of a is no",
        ),
        ("a: b\nc: {{ .Values.x }}\n", 2, r"\{\{ .Values.x \}\} is filled in by Helm"),
        ("# x\nplugins:\n  - a\n", 2, "plugins: begins a YAML file"),
        ("\nFROM llama3.2\nPARAMETER num_ctx 4096\n", 2, "FROM llama3.2 names a model of Ollama's"),
        ("FROM ./a.gguf\nADAPTER ./b\n", 2, "ADAPTER ./b names an adapter"),
        ("set -e\nssh gpu1 <<'X'\nvllm serve /m\nX\n", 2, "ssh gpu1"),
        ("HOST=gpu1\nssh -t $HOST 'cd /m && nohup vllm serve ./x &'\n", 2, "ssh -t"),
    ],
)
def test_what_is_not_read_is_refused_by_line(text: str, line: int, construct: str) -> None:
    with pytest.raises(UsageError, match=f"line {line}: .*{construct}"):
        adopt_script(text)


def test_llama_swaps_macros_and_names() -> None:
    text = SWAP.replace("-c ${ctx}", "-c ${env.CTX}").replace(
        '}"}', '}", aliases: [gpt, b c], ttl: 60, concurrencyLimit: 3}'
    )
    text += "hooks: {on_startup: {preload: [a]}}\n"
    adoption = adopt_script(text, Setting(given={"CTX": "512"}))
    (model,) = adoption.document["models"]
    assert (model["name"], model["aliases"]) == ("a", ["gpt", "b c"])
    assert (model["source"], model["options"]) == ("/m/a.gguf", {"context": 512})
    assert (model["keep"], model["group"], model["preload"]) == ("idle 60s", "llama-swap", True)
    assert model["limits"] == {"concurrency": 3}
    assert adoption.warnings == ()
    assert adoption.document["gateway"] == {"host": "127.0.0.1", "port": 8080}


FOUR = "".join(f"  {name}: {{cmd: llama-server -m /m/{name}.gguf}}\n" for name in "abcd")


def test_llama_swaps_groups() -> None:
    groups = """groups:
  one: {swap: false, members: [a, b]}
  two: {exclusive: false, persistent: true, members: [c]}
"""
    document = adopt_script(f"models:\n{FOUR}{groups}").document
    assert {model["name"]: model["group"] for model in document["models"]} == {
        "a": {"name": "one", "swap": False, "exclusive": True},
        "b": {"name": "one", "swap": False, "exclusive": True},
        "c": {"name": "two", "persistent": True},
        "d": {"name": "llama-swap", "exclusive": True},
    }


ALWAYS = {"name": "matrix", "swap": False, "persistent": True}


def swaps(number: int) -> dict[str, Any]:
    return {"name": f"matrix-{number}"}


def shares(number: int) -> dict[str, Any]:
    return {"name": f"matrix-{number}", "swap": False, "exclusive": True}


@pytest.mark.parametrize(
    ("sets", "groups"),
    [
        ("{all: a & b & c & d}", [ALWAYS] * 4),
        ("{one: (x | b) & c, two: +one & d}", [swaps(1), swaps(1), ALWAYS, ALWAYS]),
        ("{one: (a | b) & (c | d)}", [swaps(1), swaps(1), swaps(2), swaps(2)]),
        ("{one: a & b, two: c}", [shares(1), shares(1), shares(2), shares(3)]),
        ("{one: a & b & d, two: c & d}", [shares(1), shares(1), shares(2), ALWAYS]),
        ("{one: a | b | c | d}", [swaps(1)] * 4),
    ],
)
def test_llama_swaps_matrix(sets: str, groups: list[dict[str, Any]]) -> None:
    text = f"models:\n{FOUR}matrix: {{vars: {{x: a}}, evict_costs: {{x: 9}}, sets: {sets}}}\n"
    models = adopt_script(text).document["models"]
    assert [model["group"] for model in models] == groups
    routing = f"routing: {{router: {{use: matrix, settings: {{matrix: {{sets: {sets}}}}}}}}}\n"
    again = adopt_script(f"models:\n{FOUR}{routing}".replace("x |", "a |"))
    assert again.document["models"] == models


@pytest.mark.parametrize(
    ("sets", "why"),
    [
        ("{one: a & b, two: b & c, three: d}", "cannot tell apart"),
        ("{one: a & b, two: b & c, three: a & c, four: d}", "may not all run together"),
        ("{one: a & e}", "'e', which is no model of the file"),
        ("{one: a & (b | c}", "not closed"),
        ("{one: +two, two: +one}", "contains itself"),
        ("{one: a ! b}", "has ! b in the set one"),
        ("{}", "has no sets"),
    ],
)
def test_a_matrix_that_groups_cannot_say_is_refused_by_line(sets: str, why: str) -> None:
    with pytest.raises(UsageError, match=f"line 6: matrix .*{re.escape(why)}"):
        adopt_script(f"models:\n{FOUR}matrix: {{sets: {sets}}}\n")


def test_a_modelfile() -> None:
    text = "FROM hf.co/org/name-GGUF:Q4_K_M\nPARAMETER num_ctx 4096\nPARAMETER stop x\nSYSTEM hi\n"
    adoption = adopt_script(text)
    (model,) = adoption.document["models"]
    assert (model["source"], model["options"]) == ("hf:org/name-GGUF:Q4_K_M", {"context": 4096})
    assert adoption.document["gateway"]["port"] == 11434
    assert [warning.split()[0] for warning in adoption.warnings] == ["stop", "SYSTEM"]
