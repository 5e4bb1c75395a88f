"""How a bare LMDeploy is started, and which of its flags are about the gateway here."""

from __future__ import annotations

import re
from types import MappingProxyType

from yibu.engines.argparse_table import table_from
from yibu.engines.flags import pinned_flags
from yibu.engines.servers import Image, ServerCommand
from yibu.messages import tr

KEY_VARIABLE = "LMDEPLOY_API_KEY"
"""Of yibu's launcher: LMDeploy itself reads its keys from the command line alone."""
OPTIONS = MappingProxyType(
    {"context": "session_len", "parallel": "max_batch_size", "tensor_parallel": "tp"}
)
PINNED = table_from(pinned_flags(__package__))
_CERTIFICATE = tr("the gateway speaks plain HTTP: put a proxy with the certificate before it")
_ORIGINS = tr("pages of other sites are let in by gateway.cors_origins")
_PARTS = tr("yibu runs a whole model on one machine: take engine: command for a part of one")

SERVER = ServerCommand(
    table=PINNED,
    programs=MappingProxyType({"lmdeploy": ("serve", "api_server")}),
    modules=MappingProxyType({"lmdeploy": ("serve", "api_server")}),
    images=(Image(re.compile(r"lmdeploy"), ()),),
    roles=MappingProxyType(
        {
            "server_name": "host",
            "server_port": "port",
            "api_keys": "key",
            "model_name": "name",
            "model": "model",
            "adapters": "adapters",
        }
    ),
    host="0.0.0.0",  # noqa: S104 - LMDeploy's own default, judged by whoever adopts it
    port=23333,
    positional=True,
    names_itself=True,
    hub_variable="LMDEPLOY_USE_MODELSCOPE",
    prefixes=("LMDEPLOY_", "TM_"),
    options=OPTIONS,
    unused=MappingProxyType(
        {
            "ssl": _CERTIFICATE,
            "allow_origins": _ORIGINS,
            "allow_credentials": _ORIGINS,
            "allow_methods": _ORIGINS,
            "allow_headers": _ORIGINS,
            "proxy_url": tr("the gateway takes the place of LMDeploy's proxy"),
            "allow_terminate_by_client": tr("yibu down MODEL ends a model"),
            "dp": tr("copies of a model are replicas here: replicas: N"),
            "nnodes": _PARTS,
            "node_rank": _PARTS,
            "dist_init_addr": _PARTS,
            "role": _PARTS,
            "help": tr("its flags are listed at https://lmdeploy.readthedocs.io"),
        }
    ),
    refused=frozenset(
        [
            "ssl",
            "proxy_url",
            "allow_terminate_by_client",
            "dp",
            "nnodes",
            "node_rank",
            "dist_init_addr",
            "role",
            "help",
        ]
    ),
)
