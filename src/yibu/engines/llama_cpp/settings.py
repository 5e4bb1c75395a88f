"""llama-server's flags as options of yibu's and fields of ``common_params``, for the packaged build.

That build has no command line: the launcher sets fields. A flag that no field does is refused by its
name; the user's own llama-server takes it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from yibu.config import ModelConfig
from yibu.engines.checks import check_count
from yibu.engines.flags import Flag, spelt, text_of
from yibu.engines.llama_cpp.server import SERVER
from yibu.engines.llama_cpp.table import ASSIGNED, FIELD_OPTIONS, FIELDS, NAMES, TABLE
from yibu.engines.options import nearest
from yibu.errors import ConfigError
from yibu.messages import tr

_OF_FLAG = {flag: option for option, flag in SERVER.options.items()} | {"ctx_size": "ctx_size"}
_DEVICES = 128
"""Devices for which a split has shares, as llama.cpp is built."""
_PLANNED = frozenset({"n_ctx", "n_parallel"})
"""Fields that the planner has read: its placement says what became of them. A user's n_ctx that
overruled it would ask for memory that is not there."""
_PROGRAM = tr("A llama-server of your own takes it: options.program: /path/to/llama-server")

_EFFECTLESS: Mapping[str, str] = {
    "defrag_thold": tr("llama.cpp no longer looks at it"),
    "log_verbose": tr("its log is verbose enough (options.verbosity)"),
    "memory_f32": tr("llama.cpp no longer looks at it"),
    "sequences": tr("llama-server does not look at it"),
    "sampler_seq": tr("requests say it (samplers)"),
}
NO_GPU = frozenset(
    {"device", "override_tensor", "cpu_moe", "n_cpu_moe", "n_cpu_ffn", "mmproj_device",
     "spec_draft_device", "spec_draft_override_tensor", "spec_draft_cpu_moe", "n_cpu_moe_draft"}
)  # fmt: skip
"""Flags that say what goes to a GPU: without effect where all of it runs on the CPU."""
FETCHED = frozenset({"model_url", "docker_repo", "mmproj_url", "hf_repo_draft"})
_MODES: Mapping[str, str] = {"mmap+mlock": "mmap_mlock", "dio": "direct_io"}


@dataclass(slots=True)
class LlamaCppSettings:
    """The result of reading an entry's options, flags and variables."""

    options: dict[str, Any] = field(default_factory=dict)
    """yibu's own options, by name."""
    fields: dict[str, Any] = field(default_factory=dict)
    """Fields of the packaged build's ``common_params``."""
    words: list[str] = field(default_factory=list)
    """Flags for the user's own program, as given."""
    notes: list[str] = field(default_factory=list)
    without_gpu: set[str] = field(default_factory=set)
    """Given flags that only have an effect on a GPU."""


def read_settings(model: ModelConfig, schema: Collection[str]) -> LlamaCppSettings:
    """Read an entry. Flags win over options, and options over variables.

    Args:
        schema: The names of yibu's own options.

    Raises:
        ConfigError: a flag is unknown, not the engine's here, lacks its value, or is nothing that the
            packaged build can do.
    """
    found = LlamaCppSettings()
    for variable, name in TABLE.variables.items():
        if (value := model.env.get(variable)) is not None:
            _apply(model, TABLE.of_variable(name, value), schema, found)
    for option, value in model.options.items():
        name = option.lstrip("-").replace("-", "_")
        main, off = TABLE.name(FIELD_OPTIONS.get(name, name))
        if name in schema:
            found.options[name] = option_value(name, value)
        elif main in _OF_FLAG:
            _set_option(found, main, not value if off and isinstance(value, bool) else value)
        elif name in FIELDS and main not in TABLE.flags:
            found.fields[name] = value
        else:
            one = ",".join(map(text_of, value)) if isinstance(value, list) else value
            for flag in TABLE.of_options({name: one}):
                _apply(model, flag, schema, found)
    for flag in TABLE.read(model.flags):
        _apply(model, flag, schema, found)
    found.fields = {name: value for name, value in found.fields.items() if name not in _PLANNED}
    found.options.pop("ctx_size", None)
    return found


