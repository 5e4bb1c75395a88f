"""Write a GGUF model as a directory of safetensors in bfloat16, its chat template kept.

Run it with the vllm environment's interpreter, which has transformers:

    $ENVIRONMENT/bin/python scripts/gguf_to_safetensors.py MODEL.gguf DIRECTORY

The directory appears whole or not at all: it is written beside its place and renamed.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig


def convert(source: Path, target: Path) -> None:
    """Dequantize ``source`` into ``target``, which must not exist."""
    folder, file = source.parent, source.name
    model = AutoModelForCausalLM.from_pretrained(
        folder,
        gguf_file=file,
        dtype=torch.bfloat16,
        quantization_config=GgufConfig(dequantize=True),
    )
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file)
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        model.save_pretrained(work / "model")
        tokenizer.save_pretrained(work / "model")
        (work / "model").rename(target)
    finally:
        shutil.rmtree(work)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("source", type=Path, help="a GGUF file")
    parser.add_argument("target", type=Path, help="the directory to write; it must not exist")
    arguments = parser.parse_args()
    if not arguments.source.is_file():
        sys.exit(f"there is no file {arguments.source}")
    if arguments.target.exists():
        sys.exit(f"{arguments.target} exists already; remove it first, or name another directory")
    convert(arguments.source, arguments.target)


if __name__ == "__main__":
    main()
