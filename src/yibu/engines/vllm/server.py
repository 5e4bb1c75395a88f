"""How a bare vLLM is started, and which of its flags are about the gateway here."""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import Any

from yibu.engines.flags import whole
from yibu.engines.servers import Image, ServerCommand
from yibu.engines.vllm.table import PINNED
from yibu.engines.vllm.translations import OLD_SWITCHES
from yibu.messages import tr

KEY_VARIABLE = "VLLM_API_KEY"
OPTIONS = MappingProxyType(
    {
        "context": "max_model_len",
        "parallel": "max_num_seqs",
        "tensor_parallel": "tensor_parallel_size",
    }
)
_CERTIFICATE = tr("the gateway speaks plain HTTP: put a proxy with the certificate before it")


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
    table=PINNED,
    programs=MappingProxyType({"vllm": ("serve",)}),
    modules=MappingProxyType(
        {
            "vllm.entrypoints.openai.api_server": (),
            "vllm.entrypoints.api_server": (),
            "vllm.entrypoints.cli.main": ("serve",),
        }
    ),
    files=("vllm/entrypoints/openai/api_server.py",),
    images=(
        Image(
            re.compile(r"vllm-openai|vllm-ascend|(^|/)vllm(:|@|$)|vllm-cpu|vllm/vllm"),
            ("vllm", "serve"),
        ),
    ),
    roles=MappingProxyType(
        {
            "host": "host",
            "port": "port",
            "api_key": "key",
            "served_model_name": "name",
            "model": "model",
            "lora_modules": "adapters",
        }
    ),
    host="0.0.0.0",  # noqa: S104 - vLLM's own default, judged by whoever adopts it
    port=8000,
    positional=True,
    names_itself=True,
    hub_variable="VLLM_USE_MODELSCOPE",
    prefixes=("VLLM_",),
    old_switches=OLD_SWITCHES,
    options=OPTIONS,
    unused=MappingProxyType(
        {
            "ssl_keyfile": _CERTIFICATE,
            "ssl_certfile": _CERTIFICATE,
            "ssl_ca_certs": _CERTIFICATE,
            "uds": tr("the gateway listens on an address, not on a socket file"),
            "root_path": tr("the gateway serves at /v1 alone"),
            "headless": tr("a server without an address of its own cannot be served from"),
            "config": tr("what stands in that file was not read: write it under options:"),
            "hf_token": tr(
                "a secret stood on the command line: set HF_TOKEN in yibu's environment instead"
            ),
            "allowed_origins": tr("pages of other sites are let in by gateway.cors_origins"),
        }
    ),
    refused=frozenset(
        {"uds", "ssl_keyfile", "ssl_certfile", "ssl_ca_certs", "root_path", "config", "headless"}
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
            "ssl_keyfile",
        }
        & PINNED.flags.keys()
    ),
    adopt_options=_adopted,
)
