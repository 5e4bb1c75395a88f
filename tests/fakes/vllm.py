"""vLLM in name: its command line in front of the fake engine, in an environment of its own.

What `yibu adopt` reads, what stands in the process table and what yibu launches are then vLLM's,
while everything starts within a tenth of a second. Switches of the fake engine's come in the
environment variable FAKE_SWITCHES, so that each of two servers can have its own.
"""

from __future__ import annotations

import json
import venv
from pathlib import Path

from tests.planner.planner_files import write_safetensors
from yibu.environments.disk import site_packages, write_record
from yibu.environments.manager import EnvironmentManager
from yibu.environments.specs import SPECS
from yibu.environments.uv_settings import UvSettings

_MODULE = """
import argparse, os, shlex, sys

if sys.argv[1:2] == ["serve"]:
    sys.argv[1:3] = ["--model", sys.argv[2]]
sys.path.insert(0, {fakes!r})
parser = argparse.ArgumentParser()
parser.add_argument("--host", default="0.0.0.0")
parser.add_argument("--port", default="8000")
parser.add_argument("--api-key", default=os.environ.get("VLLM_API_KEY"))
parser.add_argument("--served-model-name", nargs="+")
parser.add_argument("--model")
known, _ = parser.parse_known_args()
if known.api_key:
    os.environ["FAKE_API_KEY"] = known.api_key
name = known.served_model_name[0] if known.served_model_name else known.model
sys.argv[1:] = ["--host", known.host, "--port", known.port, "--model-name", name,
                *shlex.split(os.environ.get("FAKE_SWITCHES", ""))]
import engine

engine.main()
"""


def make_environment(environments: Path) -> Path:
    """A whole "vllm-cpu" environment below ``environments``; returns its interpreter."""
    manager = EnvironmentManager(environments, UvSettings(), env={})
    target = manager.path("vllm-cpu")
    venv.create(target, symlinks=True, with_pip=False)
    for name in ("openai/api_server.py", "cli/main.py"):
        module = site_packages(target) / "vllm" / "entrypoints" / name
        module.parent.mkdir(parents=True)
        module.write_text(_MODULE.format(fakes=str(Path(__file__).parent)))
    write_record(SPECS["vllm-cpu"], target, target)
    return target / "bin" / "python"


def make_model(directory: Path) -> Path:
    """A directory that reads as a tiny Llama: its header is real, its weights are zeros."""
    directory.mkdir()
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64,
        "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 4, "vocab_size": 128, "max_position_embeddings": 2048,
        "torch_dtype": "bfloat16",
    }  # fmt: skip
    (directory / "config.json").write_text(json.dumps(config))
    write_safetensors(directory / "model.safetensors", {"embed": ("BF16", (128, 64))})
    return directory
