"""How a bare SGLang is started, and which of its flags are about the gateway here."""

from __future__ import annotations

import re

from yibu.engines.flags import FlagTable, pinned_flags
from yibu.engines.servers import (
    CERTIFICATE,
    NOT_READ,
    ONE_MACHINE,
    ONE_PATH,
    REPLICAS,
    Image,
    ServerCommand,
    by_flag,
)
from yibu.messages import tr

SERVER = ServerCommand(
    title="SGLang",
    documentation="https://docs.sglang.ai/advanced_features/server_arguments.html",
    table=FlagTable.from_plain(pinned_flags(__package__)),
    programs={"sglang": ("serve",)},
    modules={"sglang.launch_server": (), "sglang.cli.main": ("serve",)},
    files=("sglang/launch_server.py",),
    images=(Image(re.compile(r"sglang"), ()),),
    roles={
        "host": "host",
        "port": "port",
        "api_key": "key",
        "served_model_name": "name",
        "model_path": "model",
        "lora_paths": "adapters",
    },
    port=30000,
    positional=True,
    names_itself=True,
    hub_variable="SGLANG_USE_MODELSCOPE",
    prefixes=("SGLANG_", "SGL_"),
    options={
        "context": "context_length",
        "parallel": "max_running_requests",
        "tensor_parallel": "tp_size",
    },
    refused=by_flag(
        {
            CERTIFICATE: "ssl_keyfile ssl_certfile ssl_ca_certs ssl_keyfile_password "
            "enable_ssl_refresh",
            tr("the gateway speaks HTTP/1.1 with its engines"): "enable_http2",
            tr("the gateway speaks HTTP with its engines"): "grpc_mode smg_grpc_mode",
            ONE_PATH: "fastapi_root_path",
            tr(
                "a secret stood on the command line, and nobody reaches the engine but yibu"
            ): "admin_api_key",
            NOT_READ: "config",
            REPLICAS: "dp_size",
            ONE_MACHINE: "nnodes node_rank dist_init_addr disaggregation_mode encoder_only",
            tr("its key is kept by one process alone (SGLang's own limit)"): "tokenizer_worker_num",
        }
    ),
)
