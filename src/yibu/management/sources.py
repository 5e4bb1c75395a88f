"""The meaning of a model's name: a path, a catalogue entry, a source, a stored model."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from yibu.config.names import name_from
from yibu.errors import SourceError, UsageError
from yibu.messages import joined, tr

if TYPE_CHECKING:
    from yibu.hub.store import Store
    from yibu.hub.types import Source
    from yibu.management.context import Context

_ENDING = re.compile(r"(-\d{5}-of-\d{5})?\.gguf$", re.IGNORECASE)
_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


def resolve_source(text: str, directory: Path) -> Source:
    """A path that exists, a catalogue entry's source, or the source that the text spells.

    Raises:
        SourceError: it is neither.
    """
    from yibu.hub.catalogue import lookup, suggestions
    from yibu.hub.source import existing_path, parse_source

    if (path := existing_path(text, directory)) is not None:
        return path
    if (entry := lookup(text)) is not None:
        return entry.source()
    try:
        return parse_source(text, base=directory)
    except SourceError as error:
        near = [] if "/" in text else suggestions(text)
        if not near:
            raise
        hint = tr(
            "Did you mean {near}, of the catalogue? {hint}",
            near=joined(" or ", near),
            hint=error.hint,
        )
        raise SourceError(error.message, hint=hint) from error


def path_note(text: str, directory: Path) -> str | None:
    """What to tell somebody whose text names a path that exists, and would name a model otherwise."""
    from yibu.hub.catalogue import lookup
    from yibu.hub.source import existing_path

    if (path := existing_path(text, directory)) is None:
        return None
    entry = lookup(text)
    other = entry.source() if entry else _hub_model(text, Path(path.name))
    return (
        tr(
            "{text}: {path} is meant, because it exists; the model is {other}",
            text=text,
            path=path,
            other=other,
        )
        if other
        else None
    )


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
    here = store.list()
    if exact := [stored.source for stored in here if str(stored.source) == text]:
        return exact[0]
    # An earlier commit has no name but its own.
    sources = {stored.source for stored in here if not stored.superseded}
    named = sorted(
        (
            s
            for s in sources
            if text in (s.name, s.name.rpartition("/")[2], served_name(s.file or s.name))
        ),
        key=str,
    )
    if len(named) == 1:
        return named[0]
    if named:
        raise UsageError(
            "{text} is the name of {count} models here: {models}.",
            text=text,
            count=len(named),
            models=", ".join(map(str, named)),
            named=named[0],
            hint="Give the source: {named}",
        )
    try:
        return resolve_source(text, context.directory)
    except SourceError as error:
        raise SourceError(
            "There is no model {text!r} on this disk, and it is not a source.",
            text=text,
            hint="See what is here with: yibu ls",
        ) from error


def served_name(name: str) -> str:
    """``Qwen/Qwen3-0.6B`` stays; a path or a file is known by its last part, without its ending
    and the number of its part: ``/data/千问-00001-of-00003.gguf`` is ``千问``."""
    if name.startswith("/") or name.lower().endswith(".gguf"):
        name = _ENDING.sub("", Path(name).name)
    return name_from(name.partition("==")[0])
