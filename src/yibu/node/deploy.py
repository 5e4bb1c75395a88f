"""From one entry of yibu.yaml to what its replicas run: the pipeline before any process exists.

The collaborators are handed in as callables, so that this package needs no hub, no hardware and no
uv, and its tests neither.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from yibu.config import ModelConfig
from yibu.engines.base import LaunchPlan, PhaseMark
from yibu.errors import YibuError
from yibu.hub.types import LocalModel, Progress, ProgressCallback
from yibu.node import phases
from yibu.node.launch import Explain, LaunchSpec
from yibu.node.ledger import Ledger
from yibu.planner.ledger import Beside, promised_host, promised_memory
from yibu.planner.types import ModelFacts, Placement
from yibu.resolve import Prepared, Resolved
from yibu.routing import NO_DETAILS, ModelDetails

_log = logging.getLogger(__name__)

Note = Callable[[str], None]
"""Takes a line worth telling the user."""


class CancelledPullError(YibuError):
    """Raised inside the pulling thread, by its progress callback, when the model is not wanted
    any more."""


@dataclass(frozen=True, slots=True)
class Deployer:
    """Everything that turns a model's entry into launch plans. All but ``explain`` and
    ``phase_marks`` may block: they are called in threads."""

    pull: Callable[[str, ProgressCallback], LocalModel]
    """A source to verified files; raises HubError and its children."""
    read_facts: Callable[[LocalModel], ModelFacts]
    foresee: Callable[[str], ModelFacts | None]
    """Facts of a source whose files are not here, from their headers; None where they are here, and
    raises YibuError where nothing can be known before they are."""
    require: Callable[[ModelConfig, ModelFacts], None]
    """Raises EnvironmentSetupError where this machine lacks what the model's engine needs, before its
    files are fetched."""
    prepare: Callable[[ModelConfig, ModelFacts | None], Prepared]
    """Chooses the engine; raises UnsupportedError when none serves the model."""
    place: Callable[[Prepared, int, Beside], Resolved]
    """The replica of that number, beside what is promised to others and what comes up too."""
    ensure_environment: Callable[[str, Note], Path]
    """An environment's name to its interpreter; raises EnvironmentSetupError."""
    explain: Explain
    phase_marks: Callable[[str], Sequence[PhaseMark]]
    """An engine's name to the lines with which the phases of its start begin."""
    in_use: Callable[[str], AbstractContextManager[object]]
    """While it is open, the files of that source are not removed from the store."""
    offline: Deployer | None = None
    """The same without a network, for models that ask for it."""

    async def deploy(
        self,
        config: ModelConfig,
        on_progress: ProgressCallback,
        note: Note,
        enter: Note = lambda _phase: None,
        ledger: Ledger | None = None,
    ) -> list[LaunchSpec]:
        """What each replica runs. ``on_progress`` and ``note`` are called in the event loop, and
        ``enter`` with the phase that begins. ``ledger`` has what is promised to other models.

        Raises:
            YibuError: whatever a collaborator raises.
        """
        if config.offline and self.offline is not None:
            return await self.offline.deploy(config, on_progress, note, enter, ledger)
        loop = asyncio.get_running_loop()
        abandoned = threading.Event()

        def report(progress: Progress) -> None:
            if abandoned.is_set():
                raise CancelledPullError(f"{config.name} is not wanted any more")
            loop.call_soon_threadsafe(on_progress, progress)

        def tell(text: str) -> None:
            if not abandoned.is_set():
                loop.call_soon_threadsafe(note, text)

        try:
            return await self._deploy(config, report, tell, enter, ledger or Ledger())
        finally:
            abandoned.set()

    async def _deploy(
        self,
        config: ModelConfig,
        report: ProgressCallback,
        tell: Note,
        enter: Note,
        ledger: Ledger,
    ) -> list[LaunchSpec]:
        local, facts = None, None
        if config.source:
            enter(phases.DOWNLOAD)
            await self._foresee(config, ledger)
            local = await asyncio.to_thread(self.pull, config.source, report)
            for line in local.notes:
                tell(line)
            facts = await asyncio.to_thread(self.read_facts, local)
        ledger.foresee(config.name, facts)
        enter(phases.PLAN)
        prepared = await asyncio.to_thread(self.prepare, config, facts)
        plans: dict[int, LaunchPlan] = {}

        async def attempt(number: int, beside: Beside) -> Placement:
            resolved = await asyncio.to_thread(self.place, prepared, number, beside)
            placement, plans[number] = resolved.runs()
            return placement

        def waits(for_whom: list[str]) -> None:
            enter(phases.WAIT)
            tell(
                f"waits for memory that is promised to {', '.join(for_whom)}, until it has started"
            )

        placements = await ledger.place(config.name, config.replicas, attempt, waits)
        placed = [(plans[number], placement) for number, placement in enumerate(placements)]
        plan, first = placed[0]
        for line in filter(None, (first.warning, *plan.notes)):
            tell(line)
        python = None
        if plan.environment is not None:
            enter(phases.ENVIRONMENT)
            python = await asyncio.to_thread(self.ensure_environment, plan.environment, tell)
        if plan.extra_sources:
            enter(phases.DOWNLOAD)
        extra = {**_projector(local), **await self._pull_extra(plan, report)}
        return [
            LaunchSpec(
                model=config.name,
                plan=each,
                python=python,
                model_path=local.path if local else None,
                extra=extra,
                env=dict(config.env),
                gpus=placement.gpus,
                directory=config.directory,
                max_context=placement.context,
                details=_details(facts),
                memory=promised_memory(placement),
                host_memory=promised_host(placement),
            )
            for each, placement in placed
        ]

    async def _foresee(self, config: ModelConfig, ledger: Ledger) -> None:
        """Tell the others that come up what this model will need, before its files are here."""
        try:
            facts = await asyncio.to_thread(self.foresee, config.source)
        except YibuError as error:
            _log.info("%s: not known before it is here: %s", config.name, error)
            ledger.foresee(config.name, None)
        else:
            if facts is not None:
                ledger.foresee(config.name, facts)
                await asyncio.to_thread(self.require, config, facts)

    async def _pull_extra(self, plan: LaunchPlan, report: ProgressCallback) -> Mapping[str, str]:
        extra = {}
        for name, source in plan.extra_sources.items():
            local = await asyncio.to_thread(self.pull, source, report)
            extra[name] = str(local.path)
        return extra


def _projector(local: LocalModel | None) -> dict[str, str]:
    """The path that ``{mmproj}`` stands for in llama.cpp's launch plan."""
    found = local.projector if local is not None else None
    return {} if found is None else {"mmproj": str(found)}


def _details(facts: ModelFacts | None) -> ModelDetails:
    if facts is None:
        return NO_DETAILS
    return ModelDetails(
        format=facts.format,
        architecture=facts.architecture,
        parameters=facts.parameters,
        quantization=facts.quantization or facts.dtype,
        size=facts.weight_bytes,
        trained_context=facts.max_context,
        takes_tools=facts.template_takes_tools,
    )
