"""A script's statements, in bash's order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from tree_sitter import Node

from yibu.adopt.bash.arithmetic import Arithmetic, Unknown
from yibu.adopt.bash.builtins import Builtins
from yibu.adopt.bash.conditions import Condition, tokens_of
from yibu.adopt.bash.expand import Expander
from yibu.adopt.bash.flow import Flow
from yibu.adopt.bash.redirections import Redirections, read_redirections
from yibu.adopt.bash.state import State, Value, appended, plain
from yibu.adopt.bash.substitution import output_of
from yibu.adopt.bash.syntax import ScriptSource, named, parse
from yibu.adopt.bash.values import (
    Command,
    EndedEarlyError,
    Files,
    Gap,
    Leave,
    NoFiles,
    Text,
    UnknownScriptError,
)
from yibu.adopt.marks import STARTS
from yibu.messages import tr

Judge = Callable[[Command], Literal["server", "suspect", ""]]
"""Whether a command starts a server, or may start one invisibly."""

_MAX_DEPTH = 16
"""Nesting of scripts and functions."""
_LAUNCHES = (*STARTS, "docker run", "yibu")
"""Words to search for in parts of a script that may or may not be reached."""

Status = bool | Gap
"""A statement's status: success, failure, or a gap that only running it would fill."""


@dataclass(frozen=True, slots=True)
class Setting:
    """The surroundings of a script."""

    variables: Mapping[str, str] = field(default_factory=dict)
    """The environment. Nothing else is set."""
    given: Mapping[str, str] = field(default_factory=dict)
    """``--set``: variables, and arguments by their number."""
    script: str = ""
    """Its own path, ``$0``."""
    files: Files = field(default_factory=NoFiles)


def read_commands(
    text: str, setting: Setting, judge: Judge, line: int = 0
) -> tuple[list[Command], list[str]]:
    """The commands that bash would start, and notes for the reader.

    Args:
        line: Where the text stands in another that is read.

    Raises:
        UnknownScriptError: a command that matters hangs on something that only running the script
            would tell.
        EndedEarlyError: it comes to an ``exit``, and has started no server by then.
    """
    numbered = {int(name): value for name, value in setting.given.items() if name.isdigit()}
    arguments = [Text(numbered.get(n, "")) for n in range(1, max(numbered, default=0) + 1)]
    named_ones = {n: v for n, v in setting.given.items() if not n.isdigit()}
    variables = {**setting.variables, **named_ones}
    inherited = frozenset(variables)
    state = State(plain(variables), set(), Text(""), arguments, setting.script, inherited=inherited)
    interpreter = Interpreter(state, setting.files, judge)
    with interpreter.leaving():
        interpreter.script(text, line or 1, inner=line > 0)
    if interpreter.exits and not any(judge(command) for command in interpreter.commands):
        raise EndedEarlyError(interpreter.exits[0])
    return interpreter.commands, interpreter.notes


