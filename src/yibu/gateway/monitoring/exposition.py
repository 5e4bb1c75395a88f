"""Several programs' metrics as one: Prometheus' text format 0.0.4, merged and relabelled.

The format wants each family once, its HELP and TYPE above all of its samples, so that expositions
cannot just be joined; and Prometheus refuses a page whole for a single bad line. What an engine
says is therefore read line by line and written anew: lines that do not keep to the format, and
samples that contradict what stands there already, are left out and counted.

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from yibu.prometheus import escape

MAX_LINES = 50_000
"""Lines of one program's exposition; vLLM's has about a thousand."""

_NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*+"
_VALUE = r"[+-]?(?:(?:\d++(?:\.\d*+)?|\.\d++)(?:[eE][+-]?\d++)?|[iI]nf|[nN]a[nN])"
_LABEL = r'[ \t]*+([a-zA-Z_][a-zA-Z0-9_]*+)[ \t]*+=[ \t]*+("(?:[^"\\]|\\["\\n])*+")[ \t]*+'
_SAMPLE = re.compile(
    rf"({_NAME})(?:[ \t]*+\{{((?:{_LABEL}(?:,|(?=\}})))*+)[ \t]*+\}}[ \t]*+|[ \t]++)"
    rf"({_VALUE})((?:[ \t]++-?\d{{1,18}})?)[ \t]*+",
    re.ASCII,
)
"""Groups 1, 2, 5 and 6: name, labels, value, timestamp. Possessive, so that no line takes long."""
_PAIR = re.compile(_LABEL, re.ASCII)
_COMMENT = re.compile(rf"#[ \t]++(HELP|TYPE)[ \t]++({_NAME})(?:[ \t]++(.*+))?", re.ASCII)
_HELP = re.compile(r"(?:[^\\]|\\[\\n])*+")
_UNTYPED = "untyped"
_KINDS = frozenset({"counter", "gauge", "histogram", "summary"})
_SUFFIXES: Mapping[str, tuple[str, ...]] = {
    "histogram": ("_bucket", "_sum", "_count"),
    "summary": ("", "_sum", "_count"),
}


class TooLongError(ValueError):
    """An exposition has more than ``MAX_LINES`` lines."""


@dataclass(slots=True)
class _Family:
    kind: str
    help: str | None = None
    lines: list[str] = field(default_factory=list)


class Merger:
    """Takes expositions by ``add``; ``text`` is all of them as one."""

    def __init__(self, page: str = "") -> None:
        """``page`` is the page that the result is added to: the names in it are taken."""
        self._families: dict[str, _Family] = {}
        self._owners: dict[str, str] = {}
        """The family of each sample's name: ``x_count`` may be a family of its own, or belong to the
        histogram ``x``."""
        for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", page, re.MULTILINE):
            for suffix in ("", *_SUFFIXES.get(kind, ())):
                self._owners[name + suffix] = ""

    def add(self, text: str, labels: Mapping[str, str]) -> int:
        """Take an exposition, with ``labels`` added to every sample; an own label of such a
        name becomes ``exported_NAME``, as Prometheus itself does it.

        Returns:
            The number of lines that were left out.

        Raises:
            TooLongError: nothing of it was taken.
        """
        lines = text.split("\n")
        if len(lines) > MAX_LINES:
            raise TooLongError(f"more than {MAX_LINES} lines")
        source = _Source(self._families, self._owners, labels)
        return sum(not source.take(line) for line in lines)

    def text(self) -> str:
        """The merged families; empty when there are none."""
        out: list[str] = []
        for name, family in self._families.items():
            if not family.lines:
                continue
            if family.help is not None:
                out.append(f"# HELP {name} {family.help}")
            out.append(f"# TYPE {name} {family.kind}")
            out += family.lines
        return "\n".join(out) + "\n" if out else ""


class _Source:
    """One program's exposition, while it is merged."""

    def __init__(
        self, families: dict[str, _Family], owners: dict[str, str], labels: Mapping[str, str]
    ) -> None:
        self._families = families
        self._owners = owners
        self._labels = frozenset(labels)
        self._prefix = ",".join(f'{name}="{escape(value)}"' for name, value in labels.items())
        self._helps: dict[str, str] = {}
        self._typed: set[str] = set()
        self._mine: dict[str, _Family | None] = {}
        """The family by a sample's name; None: the sample is dropped."""
        self._seen: set[str] = set()

    def take(self, line: str) -> bool:
        """Whether the line is valid; comments and empty lines are."""
        line = line.strip(" \t\r")
        if not line:
            return True
        if line.startswith("#"):
            return self._comment(line)
        match = _SAMPLE.fullmatch(line)
        if match is None:
            return False
        name, own, _, _, value, time = match.groups()
        labels = self._joined(own) if own else self._prefix
        if labels is None:
            return False
        series = f"{name}{{{labels}}}"
        family = self._mine[name] if name in self._mine else self._claim(name, _UNTYPED).get(name)
        if family is None or series in self._seen:
            return False
        self._seen.add(series)
        if value.lower().endswith("nan"):
            value = "NaN"  # C writes -nan for 0/0, which Prometheus does not read
        family.lines.append(f"{series} {value}{time}")
        return True

    def _comment(self, line: str) -> bool:
        match = _COMMENT.fullmatch(line)
        if match is None:
            return True
        word, name, rest = match[1], match[2], match[3] or ""
        if word == "HELP":
            self._helps.setdefault(name, rest if _HELP.fullmatch(rest) else "")
            return True
        if name in self._typed or name in self._mine:
            return False  # a second TYPE, or one behind the family's samples
        self._typed.add(name)
        kind = rest.strip().lower()
        self._claim(name, kind if kind in _KINDS else _UNTYPED)
        return self._mine.get(name, self._mine.get(name + "_sum")) is not None

    def _claim(self, name: str, kind: str) -> dict[str, _Family | None]:
        """Find or begin a family, unless its names are taken or its type differs."""
        samples = [name + suffix for suffix in _SUFFIXES.get(kind, ("",))]
        family = self._families.get(name)
        free = all(self._owners.get(sample, name) == name for sample in samples)
        if family is None and free:
            family = self._families[name] = _Family(kind)
            self._owners.update(dict.fromkeys((name, *samples), name))
        usable = free and family is not None and family.kind == kind
        if family is not None and usable and family.help is None:
            family.help = self._helps.get(name)
        for sample in samples:
            self._mine.setdefault(sample, family if usable else None)
        return self._mine

    def _joined(self, own: str) -> str | None:
        """The added labels and the sample's own; None for a repeated name."""
        names = set(self._labels)
        parts = [self._prefix] if self._prefix else []
        for found, value in _PAIR.findall(own):
            name = f"exported_{found}" if found in self._labels else found
            if name in names:
                return None
            names.add(name)
            parts.append(f"{name}={value}")
        return ",".join(parts)


def read_samples(text: str) -> Iterator[tuple[str, dict[str, str], float]]:
    """Name, labels and value of each sample of an exposition."""
    for line in text.split("\n"):
        if not line.startswith("#") and (match := _SAMPLE.fullmatch(line)) is not None:
            labels = {name: _unescape(value) for name, value in _PAIR.findall(match[2] or "")}
            yield match[1], labels, float(match[5])


def _unescape(quoted: str) -> str:
    return re.sub(r"\\(.)", lambda m: "\n" if m[1] == "n" else m[1], quoted[1:-1])
