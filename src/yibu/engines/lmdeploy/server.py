"""How a bare LMDeploy is started, and which of its flags are about the gateway here."""

from __future__ import annotations

import re

from yibu.engines.flags import FlagTable, pinned_flags
from yibu.engines.servers import (
    CERTIFICATE,
    ONE_MACHINE,
    ORIGINS,
    REPLICAS,
    Image,
    ServerCommand,
    by_flag,
)
from yibu.messages import tr

SERVER = ServerCommand(
    title="LMDeploy",
    documentation="https://lmdeploy.readthedocs.io",
    table=FlagTable.from_plain(pinned_flags(__package__)),
    programs={"lmdeploy": ("serve", "api_server")},
    modules={"lmdeploy": ("serve", "api_server")},
    images=(Image(re.compile(r"lmdeploy"), ()),),
    roles={
        "server_name": "host",
        "server_port": "port",
        "api_keys": "key",
        "model_name": "name",
        "model": "model",
        "adapters": "adapters",
    },
    host="0.0.0.0",  # noqa: S104 - LMDeploy's own default, judged by whoever adopts it
    port=23333,
    positional=True,
    names_itself=True,
    hub_variable="LMDEPLOY_USE_MODELSCOPE",
    prefixes=("LMDEPLOY_", "TM_"),
    options={"context": "session_len", "parallel": "max_batch_size", "tensor_parallel": "tp"},
    unused=by_flag({ORIGINS: "allow_origins allow_credentials allow_methods allow_headers"}),
    refused=by_flag(
        {
            CERTIFICATE: "ssl",
            tr("the gateway takes the place of LMDeploy's proxy"): "proxy_url",
            tr("yibu down MODEL ends a model"): "allow_terminate_by_client",
            REPLICAS: "dp",
            ONE_MACHINE: "nnodes node_rank dist_init_addr role",
        }
    ),
)
