"""Names of models, names derived from files and repositories, and replica ids.

Standard library only: the command line imports this.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata

from yibu.messages import tr

MAX_LENGTH = 200
_FORBIDDEN = frozenset("\"'`\\$*?#%&;<>|!()[]{}=,^~\u2018\u2019\u201c\u201d")
"""Characters that a shell, a URL or a header would interpret."""
_UNSAFE = re.compile(r"[^\w.-]|^\.")
_MOST_BYTES = 200
"""Of a name in a file name, which has 255 with what stands around it."""
_GENERATION = re.compile(r"(-\d+)\.\d+$")
_REPLICA = re.compile(r"(.+)-\d+(?:\.(\d+))?")
_NOT_FIRST = frozenset("-./:@+")
"""Characters with which a name would be read as a flag, a path or a separator."""


def check_name(name: str) -> str:
    """The name in Unicode's composed form. Letters of any alphabet, digits and emoji are taken.

    Raises:
        ValueError: it has a character that a name cannot have; the message names it.
    """
    name = unicodedata.normalize("NFC", name)
    if not 0 < len(name) <= MAX_LENGTH:
        raise ValueError(
            tr(
                "a name has 1 to {limit} characters, and this has {name_count}",
                limit=MAX_LENGTH,
                name_count=len(name),
            )
        )
    for character in name:
        if not _fits(character):
            shown = repr(character) if character.isprintable() else f"U+{ord(character):04X}"
            raise ValueError(tr("a name cannot have the character {shown}", shown=shown))
    if name[:1] in _NOT_FIRST:
        raise ValueError(tr("a name cannot begin with {name!r}", name=name[0]))
    return name


def name_from(text: str) -> str:
    """The nearest name to a file's or a repository's: runs of other characters become ``-``.

    ``千问 2.5.gguf`` is ``千问-2.5``; a name that is cut, or of which nothing is left, ends in a
    digest of the whole, so that two different ones stay apart.
    """
    text = unicodedata.normalize("NFC", text)
    words = "".join(c if _fits(c) else " " for c in text).split()
    name = "-".join(words).strip("-./:@+")
    if name and len(name) <= MAX_LENGTH:
        return name
    digest = hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:8]
    return f"{name[: MAX_LENGTH - 9] or 'model'}-{digest}"


def plain_name(name: str) -> str:
    """What two names must not have in common: they would be taken for each other."""
    return unicodedata.normalize("NFKC", name).casefold()


def replica_id(model: str, number: int, generation: int = 1) -> str:
    """``smol-0``, and ``smol-0.2`` of the model's second configuration; it names a log file, so what a
    file name cannot hold is replaced, and a digest keeps names apart that then look the same."""
    safe = _UNSAFE.sub("_", model).encode()[:_MOST_BYTES].decode(errors="ignore")
    if safe != model:
        safe = f"{safe}-{hashlib.sha256(model.encode()).hexdigest()[:6]}"
    return f"{safe}-{number}" if generation == 1 else f"{safe}-{number}.{generation}"


def first_generation(replica: str) -> str:
    """The id of the same replica of the model's first configuration."""
    return _GENERATION.sub(r"\1", replica)


def generation_of(replica: str, model: str) -> int | None:
    """Of which configuration of the model a replica is; None where it is another model's."""
    found = _REPLICA.fullmatch(replica)
    if found is None or f"{found[1]}-0" != replica_id(model, 0):
        return None
    return int(found[2] or 1)


def _fits(character: str) -> bool:
    return character.isprintable() and not character.isspace() and character not in _FORBIDDEN
