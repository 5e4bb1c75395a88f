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
from typing import Self

from yibu.config import ModelConfig
from yibu.engines.base import LaunchPlan
from yibu.engines.logs import PhaseMark
from yibu.errors import YibuError
from yibu.hub.types import LocalModel, Progress, ProgressCallback
from yibu.node.launch import phases
from yibu.node.launch.spec import Explain, LaunchSpec
from yibu.planner.ledger import Beside, emptied, reserved_host, reserved_memory
from yibu.planner.types import Machine, ModelFacts, Placement
from yibu.resolve import Prepared, Resolved
from yibu.routing import NO_DETAILS, ModelDetails

_log = logging.getLogger(__name__)

Note = Callable[[str], None]
"""Takes a line to show to the user."""


class CancelledPullError(YibuError):
    """Raised in the pulling thread by its progress callback when the model is no longer wanted."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """A model whose files are on this disk."""

    local: LocalModel | None
    """None for a command without files."""
    prepared: Prepared

    @property
    def facts(self) -> ModelFacts | None:
        return self.prepared.facts


@dataclass(frozen=True, slots=True)
class Deployer:
    """Everything that turns a model's entry into launch plans. All but ``explain`` and
    ``phase_marks`` may block: they are called in threads."""

    pull: Callable[[str, ProgressCallback], LocalModel]
    """Downloads and verifies a source; raises HubError and its subclasses."""
    read_facts: Callable[[LocalModel], ModelFacts]
    foresee: Callable[[str], ModelFacts | None]
    """Facts of a source whose files are not here, from their headers; None where they are here, and
    raises YibuError where nothing can be known before they are."""
    require: Callable[[ModelConfig, ModelFacts], None]
    """Raises EnvironmentSetupError where this machine lacks what the model's engine needs, before its
    files are fetched."""
    prepare: Callable[[ModelConfig, ModelFacts | None], Prepared]
    """Chooses the engine; raises UnsupportedError when none serves the model."""
    machine: Callable[[], Machine]
    """Measures the machine."""
    place: Callable[[Prepared, int, Machine, Beside], Resolved]
    """Places the replica of that number, beside what is reserved for others and for models that come up
    too. Fast: it is called in the event loop."""
    ensure_environment: Callable[[str, Note], Path]
    """The interpreter of an environment, made if needed; raises EnvironmentSetupError."""
    explain: Explain
    phase_marks: Callable[[str], Sequence[PhaseMark]]
    """The log lines that mark the phases of an engine's start, by the engine's name."""
    in_use: Callable[[str], AbstractContextManager[object]]
    """A context in which the files of that source are not removed from the store."""
    offline: Deployer | None = None
    """The same without a network, for models configured as offline."""

    async def get(
        self,
        config: ModelConfig,
        on_progress: ProgressCallback,
        note: Note,
        enter: Note,
        foreseen: Callable[[ModelFacts | None], None],
    ) -> Fetched:
        """Fetch the model's files, and find its engine. ``on_progress`` and ``note`` are called in
        the event loop, ``enter`` with the phase that begins, and ``foreseen`` with what is known of
        the files before they are here.

        Raises:
            YibuError: whatever a collaborator raises.
        """
        with _Telling(config, on_progress, note) as telling:
            local, facts = None, None
            if config.source:
                enter(phases.DOWNLOAD)
                await self._foresee(config, foreseen)
                local = await asyncio.to_thread(self.pull, config.source, telling.report)
                for line in local.notes:
                    note(line)
                facts = await asyncio.to_thread(self.read_facts, local)
            foreseen(facts)
            enter(phases.PLAN)
            return Fetched(local, await asyncio.to_thread(self.prepare, config, facts))

    async def spec(
        self,
        config: ModelConfig,
        fetched: Fetched,
        launch: LaunchPlan,
        placement: Placement,
        on_progress: ProgressCallback,
        note: Note,
        enter: Note,
    ) -> LaunchSpec:
        """The launch spec of a placed replica, with its environment and further files in place;
        arguments as :meth:`get`."""
        with _Telling(config, on_progress, note) as telling:
            for line in filter(None, (placement.warning, *launch.notes)):
                note(line)
            python = None
            if launch.environment is not None:
                enter(phases.ENVIRONMENT)
                python = await asyncio.to_thread(
                    self.ensure_environment, launch.environment, telling.note
                )
            if launch.extra_sources:
                enter(phases.DOWNLOAD)
            local = fetched.local
            extra = await self._pull_extra(launch, telling.report)
            if local is not None and local.projector is not None:
                extra = {"mmproj": str(local.projector), **extra}  # as llama.cpp's plan calls it
        return LaunchSpec(
            model=config.name,
            plan=launch,
            python=python,
            model_path=local.path if local else None,
            extra=extra,
            env=dict(config.env),
            gpus=placement.gpus,
            directory=config.directory,
            max_context=placement.context,
            details=_details(fetched.facts, config),
            memory=reserved_memory(placement),
            host_memory=reserved_host(placement),
        )

    def rehearse(self, fetched: Fetched) -> tuple[LaunchPlan, Placement]:
        """Where the model would run if nothing else did. Blocking.

        Raises:
            DoesNotFitError: it does not fit on this machine at all.
        """
        resolved = self.place(fetched.prepared, 0, emptied(self.machine()), Beside())
        placement, launch = resolved.runs()
        return launch, placement

    async def _foresee(
        self, config: ModelConfig, foreseen: Callable[[ModelFacts | None], None]
    ) -> None:
        """Report the model's facts before its files are here."""
        try:
            facts = await asyncio.to_thread(self.foresee, config.source)
        except YibuError as error:
            _log.info("%s: not known before it is here: %s", config.name, error)
            foreseen(None)
        else:
            if facts is not None:
                foreseen(facts)
                await asyncio.to_thread(self.require, config, facts)

    async def _pull_extra(self, plan: LaunchPlan, report: ProgressCallback) -> Mapping[str, str]:
        extra = {}
        for name, source in plan.extra_sources.items():
            local = await asyncio.to_thread(self.pull, source, report)
            extra[name] = str(local.path)
        return extra


class _Telling:
    """Passes messages from threads to the event loop, for as long as somebody listens."""

    def __init__(self, config: ModelConfig, on_progress: ProgressCallback, note: Note) -> None:
        self._name = config.name
        self._on_progress, self._note = on_progress, note
        self._loop = asyncio.get_running_loop()
        self._abandoned = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._abandoned.set()

    def report(self, progress: Progress) -> None:
        if self._abandoned.is_set():
            raise CancelledPullError("{name} is not wanted any more", name=self._name)
        self._loop.call_soon_threadsafe(self._on_progress, progress)

    def note(self, text: str) -> None:
        if not self._abandoned.is_set():
            self._loop.call_soon_threadsafe(self._note, text)


def _details(facts: ModelFacts | None, config: ModelConfig) -> ModelDetails:
    if facts is None:
        return NO_DETAILS
    own_template = facts.chat_template and "chat_template" not in config.options
    return ModelDetails(
        format=facts.format,
        architecture=facts.architecture,
        parameters=facts.parameters,
        quantization=facts.quantization or facts.dtype,
        size=facts.weight_bytes,
        trained_context=facts.max_context,
        takes_tools=facts.template_takes_tools,
        thinks=facts.template_thinks if own_template else None,
    )
