"""An engine with the flags of the version that is installed, where that is not the pinned one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from yibu.engines.base import Engine


def with_installed_flags(
    engine: Engine, ask: Callable[[str, str], Mapping[str, Any] | None], *, gpu: bool
) -> Engine:
    """The engine as it will run on a machine with GPUs to use, or without.

    Args:
        ask: An environment and the module that prints its engine's flags → what it prints; None for
            the pinned version.
    """
    name = engine.environment(gpu=gpu)
    if engine.flags_module is None or name is None:
        return engine
    plain = ask(name, engine.flags_module)
    return engine if plain is None else engine.with_flags(plain)
