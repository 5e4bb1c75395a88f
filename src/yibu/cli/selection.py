"""What ``yibu up`` is asked for: names in the file, catalogue entries, or sources → models."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from yibu.cli import output
from yibu.config import ENGINE_NAMES, Config, EngineName, ModelConfig
from yibu.config.names import check_name, name_from, plain_name
from yibu.errors import SourceError, UsageError

if TYPE_CHECKING:
    from yibu.cli.context import Context
    from yibu.hub.store import Store
    from yibu.hub.types import Source

_ENDING = re.compile(r"(-\d{5}-of-\d{5})?\.gguf$", re.IGNORECASE)
_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


@dataclass(frozen=True, slots=True)
class Overrides:
    """Flags of the command line that change one model."""

    name: str | None = None
    engine: str | None = None
    flags: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    lora: tuple[tuple[str, str], ...] = ()
    """Adapters by name, with their sources."""

    def given(self) -> bool:
        return self != Overrides()


def select(
    wanted: Sequence[str], config: Config, overrides: Overrides, directory: Path
) -> list[ModelConfig]:
    """The models to bring up.

    Raises:
        UsageError: nothing is named anywhere, a name is unknown, or flags for one model are
            given with several.
    """
    if overrides.given() and len(wanted or config.models) != 1:
        raise UsageError(
            "--name, --engine and flags after -- belong to one model, and"
            f" {len(wanted or config.models)} are named.",
            hint="Name one model, or write the settings into yibu.yaml: yibu init",
        )
    if not wanted and not config.models:
        raise UsageError(
            "No model was named, and there is no yibu.yaml with models here.",
            hint="Try: yibu up smollm2, or write a file with: yibu init",
        )
    models = [_one(text, config, directory) for text in wanted] if wanted else list(config.models)
    chosen = [canonical(_override(model, overrides), directory) for model in models]
    _refuse_clashes(chosen, config, directory)
    return list({model.name: model for model in chosen}.values())


def _refuse_clashes(chosen: Sequence[ModelConfig], config: Config, directory: Path) -> None:
    """Raises UsageError where a name that was taken from a source means another model already."""
    owners = {
        plain_name(name): (model, "yibu.yaml has")
        for model in config.models
        for name in model.names
    }
    for model in chosen:
        known, where = owners.setdefault(plain_name(model.name), (model, "this command has"))
        known = canonical(known, directory)
        if model.source != known.source and (model.name_derived or known.name_derived):
            raise UsageError(
                f"{model.source} would be named {model.name}, and {where} a {known.name} already,"
                f" from {known.source or 'no source'}.",
                hint=f"Give it another name: yibu up {model.source} --name NAME",
            )


def resolve_source(text: str, directory: Path) -> Source:
    """A path that exists, a catalogue entry's source, or the source that the text spells.

    Raises:
        SourceError: it is neither.
    """
    from yibu.hub.catalogue import lookup, suggestions
    from yibu.hub.source import existing_path, parse_source

    entry = lookup(text)
    if (path := existing_path(text, directory)) is not None:
        if other := entry.source() if entry else _hub_model(text, Path(path.name)):
            output.talk(f"{text}: {path} is meant, because it exists; the model is {other}")
        return path
    if entry is not None:
        return entry.source()
    try:
        return parse_source(text, base=directory)
    except SourceError as error:
        near = [] if "/" in text else suggestions(text)
        if not near:
            raise
        hint = f"Did you mean {' or '.join(near)}, of the catalogue? {error.hint}"
        raise SourceError(error.message, hint=hint) from error


def _hub_model(text: str, path: Path) -> str | None:
    """What the text would mean if ``path`` did not exist; a file's path is never a hub's name."""
    text = text.strip()
    return f"modelscope:{text}" if path.is_dir() and _HUB_NAME.fullmatch(text) else None


def stored_source(text: str, store: Store, context: Context) -> Source:
    """The source of a model on this disk, by any of its names: a source, a catalogue entry, an
    entry of ./yibu.yaml, or the name that `yibu up` gives it.

    Raises:
        UsageError: several models have that name.
        SourceError: it is no source, and no model here has that name.
    """
    from yibu.config import file as config_file

    path = config_file.find(None, context.directory)
    entry = config_file.load(path, env=context.env).model(text) if path else None
    if entry is not None and entry.source:
        return resolve_source(entry.source, entry.directory or context.directory)
    here = {stored.source for stored in store.list()}
    named = sorted(
        (s for s in here if text in (str(s), s.name, s.name.rpartition("/")[2], _served(s))),
        key=str,
    )
    if len(named) == 1:
        return named[0]
    if named:
        raise UsageError(
            f"{text} is the name of {len(named)} models here: {', '.join(map(str, named))}.",
            hint=f"Give the source: {named[0]}",
        )
    return resolve_source(text, context.directory)


def _served(source: Source) -> str:
    return _served_name(source.file or source.name)


def _one(text: str, config: Config, directory: Path) -> ModelConfig:
    if (model := config.model(text)) is not None:
        return model
    from yibu.hub.catalogue import lookup
    from yibu.hub.source import existing_path

    if existing_path(text, directory) is None and (entry := lookup(text)) is not None:
        # Served under the name that was typed: it is what the user will ask for.
        name = text.strip().lower()
        return ModelConfig(name=name, source=str(entry.source()), name_derived=True)
    source = resolve_source(text, directory)
    named = f"{source.name}:{source.tag}" if source.tag else source.name
    name = _served_name(source.file or named)
    return ModelConfig(name=name, source=str(source), name_derived=True)


def canonical(model: ModelConfig, directory: Path) -> ModelConfig:
    """The source spelled out, so that the node needs no directory to understand it."""
    base = model.directory or directory
    source = str(resolve_source(model.source, base)) if model.source else ""
    options = model.options
    if model.adapters:
        lora = {name: str(resolve_source(text, base)) for name, text in model.adapters.items()}
        options = {**model.options, "lora": lora}
    from yibu.engines import registry

    for name in registry.source_options(model):
        if isinstance(text := options.get(name), str):
            options = {**options, name: str(resolve_source(text, base))}
    return dataclasses.replace(model, source=source, options=options, directory=base)


def _served_name(name: str) -> str:
    """``Qwen/Qwen3-0.6B`` stays; a path or a file is known by its last part, without its ending
    and the number of its part: ``/data/千问-00001-of-00003.gguf`` is ``千问``."""
    if name.startswith("/") or name.lower().endswith(".gguf"):
        name = _ENDING.sub("", Path(name).name)
    return name_from(name.partition("==")[0])


def _override(model: ModelConfig, overrides: Overrides) -> ModelConfig:
    changed = dataclasses.replace(
        model,
        name=_name(overrides.name) or model.name,
        name_derived=model.name_derived and overrides.name is None,
        engine=engine_named(overrides.engine) or model.engine,
        flags=(*model.flags, *overrides.flags),
        aliases=(*model.aliases, *overrides.aliases),
    )
    return with_names(changed, (), dict(overrides.lora))


def with_names(model: ModelConfig, aliases: Sequence[str], lora: Mapping[str, str]) -> ModelConfig:
    """The model with more aliases and LoRA adapters, each name once."""
    options = dict(model.options)
    if lora:
        options["lora"] = {**model.adapters, **lora}
    changed = dataclasses.replace(model, options=options)
    others = dict.fromkeys((*model.aliases, *aliases))
    taken = {changed.name, *changed.adapters}
    kept = tuple(name for name in others if name not in taken)
    return dataclasses.replace(changed, aliases=kept)


def _name(name: str | None) -> str | None:
    if name is None:
        return None
    try:
        return check_name(name)
    except ValueError as error:
        raise UsageError(f"--name {name!r} cannot be used: {error}.") from error


def engine_named(name: str | None) -> EngineName | None:
    for known in ENGINE_NAMES:
        if name == known:
            return known
    if name is None:
        return None
    raise UsageError(f"{name!r} is no engine; known are {', '.join(ENGINE_NAMES)}.")
