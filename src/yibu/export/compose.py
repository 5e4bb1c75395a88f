"""A Compose file with a Dockerfile: ``docker compose up -d --wait``.

Source: the Compose specification (https://github.com/compose-spec/compose-spec).
"""

from __future__ import annotations

from typing import Any

from yibu.config.keys import KEYS_VARIABLE, is_loopback
from yibu.export.deployment import (
    CONFIG_FOLDER,
    DATA,
    MODELS,
    PASSED,
    ExportedDeployment,
    File,
    Files,
)
from yibu.export.image import image_files, probe
from yibu.export.notes import Notes, comment
from yibu.messages import tr

_KEY_PATH = "/run/secrets/api_keys"


def export(deployment: ExportedDeployment, base: str) -> Files:
    """compose.yaml, Dockerfile, .env.example and yibu.yaml."""
    return {
        "compose.yaml": File(_compose(deployment)),
        ".env.example": File(_variables(deployment)),
        "yibu.yaml": File(deployment.text),
        **image_files(deployment, base),
    }


def _compose(deployment: ExportedDeployment) -> str:
    notes = Notes()
    key_file = deployment.key_file
    top: dict[str, Any] = {
        "name": deployment.name,
        "services": {deployment.name: _service(deployment, notes)},
        "volumes": {"data": {}, "models": {}},
    }
    if key_file is not None:
        top["secrets"] = {
            **notes.why(
                "gateway.api_key_file. The container's user has to own it, with mode 0600:\n"
                "yibu refuses a file of keys that others may read."
            ),
            "api_keys": {"file": _plain(str(key_file))},
        }
    steps = tr(
        "Written by `yibu export compose`.\n"
        "  cp .env.example .env && chmod 600 .env    # fill in what it asks for\n"
        "  docker compose up -d --build --wait       # returns when every model is ready; the first time downloads\n"
        "  docker compose exec {name} yibu ps        # and logs, test, top …",
        name=deployment.name,
    )
    return notes.dump(top, top=steps)


def _service(deployment: ExportedDeployment, notes: Notes) -> dict[str, Any]:
    why = notes.why
    return {
        "image": deployment.image,
        "build": {
            "context": ".",
            **why("The user in the image; folders that you mount must be this user's."),
            "args": {
                "UID": "${YIBU_UID:-1000}",
                "GID": "${YIBU_GID:-1000}",
                "PIP_INDEX_URL": None,
            },
        },
        "restart": "unless-stopped",
        **why(_ports_note(deployment)),
        "ports": _ports(deployment),
        **why("Secrets and mirrors come from .env or the shell; none has a value here."),
        "environment": _environment(deployment),
        **why("VOLUME_DIR=/srv/yibu in .env keeps them in folders of the host instead."),
        "volumes": _volumes(deployment),
        **({"secrets": ["api_keys"]} if deployment.key_file is not None else {}),
        **why("Ready: every model that is to be loaded answers."),
        "healthcheck": {
            "test": [
                "CMD", "/opt/yibu/bin/python", "-c", probe(deployment.inner_port, "/readyz"),
            ],
            "interval": "15s",
            "timeout": "10s",
            "retries": 4,
            **why("Downloads and loading; it is ready as soon as the check passes once."),
            "start_period": "2h",
        },
        **why("gateway.drain_timeout, and a minute for the engines to end."),
        "stop_grace_period": f"{deployment.stop_seconds}s",
        "read_only": True,
        **why("exec: engines run code that they compile there."),
        "tmpfs": ["/tmp:exec,mode=1777"],
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        **why("gateway.max_connections needs two descriptors a client."),
        "ulimits": {"nofile": 65536},
        **_sysctls(deployment, notes),
        **_gpus(deployment, notes),
        "logging": {"driver": "json-file", "options": {"max-size": "20m", "max-file": "5"}},
    }  # fmt: skip


def _ports_note(deployment: ExportedDeployment) -> str:
    if is_loopback(deployment.config.gateway.host):
        return tr(
            "As gateway.host says, from this machine alone. For others: gateway.host: 0.0.0.0 in\n"
            "yibu.yaml and export again, or take the address away here."
        )
    return tr("As gateway.host says, for other machines too.")


