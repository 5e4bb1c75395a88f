"""Which quantization of a GGUF repository to take on this machine, where the user named none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from yibu.config import ModelConfig
from yibu.errors import DoesNotFitError
from yibu.hub.headers import HeaderChooser, RemoteHeaders
from yibu.hub.quantization import Choice, Variant, listed
from yibu.planner.headers import gguf_facts
from yibu.planner.types import Machine
from yibu.resolve.resolver import Resolver


def by_plan(resolver: Resolver, machine: Callable[[], Machine]) -> HeaderChooser:
    """Takes the most usual quantization that fits by the plan; ``machine`` is asked when needed."""

    def choose(found: Sequence[Variant], headers: RemoteHeaders) -> Choice:
        """Raises DoesNotFitError when none fits."""
        # One header tells of all: they differ in the bytes of their weights alone.
        facts = gguf_facts(str(headers.source), headers, found[0].files)
        model = ModelConfig(name=headers.source.name)
        here = machine()
        prepared = resolver.prepare(model, facts, here)
        reasons: list[str] = []
        for variant in found:
            weights = variant.size or facts.weight_bytes
            this = replace(facts, weight_bytes=weights + facts.projector_bytes)
            request = replace(prepared.request, facts=this)
            verdict = resolver.place(
                replace(prepared, facts=this, request=request), 0, here
            ).verdict
            if verdict.placement is not None:
                first = "the usual one, and it fits here"
                return Choice(variant, f"for {reasons[0]}" if reasons else first)
            reasons.append(f"{variant.tag} does not fit here: {' '.join(verdict.reasons)}")
        raise DoesNotFitError(
            f"{headers.source}: none of its quantizations fits on this machine; {reasons[0]}",
            hint=f"It has {listed(found)}; name one to take it all the same, such as "
            f"{headers.source}:{min(found, key=lambda variant: variant.size).tag}, and --force to "
            "start it.",
        )

    return choose
