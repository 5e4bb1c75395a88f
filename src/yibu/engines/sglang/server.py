"""How a bare SGLang is started, and which of its flags are about the gateway here."""

from __future__ import annotations

import re
from types import MappingProxyType

from yibu.engines.argparse_table import table_from
from yibu.engines.flags import pinned_flags
from yibu.engines.servers import Image, ServerCommand
from yibu.messages import tr

KEY_VARIABLE = "SGLANG_API_KEY"
"""Of yibu's launcher: SGLang itself reads its key from the command line alone."""
OPTIONS = MappingProxyType(
    {
        "context": "context_length",
        "parallel": "max_running_requests",
        "tensor_parallel": "tp_size",
    }
)
PINNED = table_from(pinned_flags(__package__))
_CERTIFICATE = tr("the gateway speaks plain HTTP: put a proxy with the certificate before it")
_SEVERAL = tr("copies of a model are replicas here: replicas: N")
_PARTS = tr("yibu runs a whole model on one machine: take engine: command for a part of one")

SERVER = ServerCommand(
    table=PINNED,
    programs=MappingProxyType({"sglang": ("serve",)}),
    modules=MappingProxyType({"sglang.launch_server": (), "sglang.cli.main": ("serve",)}),
    files=("sglang/launch_server.py",),
    images=(Image(re.compile(r"sglang"), ()),),
    roles=MappingProxyType(
        {
            "host": "host",
            "port": "port",
            "api_key": "key",
            "served_model_name": "name",
            "model_path": "model",
            "lora_paths": "adapters",
        }
    ),
    port=30000,
    positional=True,
    names_itself=True,
    hub_variable="SGLANG_USE_MODELSCOPE",
    prefixes=("SGLANG_", "SGL_"),
    options=OPTIONS,
    unused=MappingProxyType(
        {
            "ssl_keyfile": _CERTIFICATE,
            "ssl_certfile": _CERTIFICATE,
            "ssl_ca_certs": _CERTIFICATE,
            "ssl_keyfile_password": _CERTIFICATE,
            "enable_ssl_refresh": _CERTIFICATE,
            "enable_http2": tr("the gateway speaks HTTP/1.1 with its engines"),
            "grpc_mode": tr("the gateway speaks HTTP with its engines"),
            "smg_grpc_mode": tr("the gateway speaks HTTP with its engines"),
            "fastapi_root_path": tr("the gateway serves at /v1 alone"),
            "admin_api_key": tr(
                "a secret stood on the command line, and nobody reaches the engine but yibu"
            ),
            "config": tr("what stands in that file was not read: write it under options:"),
            "dp_size": _SEVERAL,
            "nnodes": _PARTS,
            "node_rank": _PARTS,
            "dist_init_addr": _PARTS,
            "disaggregation_mode": _PARTS,
            "encoder_only": _PARTS,
            "tokenizer_worker_num": tr("its key is kept by one process alone (SGLang's own limit)"),
            "help": tr(
                "its flags are listed at "
                "https://docs.sglang.ai/advanced_features/server_arguments.html"
            ),
        }
    ),
    refused=frozenset(
        [
            "ssl_keyfile",
            "ssl_certfile",
            "ssl_ca_certs",
            "ssl_keyfile_password",
            "enable_ssl_refresh",
            "enable_http2",
            "grpc_mode",
            "smg_grpc_mode",
            "fastapi_root_path",
            "admin_api_key",
            "config",
            "dp_size",
            "nnodes",
            "node_rank",
            "dist_init_addr",
            "disaggregation_mode",
            "encoder_only",
            "tokenizer_worker_num",
            "help",
        ]
    ),
)