def _ports(deployment: ExportedDeployment) -> list[str]:
    gateway = deployment.config.gateway
    host = gateway.host.strip("[]")
    if is_loopback(host):
        address = "[::1]:" if host == "::1" else "127.0.0.1:"
    else:
        is_address = ":" in host or host.replace(".", "").isdigit()
        quoted = f"[{host}]:" if ":" in host else f"{host}:"
        address = quoted if is_address and host not in ("0.0.0.0", "::") else ""
    ports = [f"{address}{deployment.port}:{deployment.inner_port}"]
    if gateway.funasr_port:
        ports.append(f"{address}{gateway.funasr_port}:{gateway.funasr_port}")
    return ports


def _environment(deployment: ExportedDeployment) -> dict[str, str | None]:
    unset = tr("set it in .env")
    found: dict[str, str | None] = {
        "YIBU_PORT": str(deployment.inner_port),
        **{name: f"${{{name}:?{unset}}}" for name in deployment.secrets},
        **{name: None for name in PASSED if name not in deployment.secrets},
    }
    if deployment.key_file is not None:
        found["YIBU_API_KEY_FILE"] = _KEY_PATH
    return found


def _volumes(deployment: ExportedDeployment) -> list[Any]:
    local = [
        {
            "type": "bind",
            "source": _plain(str(path.here)),
            "target": _plain(path.inside),
            "read_only": True,
        }
        for path in deployment.local
    ]
    return [
        f"${{VOLUME_DIR:+${{VOLUME_DIR}}/}}data:{DATA}",
        f"${{VOLUME_DIR:+${{VOLUME_DIR}}/}}models:{MODELS}",
        f"./yibu.yaml:{CONFIG_FOLDER}/yibu.yaml:ro",
        *local,
    ]


def _plain(text: str) -> str:
    """A path without variables: Compose puts their values into every text of its file."""
    return text.replace("$", "$$")


def _sysctls(deployment: ExportedDeployment, notes: Notes) -> dict[str, Any]:
    if deployment.sysctl is None:
        return {}
    note = notes.why("gateway.funasr_port is below 1024, and the container's user is not root.")
    return {**note, "sysctls": {deployment.sysctl: 0}}


def _gpus(deployment: ExportedDeployment, notes: Notes) -> dict[str, Any]:
    if deployment.gpus == 0:
        return {}
    named = any(model.gpus for model in deployment.config.models)
    count = "all" if deployment.gpus is None or named else deployment.gpus
    device = {"driver": "nvidia", "count": count, "capabilities": ["gpu"]}
    reason = (
        tr(
            "All, because yibu.yaml names GPUs by their number, and a container with some of them\n"
            "would count those from 0."
        )
        if named
        else tr("Needs NVIDIA's container toolkit on the host.")
    )
    return {
        **notes.why("Tensor parallel engines exchange data here; Docker's default is 64 MB."),
        "shm_size": "8gb",
        **notes.why(reason),
        "deploy": {"resources": {"reservations": {"devices": [device]}}},
    }


def _variables(deployment: ExportedDeployment) -> str:
    asked = "".join(f"{_purpose(name)}{name}=\n\n" for name in deployment.secrets)
    passed = "".join(f"# {name}=\n" for name in PASSED if name not in deployment.secrets)
    begin = tr(
        "Copy to .env, chmod 600 .env, and keep it out of version control. Compose takes $ for the beginning\n"
        "of a variable: a value that has one goes in single quotes."
    )
    folders = tr(
        "Where data and models are kept, instead of in Docker's own volumes. First make the folders\n"
        "data and models there, owned by the user below."
    )
    needed = tr("Where needed: hubs, their tokens, a package mirror, a proxy.")
    return (
        f"{comment(begin)}\n\n{asked}"
        f"{comment(folders)}\n# VOLUME_DIR=/srv/yibu\n# YIBU_UID=1000\n# YIBU_GID=1000\n\n"
        f"{comment(needed)}\n{passed}"
    )


def _purpose(name: str) -> str:
    if name != KEYS_VARIABLE:
        return comment(tr("yibu.yaml refers to it.")) + "\n"
    made = tr(
        "Keys that clients may use, comma-separated. One is made by:\n"
        "  python3 -c 'import secrets; print(secrets.token_urlsafe(32))'"
    )
    return comment(made) + "\n"
