"""The work of ``yibu plan``: each model's facts, from disk or its hub's headers, and its plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from yibu.config import ModelConfig
from yibu.config.names import generation_of
from yibu.engines.base import LaunchPlan
from yibu.hub.store import Store
from yibu.management.context import Context, open_resolver, open_store
from yibu.messages import tr
from yibu.planner.explain import Row, explain, explain_machine, facts_data
from yibu.planner.ledger import Reservation, as_if_stopped, less_reserved
from yibu.planner.machine_file import BUILT_IN, load_machine
from yibu.planner.plan import plan
from yibu.planner.request import Request
from yibu.planner.types import Machine, ModelFacts, ModelPlan, Offload
from yibu.resolve import Resolver, known_facts


@dataclass(frozen=True, slots=True)
class Planned:
    """One model's plan, and its explanation row by row."""

    model: ModelConfig
    plan: ModelPlan
    rows: Sequence[Row]
    launch: LaunchPlan | None = None
    """The launch plan; None when it does not fit."""
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
    """Bytes of a GGUF model by device."""
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
    resolver: Resolver,
    held: Sequence[Reservation] = (),
) -> list[Planned]:
    """Plan the models as the node would place them, beside what engines here were ``held``.

    Raises:
        YibuError: a model cannot be found, read or served at all.
    """
    prepared, chosen = [], []
    for model in models:
        facts, choice = known_facts(model.source, store)
        chosen.append(choice)
        prepared.append(resolver.prepare(model, facts, machine))
    planned = []
    for found, choice in zip(resolver.place_all(prepared, machine, held), chosen, strict=True):
        launch, request = found.launch, found.prepared.request
        notes = [
            Row(tr("note"), note, kind="note")
            for note in (*choice, *(launch.notes if launch else ()))
        ]
        advised = _with_machine(request, found.verdict, less_reserved(machine, held))
        rows = [*explain(request, advised), *notes]
        planned.append(Planned(found.prepared.model, advised, rows, launch, request.facts))
    return planned


def plan_beside(
    models: Sequence[ModelConfig],
    context: Context,
    running: Sequence[Reservation],
    machine: str | None,
    *,
    offline: bool = False,
) -> tuple[list[Row], list[str], list[Planned]]:
    """Plan the models for this machine beside what runs, or for another ``machine`` that is empty: rows
    about the machine, notes, and the plans.

    What the models' own replicas hold counts as free: they would be stopped.

    Raises:
        YibuError: a model cannot be found, read or served at all, or there is no such machine.
    """
    if machine:
        running = ()
    target = load_machine(machine) if machine else context.machine()
    own = [p for p in running if any(generation_of(p.replica, model.name) for model in models)]
    others = [reservation for reservation in running if reservation not in own]
    notes = []
    if own:
        names = ", ".join(reservation.replica for reservation in own)
        notes.append(tr("{names} runs: planned as if it were stopped", names=names))
    target = as_if_stopped(target, own)
    store = open_store(context, offline=offline, machine=less_reserved(target, others))
    planned = plan_models(models, store, target, open_resolver(context), others)
    return list(explain_machine(target, others)), notes, planned


def _with_machine(request: Request, verdict: ModelPlan, machine: Machine) -> ModelPlan:
    """With the smallest of the machines known by name that holds what this one alone does not."""
    anywhere = replace(request, gpus=None, memory=None, memory_share=None, replicas=1)

    def fits(there: Machine) -> bool:
        return plan([anywhere], there)[0].verdict != "does_not_fit"

    if verdict.verdict != "does_not_fit" or fits(machine):
        return verdict
    for name, other in BUILT_IN.items():
        if (other.gpus or not machine.gpus) and fits(other):
            said = tr("a machine such as {name} holds it: `yibu plan --machine {name}`", name=name)
            return replace(verdict, suggestions=(*verdict.suggestions, said))
    return verdict
