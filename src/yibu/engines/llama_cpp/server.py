"""How a bare llama-server is started, and which of its flags are about the gateway here."""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import Any

from yibu.engines.flags import whole
from yibu.engines.llama_cpp.table import TABLE
from yibu.engines.servers import Image, ServerCommand
from yibu.messages import tr

OPTIONS = MappingProxyType(
    {
        "parallel": "parallel",
        "threads": "threads",
        "gpu_layers": "n_gpu_layers",
        "flash_attention": "flash_attn",
        "batch": "batch_size",
        "ubatch": "ubatch_size",
        "prompt_cache": "cache_ram",
        "embeddings": "embeddings",
        "pooling": "pooling",
        "chat_template": "chat_template",
        "reasoning_format": "reasoning_format",
        "cache_type_k": "cache_type_k",
        "cache_type_v": "cache_type_v",
        "kv_unified": "kv_unified",
        "load_mode": "load_mode",
    }
)
"""yibu's options → the flags that mean the same. ``context`` is not among them: ``--ctx-size`` is of
all sequences together."""
FIELD_OPTIONS = MappingProxyType(
    {
        "n_ctx": "ctx_size",
        "n_parallel": "parallel",
        "n_threads": "threads",
        "cpuparams.n_threads": "threads",
        "n_batch": "batch_size",
        "n_ubatch": "ubatch_size",
        "cache_ram_mib": "cache_ram",
        "embedding": "embeddings",
        "pooling_type": "pooling",
    }
)
"""Fields of ``common_params`` that the plan reads → the flags that set them."""


def sequence_context(total: int, parallel: int | None, *, unified: bool) -> int:
    """Tokens a sequence of a ``--ctx-size``, which its slots divide unless they share one cache."""
    return total if unified or not parallel else max(1, total // parallel)


def _adopted(options: dict[str, Any]) -> dict[str, Any]:
    if str(options.get("parallel", "")) in ("-1", "0"):
        del options["parallel"]
    total = options.pop("ctx_size", None)
    if total is not None and (tokens := whole(total)):
        parallel = options.get("parallel")
        options["context"] = sequence_context(
            tokens, parallel, unified=options.get("kv_unified") is True
        )
    order = ("context", "parallel")
    return {name: options[name] for name in (*order, *options) if name in options}


SERVER = ServerCommand(
    table=TABLE,
    programs=MappingProxyType({"llama-server": (), "llama.cpp-server": ()}),
    images=(
        Image(
            re.compile(r"llama\.?cpp(?!.*(:|-)(full|light))|llama-server|llamacpp"),
            ("llama-server",),
        ),
        Image(
            re.compile(r"llama\.?cpp.*full"),
            ("tools.sh",),
            switches=("--server", "-s"),
            program=("llama-server",),
        ),
    ),
    roles=MappingProxyType(
        {
            "host": "host",
            "port": "port",
            "api_key": "key",
            "api_key_file": "key_file",
            "alias": "name",
            "model": "model",
            "hf_repo": "hub_repo",
            "hf_file": "hub_file",
        }
    ),
    port=8080,
    prefixes=("LLAMA_", "GGML_"),
    ends=frozenset({"usage", "version", "cache_list", "completion_bash", "list_devices"}),
    options=OPTIONS,
    unused=MappingProxyType(
        {
            "ssl_key_file": tr(
                "the gateway speaks plain HTTP: put a proxy with the certificate before it"
            ),
            "ssl_cert_file": tr(
                "the gateway speaks plain HTTP: put a proxy with the certificate before it"
            ),
            "path": tr("the gateway serves no files; it has a console of its own"),
            "api_prefix": tr("the gateway serves at /v1 alone"),
            "reuse_port": tr("yibu chooses the engine's port itself"),
            "webui": tr("the gateway has a console of its own"),
            "webui_config": tr("the gateway has a console of its own"),
            "webui_config_file": tr("the gateway has a console of its own"),
            "webui_mcp_proxy": tr("the gateway has a console of its own"),
            "cors_origins": tr("pages of other sites are let in by gateway.cors_origins"),
            "cors_methods": tr("the gateway decides it"),
            "cors_headers": tr("the gateway decides it"),
            "cors_credentials": tr("the gateway decides it"),
            "hf_token": tr(
                "a secret stood on the command line: set HF_TOKEN in yibu's environment instead"
            ),
            "offline": tr("yibu fetches the model itself: yibu up --offline"),
            "log_file": tr("yibu keeps and rotates the log: yibu logs"),
            "log_disable": tr("yibu keeps and rotates the log: yibu logs"),
            "log_colors": tr("yibu keeps and rotates the log: yibu logs"),
            "log_prefix": tr("yibu keeps and rotates the log: yibu logs"),
            "log_timestamps": tr("yibu keeps and rotates the log: yibu logs"),
            "log_jsonl": tr("yibu keeps and rotates the log: yibu logs"),
            "log_enable": tr("yibu keeps and rotates the log: yibu logs"),
            "log_new": tr("yibu keeps and rotates the log: yibu logs"),
            "log_append": tr("yibu keeps and rotates the log: yibu logs"),
            "tags": tr("they are labels of llama-server's router"),
            "metrics": tr("yibu always has them: GET /metrics of the gateway"),
            "slots": tr("yibu tells what is running: yibu ps"),
            "props": tr("yibu tells what is running: yibu ps"),
            "threads_http": tr("yibu sets it by the number of sequences"),
        }
    ),
    refused=frozenset({"ssl_key_file", "ssl_cert_file", "api_prefix", "reuse_port"}),
    paths=frozenset(
        {
            "mmproj",
            "spec_draft_model",
            "chat_template_file",
            "grammar_file",
            "json_schema_file",
            "lora",
            "lora_scaled",
            "control_vector",
            "control_vector_scaled",
            "slot_save_path",
            "media_path",
            "video_ffmpeg_dir",
            "lookup_cache_static",
            "lookup_cache_dynamic",
            "mcp_servers_config",
        }
    ),
    program_option="program",
    adopt_options=_adopted,
)
