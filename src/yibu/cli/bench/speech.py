"""What ``yibu bench`` runs: the speech engine's own measurement, in the engine's environment."""

from __future__ import annotations

from yibu.cli.progress import installing, pulling
from yibu.config import ModelConfig
from yibu.engines.speech import Speech
from yibu.hub.source import parse_source
from yibu.management.context import Context, open_environments, open_store
from yibu.management.entries import choose
from yibu.planner.facts import read_facts
from yibu.planner.types import MemoryNeed, Placement


def bench_command(context: Context, model: str) -> list[str]:
    """The command line, with the model (a name of ./yibu.yaml or the catalogue, a source, a path)
    and its VAD on disk and the environment made.

    Raises:
        UnsupportedError: it is no speech model.
    """
    store = open_store(context)
    [named] = choose([model], context.load(), context.directory).models
    with pulling(model) as progress:
        local = store.pull(parse_source(named.source), progress=progress)
    # Of the entry's options only the VAD: precisions are what is measured, on the fast path.
    vad = {"vad": named.options["vad"]} if "vad" in named.options else {}
    config = ModelConfig(name="bench", source=named.source, engine="speech", options=vad)
    nowhere = Placement(gpus=(), threads=1, context=None, parallel=1, need=MemoryNeed(0, 0, 0))
    plan = Speech().plan(config, read_facts(local.path), nowhere)
    command = ["-P", "-m", "yibu.speech.bench", "--model", str(local.path)]
    for name, text in plan.extra_sources.items():
        with pulling(text) as progress:
            extra = store.pull(parse_source(text), progress=progress)
        command += [f"--{name}", str(extra.path)]
    assert plan.environment is not None
    report = installing(plan.environment)
    interpreter = open_environments(context).ensure(plan.environment, progress=report)
    return [str(interpreter), *command]