def _apply(
    model: ModelConfig, flag: Flag, schema: Collection[str], found: LlamaCppSettings
) -> None:
    name = flag.name
    _check(model, flag)
    if name in _OF_FLAG:
        _set_option(found, name, value_of(flag))
    elif name in _SPECIAL:
        _SPECIAL[name](model, flag, found)
    elif name in _EFFECTLESS:
        found.notes.append(
            tr("{name}: left out, {reason}", name=spelt(name), reason=_EFFECTLESS[name])
        )
    elif name in SERVER.unused and name not in ("metrics", "slots", "props", "threads_http"):
        found.notes.append(
            tr("{name}: left out, {unused}", name=spelt(name), unused=SERVER.unused[name])
        )
    elif name in NO_GPU:
        found.without_gpu.add(name)
    elif rule := _rule(name):
        _assign(found, rule, flag)
    elif name in schema:
        found.options[name] = option_value(name, value_of(flag))
    elif name in FIELDS:
        found.fields[name] = value_of(flag)
    else:
        raise _unknown(model, flag, schema)


def _rule(name: str) -> str:
    """The field that a flag sets; ``""`` where the packaged build has none."""
    rule = NAMES["aliases"].get(name) or ASSIGNED.get(spelt(name), "")
    return rule if rule.lstrip("!").partition("=")[0] in FIELDS else ""


def _check(model: ModelConfig, flag: Flag) -> None:
    who = f"model {model.name!r}: {flag.words[0]}"
    SERVER.refuse(model.name, flag)
    if TABLE.flags.get(flag.name) == "removed":
        raise ConfigError(
            "{who} was removed from llama.cpp",
            who=who,
            hint="The draft's length is --spec-draft-n-max N now (options.speculative…)",
        )
    if flag.name in FETCHED or flag.name.endswith(("_default", "_spec")):
        raise fetches(who)
    check_count(who, flag, TABLE, optional=TABLE.loose)


def fetches(who: str) -> ConfigError:
    """The error for a flag with which the program would download something."""
    return ConfigError(
        "{who} would have llama.cpp download a model itself",
        who=who,
        hint="Name it in the entry: source: hf:ORG/NAME, or a path",
    )


def _unknown(model: ModelConfig, flag: Flag, schema: Collection[str]) -> ConfigError:
    if flag.name in TABLE.flags:
        return ConfigError(
            "model {model!r}: {words} is nothing that yibu's packaged build of llama.cpp "
            "can be told",
            model=model.name,
            words=flag.words[0],
            hint=_PROGRAM,
        )
    near = nearest(flag.name, [*schema, *TABLE.flags, *TABLE.short, *FIELDS], cutoff=0.6)
    return ConfigError(
        "model {model!r}: llama.cpp has no option, flag or field {flag!r}",
        model=model.name,
        flag=flag.name,
        hint=tr("Did you mean {near!r}?", near=near)
        if near
        else tr("options: {schema}", schema=", ".join(schema)),
    )


_TRUE = frozenset({"on", "enabled", "true", "1"})
_FALSE = frozenset({"off", "disabled", "false", "0"})
_WORDS = {"on": True, "off": False, "true": True, "false": False}


def plain_value(word: str) -> Any:
    """A flag's word as the number or switch that it looks like."""
    if word in _WORDS:
        return _WORDS[word]
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            continue  # not a whole number: perhaps a fraction, else a word
    return word


def value_of(flag: Flag) -> Any:
    return plain_value(flag.values[0]) if flag.values else not flag.off


def option_value(name: str, value: Any) -> Any:
    """An option's value in the form that yibu's schema has for it."""
    if name == "flash_attention" and not isinstance(value, bool):
        word = str(value).lower()
        return True if word in _TRUE else False if word in _FALSE else value
    if name == "load_mode":
        return _MODES.get(str(value), value)
    if name == "reasoning_format":
        return str(value).replace("-", "_")
    return value


def _set_option(found: LlamaCppSettings, flag: str, value: Any) -> None:
    option = _OF_FLAG[flag]
    found.options[option] = option_value(option, value)


def _assign(found: LlamaCppSettings, rule: str, flag: Flag) -> None:
    """Set a field as llama.cpp's own handler does."""
    name, equals, word = rule.lstrip("!").partition("=")
    if equals:
        found.fields[name] = word == "true"
        return
    value = value_of(flag)
    found.fields[name] = not value if rule.startswith("!") else _of_kind(name, flag, value)


