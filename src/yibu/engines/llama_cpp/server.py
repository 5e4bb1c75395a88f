"""How a bare llama-server is started, and which of its flags are about the gateway here."""

from __future__ import annotations

import re
from typing import Any

from yibu.engines.flags import whole
from yibu.engines.llama_cpp.table import TABLE
from yibu.engines.servers import (
    CERTIFICATE,
    HUB_TOKEN,
    ONE_PATH,
    ORIGINS,
    Image,
    ServerCommand,
    by_flag,
)
from yibu.messages import tr

_SAME = (
    "parallel",
    "embeddings",
    "threads",
    "pooling",
    "chat_template",
    "reasoning_format",
    "cache_type_k",
    "cache_type_v",
    "kv_unified",
    "load_mode",
)
OPTIONS = {
    **{name: name for name in _SAME},
    "gpu_layers": "n_gpu_layers",
    "flash_attention": "flash_attn",
    "batch": "batch_size",
    "ubatch": "ubatch_size",
    "prompt_cache": "cache_ram",
}
"""yibu's options → the flags that mean the same. ``context`` is not among them: ``--ctx-size`` is of
all sequences together."""
FIELD_OPTIONS = {
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
"""Fields of ``common_params`` that the plan reads → the flags that set them."""


def sequence_context(total: int, parallel: int | None, *, unified: bool) -> int:
    """Tokens a sequence of a ``--ctx-size``, which its slots divide unless they share one cache."""
    return total if unified or not parallel else max(1, total // parallel)


def _adopted(options: dict[str, Any]) -> dict[str, Any]:
    if "chat_template_file" in options:
        options["chat_template"] = options.pop("chat_template_file")
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
    title="llama-server",
    documentation="https://github.com/ggml-org/llama.cpp/tree/master/tools/server",
    table=TABLE,
    programs={"llama-server": (), "llama.cpp-server": ()},
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
    roles={
        "host": "host",
        "port": "port",
        "api_key": "key",
        "api_key_file": "key_file",
        "alias": "name",
        "model": "model",
        "hf_repo": "hub_repo",
        "hf_file": "hub_file",
    },
    port=8080,
    prefixes=("LLAMA_", "GGML_"),
    ends=frozenset({"usage", "version", "cache_list", "completion_bash", "list_devices"}),
    options=OPTIONS,
    unused=by_flag(
        {
            tr("the gateway serves no files; it has a console of its own"): "path",
            tr("the gateway has a console of its own"): "webui webui_config webui_config_file "
            "webui_mcp_proxy",
            ORIGINS: "cors_origins",
            tr("the gateway decides it"): "cors_methods cors_headers cors_credentials",
            HUB_TOKEN: "hf_token",
            tr("yibu fetches the model itself: yibu up --offline"): "offline",
            tr("yibu keeps and rotates the log: yibu logs"): "log_file log_disable log_colors "
            "log_prefix log_timestamps log_jsonl log_enable log_new log_append",
            tr("they are labels of llama-server's router"): "tags",
            tr("yibu always has them: GET /metrics of the gateway"): "metrics",
            tr("yibu tells what is running: yibu ps"): "slots props",
            tr("yibu sets it by the number of sequences"): "threads_http",
        }
    ),
    refused=by_flag(
        {
            CERTIFICATE: "ssl_key_file ssl_cert_file",
            ONE_PATH: "api_prefix",
            tr("yibu chooses the engine's port itself"): "reuse_port",
        }
    ),
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
