"""A Dockerfile: yibu in a virtual environment, run by a user who is not root."""

from __future__ import annotations

from yibu import __version__
from yibu.export.deployment import (
    CONFIG_FOLDER,
    DATA,
    MODELS,
    USER,
    ExportedDeployment,
    File,
    Files,
)
from yibu.export.notes import comment
from yibu.messages import tr

DEBIAN = "debian:bookworm-slim"
MODELSCOPE = (
    "modelscope-registry.cn-hangzhou.cr.aliyuncs.com/modelscope-repo/modelscope:"
    "ubuntu22.04-cuda12.8.1-py311-torch2.8.0-vllm0.11.0-modelscope1.31.0-swift3.9.3"
)
"""ModelScope's own image with Python 3.11; a newer tag is given as it is."""

_WHEEL = f"yibu-{__version__}-py3-none-any.whl"
"""As a file, not by name: an index may have a package of this name that is somebody else's."""
_COMPILER = " g++ python3-dev"
"""Engines on GPUs compile kernels as they start (Triton, vLLM's torch.compile)."""


def image_files(deployment: ExportedDeployment, base: str) -> Files:
    """What ``docker build`` needs beside yibu.yaml; ``base`` is ``debian``, ``modelscope``, or an
    image's own name and tag."""
    image = {"debian": DEBIAN, "modelscope": MODELSCOPE}.get(base, base)
    return {
        "Dockerfile": File(_build_steps(deployment, image) + _runtime(deployment)),
        ".dockerignore": File(_ignored()),
        "wheels/README": File(_wheels()),
    }


def _build_steps(deployment: ExportedDeployment, base: str) -> str:
    packages = "ca-certificates libnuma1 tini"
    if base == DEBIAN:
        # Another base has a Python of its own, which Debian's or Ubuntu's would stand in front of.
        packages += " python3 python3-venv" + (_COMPILER if deployment.gpus != 0 else "")
    programs = tr(
        "tini is the first process: it passes signals on and reaps what engines leave. vLLM needs libnuma.\n"
        "Versions are those of the base image's Debian release."
    )
    index = tr(
        "yibu's wheel from wheels/ (wheels/README says how it is made), what it needs from the package index.\n"
        "A mirror: --build-arg PIP_INDEX_URL=…; one with a password: --secret id=pip_conf,src=pip.conf, which\n"
        "stays out of the image and its history."
    )
    return f"""\
# syntax=docker/dockerfile:1
{comment(tr("Written by `yibu export`. Build: docker build -t {image} .", image=deployment.image))}
ARG BASE={base}
FROM ${{BASE}}

{comment(tr("The user that it runs as, who must own the host's folders that are mounted:"))}
#   docker build --build-arg UID=$(id -u) --build-arg GID=$(id -g) .
ARG UID={USER}
ARG GID={USER}

{comment(programs)}
# hadolint ignore=DL3008
RUN apt-get update \\
 && apt-get install -y --no-install-recommends {packages} \\
 && rm -rf /var/lib/apt/lists/* \\
 && python3 -c 'import sys; sys.exit("yibu needs Python 3.11, this is " + sys.version if sys.version_info < (3, 11) else 0)' \\
 && groupadd --non-unique --gid "${{GID}}" yibu \\
 && useradd --non-unique --uid "${{UID}}" --gid "${{GID}}" --home-dir {DATA} --no-create-home yibu \\
 && install -d -o "${{UID}}" -g "${{GID}}" {DATA} {MODELS}

{comment(index)}
ARG YIBU=/tmp/wheels/{_WHEEL}
ARG PIP_INDEX_URL
ARG PIP_NO_INDEX
COPY wheels/ /tmp/wheels/
RUN --mount=type=secret,id=pip_conf,target=/etc/pip.conf \\
    python3 -m venv /opt/yibu \\
 && /opt/yibu/bin/pip install --no-cache-dir --disable-pip-version-check --find-links /tmp/wheels "${{YIBU}}"

COPY yibu.yaml {CONFIG_FOLDER}/yibu.yaml
"""


def _runtime(deployment: ExportedDeployment) -> str:
    port = deployment.inner_port
    ports = " ".join(str(one) for one in (port, deployment.config.gateway.funasr_port) if one)
    volumes = tr(
        "All that is written lies in the two volumes: yibu's state, logs and engines, and the hubs' caches.\n"
        "A container's gateway is reached from outside only, so it listens on all addresses, and refuses\n"
        "to do so without a key."
    )
    health = tr(
        "Alive, not ready: the first start downloads for as long as it takes, and a restart would not help."
    )
    return f"""
{comment(volumes)}
ENV PATH=/opt/yibu/bin:$PATH \\
    HOME={DATA} \\
    YIBU_HOME={DATA} \\
    UV_CACHE_DIR={DATA}/uv \\
    MODELSCOPE_CACHE={MODELS}/modelscope \\
    HF_HOME={MODELS}/huggingface \\
    YIBU_HOST=0.0.0.0 \\
    YIBU_PORT={port}
VOLUME ["{DATA}", "{MODELS}"]
WORKDIR {DATA}
USER ${{UID}}:${{GID}}
EXPOSE {ports}
{comment(health)}
HEALTHCHECK --interval=15s --timeout=10s --start-period=60s --retries=4 \\
    CMD ["/opt/yibu/bin/python", "-c", "{probe(port, "/healthz")}"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["tini", "--", "yibu"]
CMD ["up", "-f", "{CONFIG_FOLDER}/yibu.yaml"]
"""


def probe(port: int, path: str) -> str:
    """A line of Python that fails unless the gateway answers 200: the image has no curl."""
    return (
        "import urllib.request as u; "
        f"u.build_opener(u.ProxyHandler({{}})).open('http://127.0.0.1:{port}{path}', timeout=8)"
    )


def _ignored() -> str:
    note = tr("Secrets and data of the running service are no part of the image.")
    return f"{comment(note)}\n.env\ndata\nmodels\nkeys*\npip.conf\n"


def _wheels() -> str:
    return tr(
        "The image is built with {wheel} from this folder. It is made from a clone:\n\n    pip "
        "wheel --no-deps -w wheels PATH_OF_THE_CLONE\n\nFor a build without a package index, the "
        "wheels of all that it needs, made with Python 3.11 on Linux:\n\n    pip wheel -w wheels "
        "PATH_OF_THE_CLONE\n    docker build --build-arg PIP_NO_INDEX=1 -t {image} .\n",
        wheel=_WHEEL,
        image=f"yibu:{__version__}",
    )