def _of_kind(name: str, flag: Flag, value: Any) -> Any:
    """A flag's word as the field's type: numbers stay words where the field is text."""
    kind = FIELDS[name]
    word = flag.values[0] if flag.values else ""
    if kind == "str" and word:
        return word
    if kind == "bool" and isinstance(value, int):
        return bool(value)
    if kind == "list" and word:
        parts = [plain_value(part) for part in word.replace("/", ",").split(",") if part]
        return parts + [0] * (_DEVICES - len(parts)) if name == "tensor_split" else parts
    if kind.startswith("<ggml_sched_priority"):
        names = {-1: "low", 0: "normal", 1: "medium", 2: "high", 3: "realtime"}
        return names.get(value, word)
    if kind.startswith("<"):
        if isinstance(value, bool) and kind.endswith(" on>"):
            return "on" if value else "off"
        return word.replace("-", "_")
    if name.endswith("n_gpu_layers"):
        return {"auto": -1, "all": -2}.get(word, value)
    return value


Special = Callable[[ModelConfig, Flag, LlamaCppSettings], None]


def _rerank(_model: ModelConfig, _flag: Flag, found: LlamaCppSettings) -> None:
    found.options |= {"embeddings": True, "pooling": "rank"}


def _load_mode(mode: str) -> Special:
    def special(_model: ModelConfig, flag: Flag, found: LlamaCppSettings) -> None:
        if not flag.off:
            found.options["load_mode"] = mode

    return special


def _timeout(_model: ModelConfig, flag: Flag, found: LlamaCppSettings) -> None:
    found.fields |= dict.fromkeys(("timeout_read", "timeout_write"), value_of(flag))


def _rope_scale(_model: ModelConfig, flag: Flag, found: LlamaCppSettings) -> None:
    value = value_of(flag)
    found.fields["rope_freq_scale"] = (
        1.0 / value if isinstance(value, int | float) and value else value
    )


def _grammar(_model: ModelConfig, flag: Flag, found: LlamaCppSettings) -> None:
    found.fields |= {"sampling.grammar.grammar": flag.values[0], "sampling.grammar.type": "user"}


def _template(found: LlamaCppSettings, values: Mapping[str, str]) -> None:
    found.fields["default_template_kwargs"] = {
        **found.fields.get("default_template_kwargs", {}), **values
    }  # fmt: skip


def _template_kwargs(model: ModelConfig, flag: Flag, found: LlamaCppSettings) -> None:
    try:
        values = json.loads(flag.values[0])
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise ConfigError(
            "model {model!r}: {words} has to be a JSON object, found {values!r}",
            model=model.name,
            words=flag.words[0],
            values=flag.values[0],
        )
    _template(found, {name: json.dumps(value) for name, value in values.items()})


def _reasoning(model: ModelConfig, flag: Flag, found: LlamaCppSettings) -> None:
    word = flag.values[0].lower()
    if word in ("auto", "-1"):
        found.fields["enable_reasoning"] = -1
    elif word in _TRUE or word in _FALSE:
        found.fields["enable_reasoning"] = int(word in _TRUE)
        _template(found, {"enable_thinking": json.dumps(word in _TRUE)})
    else:
        raise ConfigError(
            "model {model!r}: {words} has to be on, off or auto, found {word!r}",
            model=model.name,
            words=flag.words[0],
            word=word,
        )


def _effort(_model: ModelConfig, flag: Flag, found: LlamaCppSettings) -> None:
    if flag.values[0] != "default":
        _template(found, {"reasoning_effort": json.dumps(flag.values[0])})


def _template_file(_model: ModelConfig, flag: Flag, found: LlamaCppSettings) -> None:
    found.options["chat_template"] = flag.values[0]


def _preserve(_model: ModelConfig, flag: Flag, found: LlamaCppSettings) -> None:
    _template(found, {"preserve_reasoning": json.dumps(not flag.off)})
    found.fields["preserve_reasoning_specified"] = True


_SPECIAL: Mapping[str, Special] = {
    "reranking": _rerank,
    "no_mmap": _load_mode("none"),
    "mmap": _load_mode("mmap"),
    "mlock": _load_mode("mlock"),
    "direct_io": _load_mode("direct_io"),
    "no_direct_io": lambda _model, _flag, _found: None,
    "timeout": _timeout,
    "rope_scale": _rope_scale,
    "grammar": _grammar,
    "chat_template_file": _template_file,
    "chat_template_kwargs": _template_kwargs,
    "reasoning": _reasoning,
    "reasoning_effort": _effort,
    "reasoning_preserve": _preserve,
}


def supported(names: Iterable[str]) -> dict[str, bool]:
    """For each of llama-server's flags, whether the packaged build supports it."""
    known = {
        *_OF_FLAG,
        *_SPECIAL,
        *_EFFECTLESS,
        *SERVER.unused,
        *SERVER.refused,
        *NO_GPU,
        *SERVER.roles,
        *FIELDS,
    }
    return {name: name in known or bool(_rule(name)) for name in names}
