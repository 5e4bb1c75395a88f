"""Resolves an entry to what its replicas run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from yibu.config import ModelConfig
from yibu.config.names import first_generation, replica_id
from yibu.engines import registry
from yibu.engines.base import Engine, LaunchPlan, RunsPrograms
from yibu.environments.flag_tables import chosen_flags, kept_flags
from yibu.environments.manager import EnvironmentManager
from yibu.environments.programs import ask, built_programs
from yibu.errors import DoesNotFitError, YibuError
from yibu.messages import joined, tr
from yibu.planner.ledger import (
    Beside,
    Coming,
    Reservation,
    explain_missing,
    less_reserved,
    reserved_host,
    reserved_memory,
)
from yibu.planner.plan import may_use_gpus, place_anyway, place_beside
from yibu.planner.request import Request
from yibu.planner.types import Machine, ModelFacts, ModelPlan, Placement

_NOBODY = Beside()


@dataclass(frozen=True, slots=True)
class Prepared:
    """An entry with its engine and the engine's request to the planner."""

    model: ModelConfig
    facts: ModelFacts | None
    """None where it has no files, or they cannot be read yet."""
    engine: Engine
    request: Request


@dataclass(frozen=True, slots=True)
class Resolved:
    """What one replica runs, or why it does not fit."""

    prepared: Prepared
    verdict: ModelPlan
    """Of this replica and those after it."""
    placement: Placement | None
    launch: LaunchPlan | None
    """It names the environment. None where there is no room."""
    reserved: tuple[Reservation, ...] = ()
    """What was kept free for others."""

    def runs(self) -> tuple[Placement, LaunchPlan]:
        """The placement and the command.

        Raises:
            DoesNotFitError: there is no room, or it cannot be told whether there is.
        """
        if self.placement is None or self.launch is None:
            raise self._refusal()
        return self.placement, self.launch

    def _refusal(self) -> DoesNotFitError:
        name, verdict = self.prepared.model.name, self.verdict
        reasons = joined("; ", verdict.reasons)
        if verdict.verdict == "cannot_tell":
            return DoesNotFitError(
                "{name}: {text}", name=name, text=reasons, hint=_advice(verdict.suggestions)
            )
        text = tr("{name} does not fit on this machine: {reasons}", name=name, reasons=reasons)
        if kept := explain_missing(self.reserved):
            text = tr("{text}; planned, not used yet: {kept}", text=text, kept=kept)
        return DoesNotFitError(
            text,
            hint=_advice((*verdict.suggestions, tr("Or start it all the same: yibu up --force"))),
        )


def _advice(suggestions: Sequence[str]) -> str:
    return tr("Try: {suggestions}", suggestions=joined("; ", suggestions)) if suggestions else ""


