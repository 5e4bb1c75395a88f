"""Checks of a user's flags for an engine, before anything is started.

An engine itself looks at them after ten seconds of imports, one by one, and buries what it says under
its usage. Names, numbers of values and values that come from a list are checked here against what its
own parser has; what only the engine can judge is left to it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from yibu.config import ModelConfig
from yibu.engines.flags import Flag, FlagTable, lacks_value, spelt
from yibu.engines.options import nearest
from yibu.engines.servers import ServerCommand
from yibu.errors import ConfigError
from yibu.messages import tr

_LIKENESS = 0.6
_ANY_NUMBER = frozenset({"values", "pair"})
"""Kinds of flags that may have several values."""


def own_flags(
    model: ModelConfig, flags: Sequence[Flag], server: ServerCommand, notes: list[str]
) -> Iterator[Flag]:
    """The user's flags for the engine, without those that the planner has read, old ones translated.

    A switch that has no negation is left out where it is turned off, for that it is.

    Args:
        notes: Gets what was translated.

    Raises:
        ConfigError: one is unknown, is not the engine's here, or has a value that it cannot have.
    """
    table = server.table
    planned = {*server.options, *server.options.values()}
    given = {flag.name for flag in flags}
    for flag in flags:
        if flag.name in planned:
            continue
        server.refuse(model.name, flag)
        if flag.name in table.flags:
            who = f"model {model.name!r}: {flag.words[0]}"
            check_count(who, flag, table, optional=server.secrets)
            if not flag.key and server.plugins.get(flag.name) not in given:
                _check_values(model, flag, server)
            if not flag.off or table.can_be_off(flag.name):
                yield flag
        elif (old := server.translations.get(flag.name)) is not None:
            notes.append(f"{spelt(flag.name)}: {old.note}")
            yield from table.read(old.words(flag.values))
        else:
            raise _unknown(model, flag.name, server)


def _unknown(model: ModelConfig, name: str, server: ServerCommand) -> ConfigError:
    near = nearest(name, [*server.table.flags, *server.translations], cutoff=_LIKENESS)
    return ConfigError(
        "model {model!r}: {title} {version} has no flag {name}",
        model=model.name,
        title=server.title,
        version=server.table.version,
        name=spelt(name),
        hint=tr("Did you mean {near}?", near=spelt(near))
        if near
        else tr("Its flags are in its own documentation"),
    )


def check_count(who: str, flag: Flag, table: FlagTable, optional: Collection[str] = ()) -> None:
    """Raise ConfigError unless the flag has as many values as it takes.

    Args:
        optional: Flags that may stand without their value.
    """
    name, values, kind = flag.name, flag.values, table.flags.get(flag.name, "")
    if kind == "switch" and values:
        negated = (
            f"--no-{spelt(name)[2:]}" if table.can_be_off(name) else f"options: {{{name}: false}}"
        )
        raise ConfigError(
            "{who} takes no value, found {values!r}",
            who=who,
            values=" ".join(values),
            name=spelt(name),
            negated=negated,
            hint="Write {name} alone, or {negated} to turn it off",
        )
    if kind not in ("switch", "") and not values and name not in optional:
        raise lacks_value(who, flag.words[0])
    if kind not in _ANY_NUMBER and len(values) > 1:
        raise ConfigError(
            "{who} takes one value, found {values_count}: {values}",
            who=who,
            values_count=len(values),
            values=" ".join(values),
            hint="Quote a value that has spaces",
        )


def _check_values(model: ModelConfig, flag: Flag, server: ServerCommand) -> None:
    """Raise ConfigError for a value of another type than the flag takes, or of none of its choices."""
    name, table = flag.name, server.table
    choices = table.choices.get(name, ())
    known = {_plainly(choice) for choice in (*choices, "None", "")}
    for value in flag.values:
        if wanted := table.wrong_value(name, value):
            raise ConfigError(
                "model {model!r}: {name} has to be {wanted}, found {value!r}",
                model=model.name,
                name=spelt(name),
                wanted=wanted,
                value=value,
                hint="Correct it: {name} VALUE",
            )
        if choices and _plainly(value) not in known:
            near = nearest(value, choices, cutoff=_LIKENESS)
            raise ConfigError(
                "model {model!r}: {name} cannot be {value!r} in {title} {version}; it is "
                "one of {choices}",
                model=model.name,
                name=spelt(name),
                value=value,
                title=server.title,
                version=table.version,
                choices=", ".join(choices),
                hint=tr("Did you mean {near}?", near=near) if near else tr("Choose one of these"),
            )


def _plainly(value: str) -> str:
    """A value without case and hyphens: only the engine knows for which lists they matter."""
    return value.lower().replace("-", "_")
