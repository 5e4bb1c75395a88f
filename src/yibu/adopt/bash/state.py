"""A shell's state while a script is evaluated: variables, functions, directory, arguments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from tree_sitter import Node

from yibu.adopt.bash.syntax import ScriptSource
from yibu.adopt.bash.values import Gap, Text, join
from yibu.adopt.marks import any_start

Value = Text | dict[str, Text]
"""A variable's value: a string, or an array by its indices (a list's are numbers)."""


@dataclass(slots=True)
class State:
    """Copied where a shell would fork, and where a condition is not known."""

    variables: dict[str, Value]
    exported: set[str]
    directory: Text
    arguments: list[Text]
    """``$1`` and on; empty where the script was given none."""
    script: str = ""
    """``$0``."""
    functions: dict[str, tuple[ScriptSource, Node]] = field(default_factory=dict)
    inherited: frozenset[str] = frozenset()
    """Variables of the environment with which the script was started."""
    frames: list[dict[str, tuple[Value | None, bool]]] = field(default_factory=list)
    """What the locals of each function that is running hide: its value, and if it is exported."""
    written: dict[str, str] = field(default_factory=dict)
    """Files that the script wrote, by path: ``cat > start.sh <<EOF``."""

    def fork(self) -> State:
        variables = {n: dict(v) if isinstance(v, dict) else v for n, v in self.variables.items()}
        return replace(
            self,
            variables=variables,
            exported=set(self.exported),
            arguments=list(self.arguments),
            functions=dict(self.functions),
            frames=[dict(frame) for frame in self.frames],
            written=dict(self.written),
        )

    def get(self, name: str) -> Text | None:
        """A variable as a string; of an array its first element. None where it is not set."""
        if name.isdigit():
            index = int(name)
            if index == 0:
                return Text(self.script or "bash")
            return self.arguments[index - 1] if index <= len(self.arguments) else None
        value = self.variables.get(name)
        if isinstance(value, dict):
            return value.get("0")
        return value

    def make_local(self, name: str) -> None:
        """Let the function that is running have a variable of its own."""
        if self.frames and name not in self.frames[-1]:
            self.frames[-1][name] = (self.variables.get(name), name in self.exported)

    def end_function(self) -> None:
        for name, (hidden, exported) in self.frames.pop().items():
            if not exported:
                self.exported.discard(name)
            if hidden is None:
                self.variables.pop(name, None)
            else:
                self.variables[name] = hidden

    def new_shell(self) -> None:
        """Reduce to what a new shell sees: exported variables, no functions."""
        kept = self.exported | self.inherited
        self.variables = {name: v for name, v in self.variables.items() if name in kept}
        self.functions, self.frames = {}, []

    def items(self, name: str) -> list[Text]:
        """``${name[@]}``."""
        if name in ("@", "*"):
            return self.arguments
        value = self.variables.get(name)
        if value is None:
            return []
        return list(value.values()) if isinstance(value, dict) else [value]

    def set(self, name: str, value: Value) -> None:
        self.variables[name] = value

    def environment(self) -> dict[str, Text]:
        """The exported variables."""
        found = {name: self.get(name) for name in self.exported}
        return {name: value for name, value in found.items() if value is not None}

    def merge(self, others: list[State], gap: Gap) -> None:
        """Continue as one of several states, of which it is unknown which: differences become gaps."""
        first = others[0]
        names = {name for other in others for name in other.variables}
        for name in names:
            values = [other.variables.get(name) for other in others]
            if all(value == values[0] for value in values):
                if values[0] is not None:
                    self.variables[name] = values[0]
                else:
                    self.variables.pop(name, None)
            else:
                self.variables[name] = _one_of(values, gap)
        self.exported = set().union(*(other.exported for other in others))
        same = all(other.directory == first.directory for other in others)
        self.directory = first.directory if same else Text("", gap)
        same = all(other.arguments == first.arguments for other in others)
        self.arguments = first.arguments if same else [Text("", gap)] * 9
        for other in others:
            self.functions |= other.functions
            self.written |= other.written


def _one_of(values: list[Value | None], gap: Gap) -> Value:
    """A variable that has one of several values: unknown, but for what shows that it starts a
    server, so that whoever runs it is refused."""
    for value in values:
        if isinstance(value, dict) and any(any_start(text.value) for text in value.values()):
            return {key: Text(text.value, gap) for key, text in value.items()}
        if isinstance(value, Text) and any_start(value.value):
            return Text(value.value, gap)
    return Text("", gap)


def of_list(texts: list[Text]) -> dict[str, Text]:
    return {str(index): text for index, text in enumerate(texts)}


def appended(old: Value | None, new: Value) -> Value:
    """``X+=…``."""
    if isinstance(new, dict):
        base = old if isinstance(old, dict) else of_list([old] if old else [])
        start = 1 + max((int(key) for key in base if key.isdigit()), default=-1)
        if all(key.isdigit() for key in new):
            return base | {str(start + int(key)): text for key, text in new.items()}
        return base | new
    if isinstance(old, dict):
        return old | {"0": join([old.get("0", Text("")), new])}
    return join([old or Text(""), new])


def plain(variables: Mapping[str, str]) -> dict[str, Value]:
    return {name: Text(value) for name, value in variables.items()}
