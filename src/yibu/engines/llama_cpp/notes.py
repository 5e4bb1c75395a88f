"""Notes for the user on a model that will not run as its entry or name suggests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from yibu.engines.llama_cpp.settings import NO_GPU
from yibu.messages import tr
from yibu.planner.types import ModelFacts, Placement

_GPU_FIELDS = ("gpus", "gpu_layers", "main_gpu", "split_mode", "tensor_split", *sorted(NO_GPU))
_NO_GPU: tuple[object, ...] = (None, 0, (), [], "none", "0")
"""Values of these fields that ask for no GPU."""


def without_gpu(asked: Mapping[str, Any], placement: Placement) -> Iterator[str]:
    """A note where the entry asks for a GPU, by any of its fields, and the CPU runs all of it."""
    found = [field for field in _GPU_FIELDS if asked.get(field) not in _NO_GPU]
    if found and not placement.gpus:
        yield (
            tr(
                "{found}: without effect, because yibu's build of llama.cpp has no GPU support; "
                "every layer runs on the CPU. On a GPU: yibu engine install llama.cpp --build cuda "
                "(or vulkan), or options.program: /path/to/llama-server",
                found=", ".join(found),
            )
        )


def without_template(facts: ModelFacts, *, chats: bool, template: str | None) -> Iterator[str]:
    """A note where chat would be answered through a template the model was not trained with."""
    if chats and not facts.chat_template and template is None:
        yield (
            tr(
                "the file has no chat template, so this is probably a base model: it continues "
                "text (/v1/completions), and its answers to chat are likely to be nonsense. Take "
                "an instruct or chat version of it, or name a template: options.chat_template"
            )
        )
