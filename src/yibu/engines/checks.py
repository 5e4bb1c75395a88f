"""The flags that a user gave for an engine, checked before anything is started.

An engine itself looks at them after ten seconds of imports, one by one, and buries what it says under
its usage. Names, numbers of values and values that come from a list are checked here against what its
own parser has; what only the engine can judge is left to it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from yibu.config import ModelConfig
from yibu.engines.flags import Flag, FlagTable, lacks_value, spelt
from yibu.engines.options import nearest
from yibu.engines.servers import ServerCommand, refuse_owned
from yibu.errors import ConfigError
from yibu.messages import tr

_LIKENESS = 0.6
_NONE: frozenset[str] = frozenset()


def own_flags(
    model: ModelConfig, flags: Iterable[Flag], server: ServerCommand, title: str
) -> Iterator[Flag]:
    """The user's flags for the engine, without those that the planner has read.

    A switch that has no negation is left out where it is turned off, for that it is.

    Raises:
        ConfigError: one is unknown, is not the engine's here, or has a value that it cannot have.
    """
    table = server.table
    planned = {*server.options, *server.options.values()}
    for flag in flags:
        if flag.name in planned:
            continue
        refuse_owned(server, model.name, flag.name)
        if flag.name not in table.flags:
            raise unknown(model, flag.name, table, title)
        check_values(model, flag, table, title)
        if not flag.off or flag.name in table.negations.values():
            yield flag


def unknown(
    model: ModelConfig, name: str, table: FlagTable, title: str, others: Collection[str] = ()
) -> ConfigError:
    """The error for a flag that the engine does not have."""
    near = nearest(name, [*table.flags, *others], cutoff=_LIKENESS)
    return ConfigError(
        tr(
            "model {model!r}: {title} {version} has no flag {name}",
            model=model.name,
            title=title,
            version=table.version,
            name=spelt(name),
        ),
        hint=tr("did you mean {near}?", near=spelt(near))
        if near
        else tr("its flags are in its own documentation"),
    )


def check_values(
    model: ModelConfig,
    flag: Flag,
    table: FlagTable,
    title: str,
    optional: Collection[str] = _NONE,
) -> None:
    """Raise ConfigError unless the flag has as many values as it takes, of those it takes.

    Args:
        optional: Flags that may stand without their value.
    """
    name, values = flag.name, flag.values
    kind, who = table.flags[name], f"model {model.name!r}: {flag.words[0]}"
    if kind == "switch" and values:
        negated = (
            f"--no-{spelt(name)[2:]}" if not table.negations else f"options: {{{name}: false}}"
        )
        raise ConfigError(
            tr("{who} takes no value, found {values!r}", who=who, values=" ".join(values)),
            hint=tr(
                "write {name} alone, or {negated} to turn it off", name=spelt(name), negated=negated
            ),
        )
    if kind != "switch" and name not in optional and not values:
        raise lacks_value(who, spelt(name))
    if kind in ("value", "repeat") and len(values) > 1:
        raise ConfigError(
            tr(
                "{who} takes one value, found {values_count}: {values}",
                who=who,
                values_count=len(values),
                values=" ".join(values),
            ),
            hint=tr("quote a value that has spaces"),
        )
    for value in () if flag.key else values:
        if wanted := table.wrong_value(name, value):
            raise ConfigError(
                tr(
                    "model {model!r}: {name} has to be {wanted}, found {value!r}",
                    model=model.name,
                    name=spelt(name),
                    wanted=wanted,
                    value=value,
                ),
                hint=tr("correct it: {name} VALUE", name=spelt(name)),
            )
    choices = table.choices.get(name, ())
    known = {_plainly(choice) for choice in (*choices, "None", "")}
    for value in values if choices and not flag.key else ():
        if _plainly(value) not in known:
            near = nearest(value, choices, cutoff=_LIKENESS)
            raise ConfigError(
                tr(
                    "model {model!r}: {name} cannot be {value!r} in {title} {version}; it is "
                    "one of {choices}",
                    model=model.name,
                    name=spelt(name),
                    value=value,
                    title=title,
                    version=table.version,
                    choices=", ".join(choices),
                ),
                hint=tr("did you mean {near}?", near=near) if near else tr("choose one of these"),
            )


def _plainly(value: str) -> str:
    """Some lists are compared without regard to case and hyphens: which, the engine alone knows."""
    return value.lower().replace("-", "_")