class Resolver:
    """Resolves entries with the engines installed here."""

    def __init__(self, environments: EnvironmentManager) -> None:
        self._environments = environments

    def prepare(
        self,
        model: ModelConfig,
        facts: ModelFacts | None,
        machine: Machine,
        *,
        install: bool = False,
    ) -> Prepared:
        """Choose the engine, and read the entry's options and flags with it.

        Args:
            install: Make the environment whose engine has to be asked for its flags; else only what it
                said before counts.

        Raises:
            UnsupportedError: no engine serves the model.
            ConfigError: an option or a flag cannot be used.
            EnvironmentSetupError: a program or an environment cannot be used.
        """
        engine = registry.choose(model, facts)
        engine = self.as_installed(engine, model, facts, machine, install=install)
        return Prepared(model, facts, engine, engine.request(model, facts))

    def as_installed(
        self,
        engine: Engine,
        model: ModelConfig,
        facts: ModelFacts | None,
        machine: Machine,
        *,
        install: bool = False,
    ) -> Engine:
        """The engine with the program that the entry names or that was built here, and with the flags of
        the version that is installed; as :meth:`prepare`."""
        if isinstance(engine, RunsPrograms):
            programs = built_programs(self._environments)
            engine = engine.with_program(model, self._ask, programs)
        if not engine.flags_by_version:
            return engine
        name = engine.environment(model, facts, gpu=may_use_gpus(model.gpus, machine))
        if name is None:
            return engine
        if install:
            plain = chosen_flags(self._environments, name, engine.name)
        else:
            plain = kept_flags(self._environments, name)
        return engine if plain is None else engine.with_flags(plain)

    def place(
        self, prepared: Prepared, number: int, machine: Machine, beside: Beside = _NOBODY
    ) -> Resolved:
        """Find room for the replica of that number, and make its command.

        Raises:
            UnsupportedError, ConfigError: the engine refuses the entry.
        """
        model, request = prepared.model, prepared.request
        reserved = (*beside.starting, *beside.held)
        here = less_reserved(machine, reserved)
        if request.accelerator is None or not request.accelerator.gpus:
            # Of other devices nobody tells what the first replicas have taken: each has its share.
            request = replace(request, replicas=model.replicas - number)
        coming = [found for one in beside.coming if (found := self._request(one, machine))]
        verdict, placement = place_beside(request, coming, here, beside.on_cpu)
        own = {replica_id(model.name, n) for n in range(number)}
        # Where others still start on GPUs, what they leave is waited for first.
        alone = all(first_generation(p.replica) in own or not p.gpus for p in beside.starting)
        if placement is None and model.force and alone:
            placement = _forced(model, request, verdict, here)
        launch = None
        if placement is not None:
            launch = prepared.engine.plan(model, prepared.facts, placement)
        return Resolved(prepared, verdict, placement, launch, reserved)

    def place_all(
        self, entries: Sequence[Prepared], machine: Machine, held: Sequence[Reservation] = ()
    ) -> list[Resolved]:
        """What `yibu up` would do with all of these at once, one after the other: the first replica of each,
        or the first of its replicas for which there is no room.

        Args:
            held: What is reserved for engines that run here.
        """
        reservations: tuple[Reservation, ...] = ()
        found = []
        for position, prepared in enumerate(entries):
            coming = tuple(Coming(one.model, one.facts) for one in entries[position + 1 :])
            beside = Beside(reservations, tuple(held), coming)
            each: list[Resolved] = []
            for number in range(prepared.model.replicas):
                beside = replace(beside, starting=reservations + _reservations(each))
                each.append(self.place(prepared, number, machine, beside))
                if each[-1].placement is None:
                    break
            else:
                reservations += _reservations(each)
                each = each[:1]
            found.append(each[-1])
        return found

    def check(self, prepared: Prepared, machine: Machine) -> None:
        """Raise YibuError for whatever :meth:`place` would refuse, except for want of memory."""
        prepared.engine.check(prepared.model)
        if prepared.facts is None and prepared.model.source:
            return
        resolved = self.place(prepared, 0, machine)
        if resolved.placement is None:
            anyway = place_anyway(prepared.request, machine)
            if anyway is not None:
                prepared.engine.plan(prepared.model, prepared.facts, anyway)

    def require_libraries(
        self, model: ModelConfig, facts: ModelFacts | None, machine: Machine
    ) -> None:
        """Raise EnvironmentSetupError where the system lacks a shared library that the model's engine needs,
        before gigabytes are fetched for it."""
        try:
            prepared = self.prepare(model, facts, machine)
            launch = self.place(prepared, 0, machine).launch
        except YibuError:
            return  # its own deployment will say so
        if launch is not None and launch.environment is not None:
            self._environments.require_libraries(launch.environment)

    def _request(self, coming: Coming, machine: Machine) -> Request | None:
        """What a model that still comes up will ask of the planner; None where nothing is known of its
        files yet, or something is wrong with it, which its own deployment will say."""
        if coming.request is not None:
            return coming.request
        if coming.config.source and coming.facts is None:
            return None
        try:
            return self.prepare(coming.config, coming.facts, machine).request
        except YibuError:
            return None

    def _ask(self, path: Path, words: Sequence[str], more: Mapping[str, str]) -> str:
        return ask(path, words, {**self._environments.env, **more})


def _forced(
    model: ModelConfig, request: Request, verdict: ModelPlan, machine: Machine
) -> Placement | None:
    """A placement despite the plan's refusal; None where more memory would not help."""
    placement = place_anyway(request, machine)
    if placement is None:
        return None
    why = " ".join(verdict.reasons)
    warning = (
        tr("{model} may not fit, and is started by force: {why}", model=model.name, why=why)
        if verdict.verdict == "cannot_tell"
        else tr("{model} does not fit, and is started by force: {why}", model=model.name, why=why)
    )
    return replace(placement, warning=warning)


def _reservations(replicas: Sequence[Resolved]) -> tuple[Reservation, ...]:
    return tuple(
        Reservation(
            replica_id(one.prepared.model.name, number),
            one.placement.gpus,
            reserved_memory(one.placement),
            host=reserved_host(one.placement),
        )
        for number, one in enumerate(replicas)
        if one.placement is not None
    )
