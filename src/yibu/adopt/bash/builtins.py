"""Builtin commands, and recording every other command as started."""

from __future__ import annotations

import os.path
import re
from dataclasses import replace
from typing import TYPE_CHECKING

from tree_sitter import Node

from yibu.adopt.bash.conditions import Condition, plain_tokens
from yibu.adopt.bash.state import Value
from yibu.adopt.bash.syntax import named
from yibu.adopt.bash.typos import word_fault
from yibu.adopt.bash.values import Command, Gap, Leave, Text, UnknownScriptError, join, resolve
from yibu.adopt.marks import any_start
from yibu.adopt.wrappers import script_in, unwrap
from yibu.messages import tr

if TYPE_CHECKING:
    from yibu.adopt.bash.interpreter import Interpreter, Status

_SHELLS = frozenset({"sh", "bash", "dash", "zsh", "ash"})
_SILENT_FILES = re.compile(r"(^|/)(activate|conda\.sh|\.bashrc|\.bash_profile|\.profile|profile)$")
"""Files that set PATH and nothing else of importance here."""
_SILENT_EVALS = re.compile(
    r"^\W*(conda|mamba|micromamba|pyenv|ssh-agent|direnv|rbenv)\b|shell\.bash"
)
_PATHS = frozenset({"PATH", "PS1", "PWD", "OLDPWD", "_", "SHLVL", "HOME", "USER", "LOGNAME"})
"""Variables that an engine's environment has anyway."""


