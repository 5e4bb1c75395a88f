"""A program that answers as a llama-server with CUDA does."""

from __future__ import annotations

import sys
from pathlib import Path

VERSION = "version: 0.7.0 (build 11669, commit 1a2b3c4)\nbuilt with GNU 14.2.0 for Linux x86_64\n"
OLD_VERSION = "version: 5318 (15e03282)\nbuilt with cc (Debian 14.2.0-19) for x86_64-linux-gnu\n"
DEVICES = """load_backend: loaded CUDA backend from /usr/lib/libggml-cuda.so
Available devices:
  CUDA0: NVIDIA GeForce RTX 4090 (24080 MiB, 23600 MiB free)
  CUDA1: NVIDIA RTX A2000 (Laptop, 4 GB) (3900 MiB, 3000 MiB free)
"""
HELP = """----- common params -----

-h,    --help, --usage                  print usage and exit
--version                               show version and build info
-t,    --threads N                      number of CPU threads to use
                                        (env: LLAMA_ARG_THREADS)
-tb,   --threads-batch N                number of threads to use during batch processing
-c,    --ctx-size N                     size of the prompt context
                                        (env: LLAMA_ARG_CTX_SIZE)
-b,    --batch-size N                   logical maximum batch size
-ub,   --ubatch-size N                  physical maximum batch size
-fa,   --flash-attn [on|off|auto]       set Flash Attention use ('on', 'off', or 'auto')
--rope-scaling {none,linear,yarn}       RoPE frequency scaling method
-np,   --parallel N                     number of server slots
-kvu,  --kv-unified, -no-kvu, --no-kv-unified
                                        use single unified KV buffer
-cram, --cache-ram N                    maximum cache size in MiB
-dev,  --device <dev1,dev2,..>          devices to use for offloading
--list-devices                          print list of available devices and exit
-ngl,  --gpu-layers, --n-gpu-layers N   max. number of layers to store in VRAM
                                        (env: LLAMA_ARG_N_GPU_LAYERS)
-ncmoe, --n-cpu-moe N                   keep the experts of the first N layers in the CPU
-ts,   --tensor-split N0,N1,N2,...      fraction of the model to offload to each GPU
-fit,  --fit [on|off]                   whether to adjust unset arguments
-m,    --model FNAME                    model path to load
-mm,   --mmproj FILE                    path to a multimodal projector file
-a,    --alias STRING                   set alias for model name
--host HOST                             ip address to listen
--port PORT                             port to listen (default: 8080)
--api-key KEY                           API key to use for authentication
                                        (env: LLAMA_API_KEY)
--metrics                               enable prometheus compatible metrics endpoint
--slots, --no-slots                     expose slots monitoring endpoint
--jinja, --no-jinja                     whether to use jinja template engine for chat
--chat-template JINJA_TEMPLATE           set custom jinja chat template
--ui, --webui, --no-ui, --no-webui      whether to enable the Web UI
-lm,   --load-mode MODE                 how the file is loaded
--temp, --temperature N                 temperature
--brand-new FLAG                        what only this build has
--brand-switch                          another of these
"""


def stand_in(
    directory: Path, version: str = VERSION, devices: str = DEVICES, shown: str = HELP
) -> Path:
    """A program that answers as a llama-server does."""
    said = {"--version": version, "--list-devices": devices, "--help": shown}
    file = directory / "llama-server"
    file.write_text(
        f"#!{sys.executable}\nimport sys\nsys.stdout.write({said!r}[sys.argv[1]])\n",
        encoding="utf-8",
    )
    file.chmod(0o755)
    return file
