"""Values of a script's evaluation: texts that may have gaps, commands, files."""

from __future__ import annotations

import os.path
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from yibu.errors import UsageError
from yibu.messages import tr


@dataclass(frozen=True, slots=True)
class Gap:
    """Something that only running the script would tell."""

    line: int
    construct: str
    """Its source text: ``$(nvidia-smi -L | wc -l)``."""
    unset: str = ""
    """The variable, where it is one that nothing sets. Conditions take it as empty, as bash does;
    a command that matters is refused."""


@dataclass(frozen=True, slots=True)
class Text:
    """A string; with a gap, ``value`` is only what is known of it."""

    value: str
    gap: Gap | None = None

    def __add__(self, other: Text) -> Text:
        return Text(self.value + other.value, self.gap or other.gap)

    @property
    def unknown(self) -> Gap | None:
        """The gap, unless it is a variable that nothing sets."""
        return self.gap if self.gap is not None and not self.gap.unset else None


EMPTY = Text("")


def join(texts: Iterable[Text], separator: str = "") -> Text:
    """The texts as one."""
    parts = list(texts)
    gap = next((part.gap for part in parts if part.gap), None)
    return Text(separator.join(part.value for part in parts), gap)


@dataclass(frozen=True, slots=True)
class Command:
    """One command that would be started."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    """Variables that the script exported or set for it."""
    directory: str
    """Its working directory; ``""``: where the script was started."""
    background: bool = False
    output: str | None = None
    """The file its output goes to."""
    wrappers: tuple[str, ...] = ()
    """Wrappers before it: ``nohup``, ``sudo`` and the like."""
    line: int = 0
    """Its line in the script; 0 where there is none."""


class UnknownScriptError(UsageError):
    """A script starts a server in a way that only running it would tell."""

    def __init__(self, gap: Gap, why: str, hint: str = "") -> None:
        """``why`` ends the sentence that names line and construct; ``hint`` stands in the place of the
        two ways that lead around a script."""
        super().__init__(
            tr(
                "line {line}: {construct} {why}",
                line=gap.line,
                construct=_short(gap.construct),
                why=why,
            )
            if gap.line
            else f"{_short(gap.construct)} {why}",
            hint=hint
            or (
                tr(
                    "--set {unset}=… gives it; or adopt the running server: yibu adopt --pid PID; "
                    "or its command line: yibu adopt -- COMMAND…",
                    unset=gap.unset,
                )
                if gap.unset
                else tr(
                    "Adopt the running server: yibu adopt --pid PID; or its command line: yibu "
                    "adopt -- COMMAND…"
                )
            ),
        )
        self.gap = gap


class Leave(Exception):  # noqa: N818 - it is how bash goes on, no fault
    """``exit``, ``return``, ``break`` or ``continue``."""

    def __init__(
        self,
        kind: Literal["exit", "return", "break", "continue"],
        levels: int = 1,
        gap: Gap | None = None,
    ) -> None:
        super().__init__(kind)
        self.kind = kind
        self.levels = levels
        self.gap = gap
        """Where an ``exit`` stands."""


class EndedEarlyError(UsageError):
    """A script comes to an ``exit`` before it starts a server, as it would in bash."""

    def __init__(self, end: Gap) -> None:
        super().__init__(
            tr(
                "line {line}: {construct} ends the script before it starts a server",
                line=end.line,
                construct=_short(end.construct),
            ),
            hint=tr(
                "A script that checks its arguments is given them: yibu adopt -- bash FILE "
                "ARGUMENT…; files that it looks for must be here"
            ),
        )


def _short(construct: str) -> str:
    line = " ".join(construct.split())
    return line if len(line) <= 100 else line[:99] + "…"


class Files(Protocol):
    """Reads the machine's files for a script's evaluation."""

    def read(self, path: str) -> str | None:
        """The text of a file; None where there is none that can be read."""
        ...

    def kind(self, path: str) -> str | None:
        """``file``, ``directory`` or ``""`` for nothing; None where that is not known."""
        ...


class NoFiles:
    """No file is known."""

    def read(self, path: str) -> str | None:  # noqa: ARG002 - the protocol's
        return None

    def kind(self, path: str) -> str | None:  # noqa: ARG002 - the protocol's
        return None


def resolve(directory: str, path: str) -> str:
    """A path from a directory of the script's; ``""`` is where it was started."""
    return os.path.normpath(os.path.join(directory, path)) if path else directory  # noqa: PTH118
