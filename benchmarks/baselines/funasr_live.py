"""FunASR's own websocket server over models of the published sizes with random weights.

    python benchmarks/baselines/funasr_live.py FUNASR/runtime/python/websocket/funasr_wss_server.py \
        --vad DIR --models DIR [--port 10095] [--threads 2]

Runs the server's file as it is, in the environment speech-torch, with FunASR's ``AutoModel`` sent to
local directories: Paraformer-large offline and online (their published shapes, written to ``--models``
the first time), the real FSMN-VAD, no punctuation model, and a tiny speaker model, since the server
wants one: both save it work that it does elsewhere.
"""

from __future__ import annotations

import argparse
import copy
import runpy
import sys
import tarfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

VOCABULARY = 8404
ENCODER = {"output_size": 512, "linear_units": 2048, "num_blocks": 50}
DECODER = {"linear_units": 2048, "num_blocks": 16, "att_layer_num": 16}


def write(kind: str, directory: Path) -> None:
    """A Paraformer of the published size; about 4.5 tokens a second, as in Mandarin."""
    import torch
    from tests.speech.models import random_models

    config = random_models.CONFIGS[kind] = copy.deepcopy(random_models.CONFIGS[kind])
    config["encoder_conf"] |= ENCODER
    config["decoder_conf"] |= DECODER
    config["predictor_conf"]["idim"] = 512
    tokens = [f"字{n}" for n in range(VOCABULARY - len(random_models.VOCABULARY))]
    random_models.VOCABULARY[-1:-1] = tokens
    random_models.write(kind, directory, 0)
    del random_models.VOCABULARY[-1 - len(tokens) : -1]
    weights = torch.load(directory / "model.pt")
    weights["predictor.cif_output.weight"] *= 0.1
    weights["predictor.cif_output.bias"][:] = -1.0
    torch.save(weights, directory / "model.pt")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("server", type=Path)
    parser.add_argument("--vad", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--port", type=int, default=10095)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    arguments.models.mkdir(parents=True, exist_ok=True)
    for kind in ("paraformer", "online"):
        if not (arguments.models / kind).exists():
            write(kind, arguments.models / kind)
    with tarfile.open(ROOT / "tests/speech/fixture/funasr.tar.xz") as archive:
        archive.extractall(arguments.models, filter="data")
    directories = {
        "paraformer-zh": arguments.models / "paraformer",
        "iic/speech_paraformer-large_asr_nat-zh-cn-16k-common-vocab8404-online": arguments.models
        / "online",
        "iic/speech_fsmn_vad_zh-cn-16k-common-pytorch": arguments.vad,
        "iic/speech_campplus_sv_zh-cn_16k-common": arguments.models / "funasr" / "speakers",
    }
    import funasr
    import torch

    real = funasr.AutoModel

    def local(model: str, **options: Any) -> Any:
        options.pop("model_revision", None)
        return real(model=str(directories[model]), disable_update=True, **options)

    funasr.AutoModel = local
    torch.set_num_threads(arguments.threads)
    sys.argv = [
        str(arguments.server), "--host", "127.0.0.1", "--port", str(arguments.port), "--ngpu", "0",
        "--device", "cpu", "--ncpu", str(arguments.threads), "--certfile", "", "--punc_model", "",
    ]  # fmt: skip
    runpy.run_path(str(arguments.server), run_name="__main__")


if __name__ == "__main__":
    main()