class Interpreter:
    """Evaluates statements against one state, which branches and subshells copy."""

    def __init__(self, state: State, files: Files, judge: Judge) -> None:
        self.state = state
        self.files = files
        self.judge = judge
        self.commands: list[Command] = []
        self.notes: list[str] = []
        self.exits: list[Gap] = []
        """Every ``exit`` that was reached."""
        self.poisons: list[Gap] = []
        """Gaps that may have changed anything: ``eval`` of something unknown, a missing file."""
        self.depth = 0
        self.redirections = Redirections()
        self.background = False
        self.source = ScriptSource(b"")
        self.builtins = Builtins(self)
        self.flow = Flow(self)

    # Scripts ------------------------------------------------------------------------------

    def script(self, text: str, line: int = 1, *, inner: bool = False) -> Status:
        """Run a whole text."""
        if self.depth >= _MAX_DEPTH:
            raise UnknownScriptError(Gap(line, text), tr("is nested too deeply to be followed"))
        source, root = parse(text, line, inner=inner)
        before, self.source = self.source, source
        self.depth += 1
        try:
            return self.statements(root)
        finally:
            self.source = before
            self.depth -= 1

    @contextmanager
    def leaving(self) -> Iterator[None]:
        """A subshell: ``exit`` ends it alone."""
        try:
            yield
        except Leave as leave:
            if leave.kind == "return":
                raise
            if leave.gap:
                self.exits.append(leave.gap)

    @property
    def expander(self) -> Expander:
        return Expander(self.source, self.state, self.substitute)

    def substitute(self, source: ScriptSource, node: Node) -> Text:
        """The output of ``$(…)``, as far as it is known without running it."""
        before, self.source = self.source, source
        try:
            return output_of(self, node)
        finally:
            self.source = before

    # Statements ---------------------------------------------------------------------------

    def statements(self, node: Node) -> Status:
        """The statements in a node, one after the other."""
        return self.sequence([c for c in node.children if c.is_named or c.type in ("&", ";")])

    def sequence(self, nodes: Sequence[Node]) -> Status:
        status: Status = True
        for index, node in enumerate(nodes):
            if node.type in ("&", ";", "comment", "heredoc_body"):
                continue
            behind = nodes[index + 1].type if index + 1 < len(nodes) else ""
            if behind == "&":
                self.in_background(node)
                status = True
            else:
                status = self.statement(node)
        return status

    def in_background(self, node: Node) -> None:
        before = self.background
        self.background = True
        try:
            with self.subshell():
                self.statement(node)
        finally:
            self.background = before

    @contextmanager
    def subshell(self) -> Iterator[None]:
        before = self.state
        self.state = before.fork()
        try:
            with self.leaving():
                yield
        finally:
            self.state = before

    def statement(self, node: Node) -> Status:
        name = "on_" + node.type
        handler = getattr(self, name, None) or getattr(self.flow, name, None)
        if handler is None:
            self.not_followed(node)
            return self.source.gap(node)
        status: Status = handler(node)
        return status

    def not_followed(self, node: Node) -> None:
        """Refuse a construct that is not evaluated, if a server may be started in it."""
        if self.mentions(node):
            raise UnknownScriptError(
                self.source.gap(node), tr("is not followed, and starts a server")
            )

    def mentions(self, *nodes: Node) -> bool:
        """Whether a part of the script may start a server, functions that it calls included."""
        text = " ".join(self.source.text(node) for node in nodes)
        bodies = [
            source.text(body)
            for name, (source, body) in self.state.functions.items()
            if name in text.split()
        ]
        return any(word in part for part in (text, *bodies) for word in _LAUNCHES)

    def on_command(self, node: Node) -> Status:
        words, own = self.words_of(node)
        extra = [c for c in node.children if c.type.endswith("redirect")]
        with self.redirected(extra) as more:
            return self.builtins.run(node, [*words, *more], own)

    def words_of(self, node: Node) -> tuple[list[Text], list[tuple[str, Value]]]:
        """A command's words, and the assignments that stand before them."""
        own = [self.assignment(c) for c in node.children if c.type == "variable_assignment"]
        name = node.child_by_field_name("name")
        parts = [*([name] if name else []), *node.children_by_field_name("argument")]
        return [field for part in parts for field in self.expander.fields(part)], own

    def on_redirected_statement(self, node: Node) -> Status:
        body = node.child_by_field_name("body")
        with self.redirected(node.children_by_field_name("redirect")) as more:
            if body is None:
                return True
            if body.type == "command" and more:
                words, own = self.words_of(body)
                return self.builtins.run(body, [*words, *more], own)
            return self.statement(body)

    @contextmanager
    def redirected(self, nodes: Sequence[Node]) -> Iterator[list[Text]]:
        """Yields the arguments after a redirection, where the grammar hides them."""
        before = self.redirections
        self.redirections, words = read_redirections(nodes, self.source, self.expander, before)
        try:
            yield words
        finally:
            self.redirections = before

    def on_variable_assignment(self, node: Node) -> Status:
        name, value = self.assignment(node)
        self.state.set(name, value)
        return True

    def on_variable_assignments(self, node: Node) -> Status:
        for child in named(node):
            self.on_variable_assignment(child)
        return True

    def assignment(self, node: Node) -> tuple[str, Value]:
        """A variable's name and what it becomes."""
        target, value = node.child_by_field_name("name"), node.child_by_field_name("value")
        assert target is not None
        add = self.source.text(node.children[1]) == "+="
        name = self.source.text(target)
        if target.type == "subscript":
            name = self.source.text(target.children[0])
            index = self.expander.text_of(target.children[2])
            old = self.state.variables.get(name)
            base = old if isinstance(old, dict) else {}
            text = Text("") if value is None else self.expander.text_of(value)
            return name, base | {index.value: text}
        if value is None:
            new: Value = Text("")
        elif value.type == "array":
            new = self.expander.array_of(value)
        else:
            new = self.added_to_itself(name, self.expander.text_of(value))
        return name, appended(self.state.variables.get(name), new) if add else new

    def added_to_itself(self, name: str, value: Text) -> Text:
        """The value of ``X=/opt/lib:$X``: the old one comes from outside, and may be empty."""
        if value.gap is not None and value.gap.unset == name:
            return Text(value.value)
        return value

    def on_declaration_command(self, node: Node) -> Status:
        return self.builtins.declare(node)

    def on_unset_command(self, node: Node) -> Status:
        for child in named(node):
            name = self.source.text(child)
            self.state.variables.pop(name, None)
            self.state.exported.discard(name)
            self.state.functions.pop(name, None)
        return True

    def on_function_definition(self, node: Node) -> Status:
        name, body = node.child_by_field_name("name"), node.child_by_field_name("body")
        assert name is not None
        assert body is not None
        self.state.functions[self.source.text(name)] = (self.source, body)
        return True

    def on_compound_statement(self, node: Node) -> Status:
        if node.children[0].type == "((":
            return self.arithmetic(node)
        return self.statements(node)

    def arithmetic(self, node: Node) -> Status:
        try:
            return Arithmetic(self.source, self.expander).value(node) != 0
        except Unknown as unknown:
            return unknown.gap

    def on_do_group(self, node: Node) -> Status:
        return self.statements(node)

    def on_subshell(self, node: Node) -> Status:
        with self.subshell():
            return self.statements(node)
        return True

    def on_pipeline(self, node: Node) -> Status:
        """Each part in a subshell; ``… | tee FILE`` is where the output goes."""
        parts = named(node)
        status: Status = True
        for part in parts:
            with self.subshell(), self.piped(parts[-1]):
                status = self.statement(part)
        return status

    @contextmanager
    def piped(self, last: Node) -> Iterator[None]:
        before = self.redirections
        words = self.source.text(last).split()
        if words[:1] == ["tee"]:
            file = next((word for word in words[1:] if not word.startswith("-")), None)
            self.redirections = before.to(file)
        try:
            yield
        finally:
            self.redirections = before

    def on_negated_command(self, node: Node) -> Status:
        status = self.statement(named(node)[0])
        return status if isinstance(status, Gap) else not status

    def on_test_command(self, node: Node) -> Status:
        if node.children[0].type == "((":
            return self.arithmetic(node)
        tokens = tokens_of(node, self.source, self.expander)
        condition = Condition(tokens, self.source.gap(node), self.state, self.files)
        return condition.gap or bool(condition.verdict)

    def branch(self, gap: Gap, branches: Sequence[Sequence[Node]]) -> None:
        """Continue after one of several branches, of which it is unknown which; none may start a server."""
        ends: list[State] = []
        before, commands = self.state, len(self.commands)
        for nodes in branches:
            self.state = before.fork()
            try:
                self.sequence(nodes)
            except Leave:
                continue  # had it been this one, nothing that follows would be come to
            finally:
                started = self.commands[commands:]
                if any(self.judge(command) for command in started):
                    raise UnknownScriptError(gap, tr("decides whether a server is started"))
            ends.append(self.state)
        self.state = before
        if ends:
            before.merge(ends, gap)
