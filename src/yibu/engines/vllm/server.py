"""How a bare vLLM is started, and which of its flags are about the gateway here."""

from __future__ import annotations

import re
from typing import Any

from yibu.engines.flags import whole
from yibu.engines.servers import (
    CERTIFICATE,
    HUB_TOKEN,
    NOT_READ,
    ONE_PATH,
    ORIGINS,
    Image,
    ServerCommand,
    by_flag,
)
from yibu.engines.vllm.table import PINNED
from yibu.engines.vllm.translations import TRANSLATIONS
from yibu.messages import tr

OPTIONS = {
    "context": "max_model_len",
    "parallel": "max_num_seqs",
    "tensor_parallel": "tensor_parallel_size",
}


def _adopted(options: dict[str, Any]) -> dict[str, Any]:
    """``context`` and ``parallel`` as numbers; a length that vLLM would choose is left to the plan."""
    for name in OPTIONS:
        if name not in options:
            continue
        if str(options[name]).lower() in ("auto", "-1"):
            del options[name]
        else:
            options[name] = whole(options[name])
    return options


SERVER = ServerCommand(
    title="vLLM",
    documentation="https://docs.vllm.ai/en/stable/cli/serve.html",
    table=PINNED,
    programs={"vllm": ("serve",)},
    modules={
        "vllm.entrypoints.openai.api_server": (),
        "vllm.entrypoints.api_server": (),
        "vllm.entrypoints.cli.main": ("serve",),
    },
    files=("vllm/entrypoints/openai/api_server.py",),
    images=(
        Image(
            re.compile(r"vllm-openai|vllm-ascend|(^|/)vllm(:|@|$)|vllm-cpu|vllm/vllm"),
            ("vllm", "serve"),
        ),
    ),
    roles={
        "host": "host",
        "port": "port",
        "api_key": "key",
        "served_model_name": "name",
        "model": "model",
        "lora_modules": "adapters",
    },
    host="0.0.0.0",  # noqa: S104 - vLLM's own default, judged by whoever adopts it
    port=8000,
    positional=True,
    names_itself=True,
    hub_variable="VLLM_USE_MODELSCOPE",
    prefixes=("VLLM_",),
    translations=TRANSLATIONS,
    plugins={
        "reasoning_parser": "reasoning_parser_plugin",
        "tool_call_parser": "tool_parser_plugin",
    },
    options=OPTIONS,
    secrets=frozenset({"hf_token"}),
    unused={"hf_token": HUB_TOKEN, "allowed_origins": ORIGINS},
    refused=by_flag(
        {
            CERTIFICATE: "ssl_keyfile ssl_certfile ssl_ca_certs",
            tr("the gateway listens on an address, not on a socket file"): "uds",
            ONE_PATH: "root_path",
            tr("a server without an address of its own cannot be served from"): "headless",
            NOT_READ: "config",
        }
    ),
    paths=frozenset(
        {
            "chat_template",
            "tokenizer",
            "hf_config_path",
            "download_dir",
            "allowed_local_media_path",
            "tool_parser_plugin",
            "reasoning_parser_plugin",
            "generation_config",
            "log_config_file",
            "uvicorn_log_config",
        }
        & PINNED.flags.keys()
    ),
    adopt_options=_adopted,
)
