"""The node's deployer: the store, the engines and their environments on this machine."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from yibu.engines import registry
from yibu.engines.causes import Explanation, explain
from yibu.environments.progress import EnvironmentProgress
from yibu.errors import HubAuthError, HubNotFoundError
from yibu.hub.settings import OFFLINE_VARIABLE
from yibu.hub.source import parse_source
from yibu.hub.types import LocalModel, ProgressCallback
from yibu.management.context import Context, open_environments, open_store
from yibu.messages import tr
from yibu.node.fleet.deploy import Deployer, Note
from yibu.planner.facts import read_facts
from yibu.planner.types import ModelFacts
from yibu.resolve import Resolver, known_facts


def deployer(context: Context) -> Deployer:
    """What turns a model's entry into a launch plan on this machine, with a network or without."""
    offline = _deployer(context.with_env(**{OFFLINE_VARIABLE: "1"}))
    return dataclasses.replace(_deployer(context), offline=offline)


def _deployer(context: Context) -> Deployer:
    environments, store = open_environments(context), open_store(context)
    resolver, machine = Resolver(environments), context.machine

    def foresee(source: str) -> ModelFacts | None:
        here = store.find(parse_source(source)) is not None
        return None if here else known_facts(source, store)[0]

    def pull(source: str, progress: ProgressCallback) -> LocalModel:
        """What is here whole is served, also where its hub has it no longer, or for others only."""
        wanted = parse_source(source)
        try:
            return store.pull(wanted, progress=progress)
        except (HubNotFoundError, HubAuthError) as error:
            if (here := store.find(wanted)) is None:
                raise
            note = tr("{error} What is here already is used.", error=error.message)
            return dataclasses.replace(here, notes=(note,))

    return Deployer(
        pull=pull,
        read_facts=lambda local: read_facts(local.path, local.projector),
        foresee=foresee,
        require=lambda model, facts: resolver.require_libraries(model, facts, machine()),
        prepare=lambda model, facts: resolver.prepare(model, facts, machine(), install=True),
        machine=machine,
        place=resolver.place,
        ensure_environment=lambda name, note: environments.ensure(name, progress=_phases(note)),
        explain=_explain,
        phase_marks=lambda engine: registry.by_name(engine).phases,
        in_use=lambda source: store.lease(parse_source(source)),
    )


def _phases(note: Note) -> Callable[[EnvironmentProgress], None]:
    """Turns an environment's progress into one note a phase."""
    told: set[str] = set()

    def report(progress: EnvironmentProgress) -> None:
        if progress.phase not in told and progress.phase not in ("waiting", "done"):
            told.add(progress.phase)
            note(
                tr(
                    "environment {environment}: {phase}",
                    environment=progress.environment,
                    phase=tr(progress.phase),
                )
            )

    return report


def _explain(engine: str, log_text: str, *, exit_code: int | None, oom_killed: bool) -> Explanation:
    causes = registry.by_name(engine).causes
    return explain(log_text, causes, exit_code=exit_code, oom_killed=oom_killed)
