"""Which quantization of a GGUF repository to take on this machine, where the user named none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from yibu.config import ModelConfig
from yibu.errors import DoesNotFitError
from yibu.hub.headers import HeaderChooser, RemoteHeaders
from yibu.hub.quantization import QuantizationChoice, Variant, listed
from yibu.messages import tr
from yibu.planner.headers import gguf_facts
from yibu.planner.types import Machine
from yibu.resolve.resolver import Resolver


def by_plan(resolver: Resolver, machine: Callable[[], Machine]) -> HeaderChooser:
    """Takes the most usual quantization that fits by the plan; ``machine`` is asked when needed."""

    def choose(found: Sequence[Variant], headers: RemoteHeaders) -> QuantizationChoice:
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
                first = tr("the usual one, and it fits here")
                return QuantizationChoice(
                    variant, tr("for {reasons}", reasons=reasons[0]) if reasons else first
                )
            reasons.append(
                tr(
                    "{tag} does not fit here: {reasons}",
                    tag=variant.tag,
                    reasons=" ".join(verdict.reasons),
                )
            )
        raise DoesNotFitError(
            "{headers_source}: none of its quantizations fits on this machine; {reasons}",
            headers_source=headers.source,
            reasons=reasons[0],
            found=listed(found),
            tag=min(found, key=lambda variant: variant.size).tag,
            hint="It has {found}; name one to take it all the same, such as "
            "{headers_source}:{tag}, and --force to start it",
        )

    return choose
