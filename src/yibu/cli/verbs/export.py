"""``yibu export``: yibu.yaml as the files of systemd, Compose, Kubernetes and Grafana."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from yibu.cli import output
from yibu.cli.options import FileOption, option
from yibu.errors import UsageError
from yibu.management.context import Context
from yibu.messages import tr

if TYPE_CHECKING:
    from yibu.export.deployment import ExportedDeployment, Files

FolderOption = Annotated[
    Path | None, option("The folder to write (one of the format's name).", "-o", "--output")
]
ForceOption = Annotated[bool, option("Replace files that are there.", "--force")]
NameOption = Annotated[str, option("What the service is called there.")]
GpusOption = Annotated[
    str | None, option("How many GPUs it gets: a number, or all; found from the models else.")
]
ImageOption = Annotated[str | None, option("The image's name and tag (yibu and its version).")]


def register(app: typer.Typer) -> None:
    export = typer.Typer(
        no_args_is_help=True,
        help=tr("Write yibu.yaml as files of systemd, Compose, Kubernetes, Grafana."),
    )
    for verb in (systemd, compose, k8s, grafana):
        export.command()(verb)
    app.add_typer(export, name="export")


def systemd(
    file: FileOption = None,
    folder: FolderOption = None,
    force: ForceOption = False,
    name: NameOption = "yibu",
    run_as: Annotated[str, option("Who runs it.")] = "yibu",
    python: Annotated[
        str,
        option(
            "The interpreter that yibu is installed for, there.",
            show_default=tr("the one that runs this"),
        ),
    ] = sys.executable,
    config: Annotated[Path, option("Where yibu.yaml will stand there.")] = Path(
        "/etc/yibu/yibu.yaml"
    ),
) -> None:
    """Write a unit, its variables and yibu.yaml, for another machine; here: `yibu service install`."""
    from yibu.export import systemd as units
    from yibu.export.deployment import File

    here = Context.here()
    made = _deployment(here, file, name)
    service = units.Service(
        name=name,
        python=python,
        file=config,
        drain_timeout=made.config.gateway.drain_timeout,
        environment_file=config.parent / f"{name}.env",
        system=True,
        user=run_as,
        low_port=made.config.gateway.port < 1024,
    )
    files = {
        f"{name}.service": File(units.unit(service)),
        f"{name}.env": File(units.blank_environment(made.asked), 0o600),
        "yibu.yaml": File(made.text, 0o600),
    }
    _write(files, folder or Path("systemd"), force)
    for path in made.local:
        output.say(
            "! yibu.yaml names {here}: that machine needs it at {there}.",
            here=path.here,
            there=path.beside(config.parent),
        )
    output.say(
        "Next, on that machine: install yibu for {python} and make the user {user}; yibu.yaml goes to "
        "{config}, the variables, filled in, to {environment_file}, the unit to /etc/systemd/system; "
        "then: systemctl enable --now {name}",
        python=python,
        user=run_as,
        config=config,
        environment_file=service.environment_file,
        name=name,
    )


def compose(
    file: FileOption = None,
    folder: FolderOption = None,
    force: ForceOption = False,
    name: NameOption = "yibu",
    image: ImageOption = None,
    base: Annotated[
        str, option("What the image is made from: debian, modelscope, or an image and tag.")
    ] = "debian",
    gpus: GpusOption = None,
) -> None:
    """Write compose.yaml, a Dockerfile and what they need."""
    from yibu.export import compose as composing

    made = _deployment(Context.here(), file, name, gpus, image)
    target = folder or Path("compose")
    _write(composing.export(made, base), target, force)
    _say_gpus(made, gpus)
    output.say(
        "Next: cd {target}; put yibu's wheel into wheels/ (wheels/README says how); cp .env.example .env, "
        "fill it in; docker compose up -d --build --wait",
        target=target,
    )


def k8s(
    file: FileOption = None,
    folder: FolderOption = None,
    force: ForceOption = False,
    name: NameOption = "yibu",
    image: ImageOption = None,
    namespace: Annotated[str | None, option("The namespace of all objects.")] = None,
    gpus: GpusOption = None,
    storage: Annotated[str, option("The size of each of the two volumes.")] = "100Gi",
    storage_class: Annotated[
        str | None, option("Their storage class (the cluster's default).")
    ] = None,
    memory: Annotated[str | None, option("Main memory to ask for: 16Gi.")] = None,
    cpu: Annotated[str | None, option("Processors to ask for: 4.")] = None,
    service_monitor: Annotated[
        bool, option("An object for the Prometheus operator too.", "--service-monitor")
    ] = False,
) -> None:
    """Write Kubernetes objects as plain YAML, with a kustomization."""
    from yibu.export import kubernetes

    made = _deployment(Context.here(), file, name, gpus, image)
    cluster = kubernetes.Cluster(
        namespace=namespace, storage_class=storage_class, storage=storage, memory=memory, cpu=cpu,
        service_monitor=service_monitor,
    )  # fmt: skip
    target = folder or Path("k8s")
    _write(kubernetes.export(made, cluster), target, force)
    _say_gpus(made, gpus)
    for path in made.local:
        output.say(
            "! yibu.yaml names {here}, which no pod has: copy it into the models volume, and write its "
            "path there, /models/{name}, in yibu.yaml.",
            here=path.here,
            name=path.here.name,
        )
    output.say(
        "Next: the secret, as the head of {target}/statefulset.yaml says; kubectl apply "
        "-k {target}",
        target=target,
    )


def grafana(
    file: FileOption = None,
    folder: FolderOption = None,
    force: ForceOption = False,
) -> None:
    """Write a Grafana dashboard, alert rules for Prometheus, and its scrape configuration."""
    from yibu.export import grafana as dashboards

    target = folder or Path("grafana")
    _write(dashboards.export(_deployment(Context.here(), file, "yibu")), target, force)
    output.say(
        "Next: {target}/prometheus.yaml and alerts.yaml into Prometheus' configuration, "
        "dashboard.json into Grafana: Dashboards, New, Import",
        target=target,
    )


def _deployment(
    here: Context, file: Path | None, name: str, gpus: str | None = None, image: str | None = None
) -> ExportedDeployment:
    from yibu.config import document
    from yibu.config import file as config_file
    from yibu.export.deployment import describe, placeholders
    from yibu.management.check import check_options
    from yibu.management.entries import choose, gateway_settings

    path = here.find_file(file)
    # What this machine's YIBU_* say is this machine's, and not the file's.
    text = document.decode(config_file.content(path), str(path))
    env = {name: value for name, value in here.env.items() if not name.startswith("YIBU_")}
    config = gateway_settings(config_file.load(path, env=placeholders(text, env)))
    written = config.models
    if written:
        chosen = choose((), config, here.directory)
        check_options(chosen.models, here)
        config = replace(config, models=tuple(chosen.models))
    return describe(
        config, text, here.env, name=name, gpus=_number(gpus), image=image, written=written
    )


def _number(gpus: str | None) -> int | None:
    """The number of GPUs: -1 to detect it; None: all."""
    if gpus is None or gpus == "all":
        return -1 if gpus is None else None
    if not gpus.isdecimal() or int(gpus) > 1024:
        raise UsageError("--gpus {gpus}: a number was expected, or all.", gpus=gpus)
    return int(gpus)


def _say_gpus(made: ExportedDeployment, given: str | None) -> None:
    unknown = [
        model.name for model in made.config.models if model.engine is None and not model.gpus
    ]
    if given is None and unknown and made.gpus == 0:
        output.say(
            "! No GPU is asked for: the engine of {unknown} is found from its files. Where "
            "it needs GPUs, say how many: --gpus N",
            unknown=", ".join(unknown),
        )


def _write(files: Files, folder: Path, force: bool) -> None:
    from yibu.cli.written import write_all

    texts = {name: (file.text, file.mode) for name, file in files.items()}
    changed = write_all(folder, texts, force=force)
    for path in changed:
        output.data(str(path))
    if not changed:
        output.say("{folder} is as it would be written.", folder=folder)
