"""The flags that a user gave for vLLM, checked before anything is started.

vLLM itself looks at them after ten seconds of imports, one by one, and buries what it says under
its usage. Names, numbers of values and values that come from a list are checked here against what
its own parser has; what only vLLM can judge is left to it.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import MappingProxyType

from yibu.config import ModelConfig
from yibu.engines.flags import Flag, FlagTable, spelt
from yibu.engines.options import nearest
from yibu.engines.servers import refuse_owned
from yibu.engines.vllm.server import OPTIONS, SERVER
from yibu.engines.vllm.translations import TRANSLATIONS
from yibu.errors import ConfigError

# The planner has read these, and its placement says what became of them.
_PLANNED = frozenset({"max_model_len", "max_num_seqs", "tensor_parallel_size", *OPTIONS})
_PLUGINS = MappingProxyType(
    {"reasoning_parser": "reasoning_parser_plugin", "tool_call_parser": "tool_parser_plugin"}
)
"""Lists of values that another flag adds to."""
_LIKENESS = 0.6


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
                _check_values(model, name, flag, table)
            yield flag
        elif (old := TRANSLATIONS.get(name)) is not None:
            notes.append(f"{spelt(name)}: {old.note}")
            words = old.words(flag.values)
            if words:
                yield from table.read(words)
        else:
            raise _unknown(model, name, table)


def _refuse(model: ModelConfig, name: str, flag: Flag) -> None:
    """What is not the engine's to be told, here."""
    refuse_owned(SERVER, model.name, name)
    who = f"model {model.name!r}: {spelt(name)}"
    if name == "hf_token" and flag.values:
        raise ConfigError(
            f"{who} would stand on the engine's command line, where every user of the machine can"
            " read it",
            hint="set HF_TOKEN in the environment of yibu, which fetches the model itself",
        )
    if name == "help":
        raise ConfigError(
            f"{who} would have the engine print its flags and end",
            hint="they are listed at https://docs.vllm.ai/en/stable/cli/serve.html",
        )


def _unknown(model: ModelConfig, name: str, table: FlagTable) -> ConfigError:
    near = nearest(name, [*table.flags, *TRANSLATIONS], cutoff=_LIKENESS)
    return ConfigError(
        f"model {model.name!r}: vLLM {table.version} has no flag {spelt(name)}",
        hint=f"did you mean {spelt(near)}?"
        if near
        else "its flags are listed at https://docs.vllm.ai/en/stable/cli/serve.html",
    )


def _plainly(value: str) -> str:
    """Some of vLLM's lists are compared without regard to case and hyphens: which, it alone knows."""
    return value.lower().replace("-", "_")


def _check_values(model: ModelConfig, name: str, flag: Flag, table: FlagTable) -> None:
    """Raise ConfigError unless the flag has as many values as it takes, of those it takes."""
    kind, values, who = table.flags[name], flag.values, f"model {model.name!r}: {flag.words[0]}"
    if kind == "switch" and values:
        raise ConfigError(
            f"{who} takes no value, found {' '.join(values)!r}",
            hint=f"write {spelt(name)} alone, or --no-{spelt(name)[2:]} to turn it off",
        )
    if kind != "switch" and name != "hf_token" and not values:
        raise ConfigError(f"{who} lacks its value", hint=f"write {spelt(name)} VALUE")
    if kind in ("value", "repeat") and len(values) > 1:
        raise ConfigError(
            f"{who} takes one value, found {len(values)}: {' '.join(values)}",
            hint="quote a value that has spaces",
        )
    choices = table.choices.get(name, ())
    known = {_plainly(choice) for choice in (*choices, "None", "")}
    for value in values if choices and not flag.key else ():
        if _plainly(value) not in known:
            near = nearest(value, choices, cutoff=_LIKENESS)
            raise ConfigError(
                f"model {model.name!r}: {spelt(name)} cannot be {value!r} in vLLM {table.version}; "
                f"it is one of {', '.join(choices)}",
                hint=f"did you mean {near}?" if near else "choose one of these",
            )
