"""The flags that a user gave for vLLM, checked before anything is started.

vLLM itself looks at them after ten seconds of imports, one by one, and buries what it says under
its usage. Names, numbers of values and values that come from a list are checked here against what
its own parser has; what only vLLM can judge is left to it.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import MappingProxyType

from yibu.config import ModelConfig
from yibu.engines.checks import check_values, unknown
from yibu.engines.flags import Flag, FlagTable, spelt
from yibu.engines.servers import refuse_owned
from yibu.engines.vllm.server import OPTIONS, SERVER
from yibu.engines.vllm.translations import TRANSLATIONS
from yibu.errors import ConfigError
from yibu.messages import tr

# The planner has read these, and its placement says what became of them.
_PLANNED = frozenset({"max_model_len", "max_num_seqs", "tensor_parallel_size", *OPTIONS})
_PLUGINS = MappingProxyType(
    {"reasoning_parser": "reasoning_parser_plugin", "tool_call_parser": "tool_parser_plugin"}
)
"""Lists of values that another flag adds to."""
TITLE = "vLLM"
_OPTIONAL = frozenset({"hf_token"})
"""Flags that may stand without their value."""


def checked(
    model: ModelConfig, flags: Iterable[Flag], table: FlagTable, notes: list[str]
) -> Iterable[Flag]:
    """The user's flags without those that were planned, old ones translated.

    Raises:
        ConfigError: one is unknown, is not the engine's here, or has a value that it cannot have.
    """
    flags = list(flags)
    given = {flag.name for flag in flags}
    for flag in flags:
        name = flag.name
        if name in _PLANNED:
            continue
        _refuse(model, name, flag)
        if name in table.flags:
            if _PLUGINS.get(name) not in given:
                check_values(model, flag, table, TITLE, optional=_OPTIONAL)
            yield flag
        elif (old := TRANSLATIONS.get(name)) is not None:
            notes.append(f"{spelt(name)}: {old.note}")
            words = old.words(flag.values)
            if words:
                yield from table.read(words)
        else:
            raise unknown(model, name, table, TITLE, others=TRANSLATIONS)


def _refuse(model: ModelConfig, name: str, flag: Flag) -> None:
    """What is not the engine's to be told, here."""
    refuse_owned(SERVER, model.name, name)
    who = f"model {model.name!r}: {spelt(name)}"
    if name == "hf_token" and flag.values:
        raise ConfigError(
            tr(
                "{who} would stand on the engine's command line, where every user of the "
                "machine can read it",
                who=who,
            ),
            hint=tr("set HF_TOKEN in the environment of yibu, which fetches the model itself"),
        )
    if name == "help":
        raise ConfigError(
            tr("{who} would have the engine print its flags and end", who=who),
            hint=tr("they are listed at https://docs.vllm.ai/en/stable/cli/serve.html"),
        )