class Builtins:
    """Runs simple commands for an interpreter."""

    def __init__(self, shell: Interpreter) -> None:
        self._shell = shell

    def run(self, node: Node, words: list[Text], own: list[tuple[str, Value]]) -> Status:
        """One simple command: a function, a builtin, a script, or a program."""
        shell = self._shell
        gap = shell.source.gap(node)
        if not words:
            for name, value in own:
                shell.state.set(name, value)
            return True
        name = words[0].value
        if name in shell.state.functions and words[0].gap is None:
            return self._function(name, words[1:])
        handler = getattr(self, "do_" + _NAMES.get(name, name), None)
        if handler is not None and words[0].gap is None:
            status: Status = handler(words[1:], gap)
            return status
        return self._start(node, words, own)

    # Functions and scripts ------------------------------------------------------------------

    def _function(self, name: str, arguments: list[Text]) -> Status:
        shell = self._shell
        if shell.depth > 16:
            raise UnknownScriptError(Gap(0, name), tr("calls itself too often to be followed"))
        source, body = shell.state.functions[name]
        before, shell.source = shell.source, source
        kept, shell.state.arguments = shell.state.arguments, arguments
        shell.state.frames.append({})
        shell.depth += 1
        try:
            return shell.statement(body)
        except Leave as leave:
            if leave.kind != "return":
                raise
            return True
        finally:
            shell.source, shell.state.arguments = before, kept
            shell.state.end_function()
            shell.depth -= 1

    def _script(
        self, found: tuple[str, list[Text], str], gap: Gap, own: list[tuple[str, Value]]
    ) -> Status:
        """A shell of its own with this text: exported variables reach it, no others."""
        shell = self._shell
        with shell.subshell():
            shell.state.new_shell()
            for variable, value in own:
                shell.state.set(variable, value)
                shell.state.exported.add(variable)
            text, shell.state.arguments, shell.state.script = found
            return shell.script(text, gap.line, inner=True)
        return True

    # Programs -------------------------------------------------------------------------------

    def _start(self, node: Node, words: list[Text], own: list[tuple[str, Value]]) -> Status:
        shell = self._shell
        gap = shell.source.gap(node)
        env = {name: value for name, value in own if isinstance(value, Text)}
        plain = [word.value for word in words]
        told: dict[str, str] = {}
        rest, wrappers = unwrap(list(plain), told)
        words = words[len(words) - len(rest) :] if rest == plain[len(plain) - len(rest) :] else [
            Text(word, join(words).gap) for word in rest]  # fmt: skip
        if not words:
            return True
        env |= {name: Text(value) for name, value in told.items()}
        program = os.path.basename(words[0].value)  # noqa: PTH119 - another machine's path
        inner = script_in(rest) if program in _SHELLS or program in ("su", "runuser") else None
        both = [*own, *((name, Text(value)) for name, value in told.items())]
        if inner is not None or (program in _SHELLS or self._is_script(rest)):
            found = self._shell_text(rest, words, inner)
            if found is not None:
                before = len(shell.commands)
                status = self._script(found, gap, both)
                self._wrap(before, wrappers)
                return status
        self._emit(node, words, env, wrappers)
        return gap

    def _is_script(self, words: list[str]) -> bool:
        path = resolve(self._shell.state.directory.value, words[0])
        if path in self._shell.state.written:
            return True
        return words[0].endswith(".sh") and self._shell.files.read(path) is not None

    def _shell_text(
        self, plain: list[str], words: list[Text], inner: int | None
    ) -> tuple[str, list[Text], str] | None:
        """The script that a shell is to run, its arguments and its name; None where it is interactive
        or not to be had."""
        shell = self._shell
        if inner is not None:
            text = words[inner]
            if text.gap is not None:
                if any_start(text.value):
                    raise UnknownScriptError(
                        text.gap, tr("stands in a command that starts a server")
                    )
                return None
            name = plain[inner + 1] if len(plain) > inner + 1 else plain[0]
            return text.value, words[inner + 2 :], name
        if os.path.basename(plain[0]) in _SHELLS:  # noqa: PTH119 - another machine's path
            files = [i for i, word in enumerate(plain[1:], 1) if not word.startswith("-")]
            if not files:
                stdin = shell.redirections.stdin
                if stdin is not None and stdin.gap is None:
                    return stdin.value, [], plain[0]
                return None
            at = files[0]
        else:
            at = 0
        path = resolve(shell.state.directory.value, plain[at])
        text_of = shell.state.written.get(path) or shell.files.read(path)
        if text_of is None:
            return None
        return text_of, words[at + 1 :], plain[at]

    def _wrap(self, since: int, wrappers: list[str]) -> None:
        shell = self._shell
        shell.commands[since:] = [
            replace(
                one,
                background=one.background or shell.background,
                output=one.output or shell.redirections.output,
                wrappers=(*wrappers, *one.wrappers),
            )
            for one in shell.commands[since:]
        ]

    def _emit(
        self, node: Node, words: list[Text], own: dict[str, Text], wrappers: list[str]
    ) -> None:
        """Record a started command. One that matters must not have a gap."""
        shell = self._shell
        env = shell.state.environment() | own
        line = shell.source.line(node)
        command = Command(
            tuple(word.value for word in words),
            {name: text.value for name, text in env.items()},
            shell.state.directory.value,
            shell.background,
            shell.redirections.output,
            tuple(wrappers),
            line,
        )
        self._written(command)
        verdict = shell.judge(command)
        if verdict == "suspect":
            raise UnknownScriptError(
                Gap(line, shell.source.text(node)),
                tr("may start a server in a way that is not read"),
            )
        if verdict == "server":
            self._check(node, words, env)
        shell.commands.append(command)

    def _check(self, node: Node, words: list[Text], env: dict[str, Text]) -> None:
        shell = self._shell
        kept = [text for name, text in env.items() if name not in _PATHS]
        gap = join([*words, *kept, shell.state.directory]).gap
        if gap is not None:
            why = tr("is not set") if gap.unset else tr("is not known without running it")
            raise UnknownScriptError(gap, tr("{why}, and a server is started with it", why=why))
        if shell.poisons:
            raise UnknownScriptError(shell.poisons[0], tr("may change how the server is started"))
        for word in words:
            if fault := word_fault(word.value):
                raise UnknownScriptError(Gap(shell.source.line(node), word.value), fault)
        around = node.parent if node.parent is not None else node
        text = shell.source.text(around if around.type == "redirected_statement" else node)
        if (placeholder := re.search(r"<[\w][\w \-./]*>", text)) is not None:
            raise UnknownScriptError(
                Gap(shell.source.line(node), placeholder[0]), tr("is a placeholder, and bash would read it as files")
            )  # fmt: skip

    def _written(self, command: Command) -> None:
        """Remember a file that the script writes: it may be run later."""
        shell = self._shell
        stdin = shell.redirections.stdin
        elsewhere = os.path.basename(command.argv[0]) in _ELSEWHERE  # noqa: PTH119 - a name
        if elsewhere and stdin is not None and any_start(stdin.value):
            raise UnknownScriptError(
                Gap(command.line, " ".join(command.argv)), tr("starts a server somewhere else")
            )
        target = command.output if command.argv[0] == "cat" else None
        if command.argv[0] == "tee" and len(command.argv) > 1:
            target = command.argv[-1]
        if target and stdin is not None:
            path = resolve(command.directory, target)
            if stdin.gap is None:
                shell.state.written[path] = stdin.value
            elif any_start(stdin.value):
                raise UnknownScriptError(stdin.gap, tr("writes a script that starts a server"))

    # Builtins -------------------------------------------------------------------------------

    def declare(self, node: Node) -> Status:
        """``export``, ``declare``, ``local``, ``readonly``, ``typeset``."""
        shell = self._shell
        words = [shell.source.text(child) for child in node.children]
        local = words[0] in ("local", "declare", "typeset") and "-g" not in words
        exports = words[0] == "export" or any(
            word.startswith("-") and "x" in word for word in words[1:]
        )
        unexports = words[0] == "export" and "-n" in words
        for name, value in (pair for child in named(node) for pair in self._declared(child)):
            if local:
                shell.state.make_local(name)
            if value is not None:
                shell.state.set(name, value)
            if unexports:
                shell.state.exported.discard(name)
            elif exports:
                shell.state.exported.add(name)
        return True

    def _declared(self, node: Node) -> list[tuple[str, Value | None]]:
        """The variables that a word of a declaration names, with their values."""
        shell = self._shell
        if node.type == "variable_assignment":
            return [shell.assignment(node)]
        if node.type == "variable_name":
            return [(shell.source.text(node), None)]
        parted = [(field.value.partition("="), field.gap) for field in shell.expander.fields(node)]
        return [(name, Text(text, gap)) for (name, equals, text), gap in parted if equals]

    def do_export(self, words: list[Text], _gap: Gap) -> Status:
        for word in words:
            name, equals, text = word.value.partition("=")
            if equals:
                self._shell.state.set(name, Text(text, word.gap))
            self._shell.state.exported.add(name)
        return True

    def do_cd(self, words: list[Text], _gap: Gap) -> Status:
        state = self._shell.state
        paths = [word for word in words if word.value not in ("-P", "-L", "--")]
        target = paths[0] if paths else state.get("HOME") or Text("", _gap)
        if target.value == "-":
            target = Text("", _gap)
        joined = resolve(state.directory.value, target.value)
        state.directory = Text(joined, state.directory.gap or target.gap)
        if target.value.startswith("/"):
            state.directory = Text(joined, target.gap)
        if (before := state.get("PWD")) is not None or target.value.startswith("/"):
            at = resolve(before.value if before else "", target.value)
            state.set("PWD", Text(at, state.directory.gap))
        return True

    def do_true(self, _words: list[Text], _gap: Gap) -> Status:
        return True

    def do_false(self, _words: list[Text], _gap: Gap) -> Status:
        return False

    def do_test(self, words: list[Text], gap: Gap) -> Status:
        shell = self._shell
        tokens = plain_tokens([word for word in words if word.value != "]"])
        condition = Condition(tokens, gap, shell.state, shell.files)
        return condition.gap or bool(condition.verdict)

    def do_set(self, words: list[Text], _gap: Gap) -> Status:
        plain = [word.value for word in words]
        if "--" in plain:
            self._shell.state.arguments = words[plain.index("--") + 1 :]
        elif words and not plain[0].startswith(("-", "+")):
            self._shell.state.arguments = words
        return True

    def do_shift(self, words: list[Text], _gap: Gap) -> Status:
        state = self._shell.state
        count = _count(words)
        if count > len(state.arguments):
            return False
        state.arguments = state.arguments[count:]
        return True

    def do_read(self, words: list[Text], gap: Gap) -> Status:
        for word in words:
            if re.fullmatch(r"[A-Za-z_]\w*", word.value):
                self._shell.state.set(word.value, Text("", gap))
        return gap

    def do_getopts(self, _words: list[Text], gap: Gap) -> Status:
        return gap if self._shell.state.arguments else False

    def do_eval(self, words: list[Text], gap: Gap) -> Status:
        text = join(words, " ")
        if text.gap is not None:
            if any_start(text.value):
                raise UnknownScriptError(text.gap, tr("stands in a command that starts a server"))
            if not _SILENT_EVALS.search(text.gap.construct.lstrip('"$(')):
                self._shell.poisons.append(gap)
            return True
        return self._shell.script(text.value, gap.line, inner=True)

    def do_source(self, words: list[Text], gap: Gap) -> Status:
        shell = self._shell
        if not words:
            return True
        name = words[0].value
        path = resolve(shell.state.directory.value, name)
        if _SILENT_FILES.search(name):
            return True
        text = None
        if words[0].gap is None and not shell.state.directory.gap:
            text = shell.state.written.get(path) or shell.files.read(path)
        if text is None:
            if words[0].gap is not None or shell.files.kind(path) is None:
                shell.poisons.append(gap)
            else:
                shell.notes.append(
                    tr(
                        "line {line}: {name} is not here, and was not read",
                        line=gap.line,
                        name=name,
                    )
                )
            return True
        try:
            return shell.script(text, gap.line, inner=True)
        except Leave as leave:
            if leave.kind != "return":
                raise
            return True

    def do_exit(self, _words: list[Text], gap: Gap) -> Status:
        raise Leave("exit", gap=gap)

    def do_return(self, _words: list[Text], _gap: Gap) -> Status:
        raise Leave("return")

    def do_break(self, words: list[Text], _gap: Gap) -> Status:
        raise Leave("break", _count(words))

    def do_continue(self, words: list[Text], _gap: Gap) -> Status:
        raise Leave("continue", _count(words))

    def do_let(self, words: list[Text], gap: Gap) -> Status:
        text = join(words, " ")
        return self._shell.script(f"(({text.value}))", gap.line, inner=True)


def _count(words: list[Text]) -> int:
    return int(words[0].value) if words and words[0].value.isdigit() else 1


_ELSEWHERE = frozenset({"ssh", "sshpass", "pdsh", "kubectl", "oc"})
"""Commands that run their standard input on another machine."""

_NAMES = {
    ":": "true", ".": "source", "[": "test", "pushd": "cd", "readarray": "read",
    "mapfile": "read",
    "echo": "true", "printf": "true", "wait": "true", "sleep": "true", "umask": "true",
    "ulimit": "true", "trap": "true", "shopt": "true", "hash": "true", "alias": "true",
}  # fmt: skip
"""Commands evaluated as another one; those that only print or wait do nothing."""
