"""llama-swap's config.yaml: a model for each command, with the names its clients use.

https://github.com/mostlygeek/llama-swap (config.example.yaml) has the keys. Its commands are split into
words by llama-swap itself: no shell reads them.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import yaml

from yibu.adopt.bash import Command, Gap, Setting, UnknownScriptError
from yibu.adopt.llama_swap_matrix import MatrixError, groups_of
from yibu.adopt.servers import StartedServer, find_servers
from yibu.messages import tr

_MACRO = re.compile(r"\$\{([\w.-]+)\}")
_USUAL_PORT = "5800"
_LEFT_OUT: Mapping[str, str] = {
    "filters": tr("yibu changes no parameters of requests"),
    "cmdStop": tr("yibu stops its engines itself"),
    "selectors": tr("clients name the model that they want"),
    "profiles": tr("clients name the model that they want"),
    "peers": tr("yibu's gateway serves this machine's models alone"),
    "unlisted": tr("GET /v1/models lists it"),
}


@dataclass(frozen=True, slots=True)
class Swap:
    """The result of reading a configuration."""

    servers: Sequence[StartedServer | None]
    """The servers; None for a command that is not known here."""
    entries: Sequence[Mapping[str, Any]]
    """What each entry has besides: how long it stays, its group; of a command all of it."""
    keys: tuple[str, ...] = field(repr=False)
    warnings: tuple[str, ...]


def read_llama_swap(text: str, setting: Setting) -> Swap | None:
    """Read a configuration; None where the text is none.

    Raises:
        UnknownScriptError: a model's command is none that is known here, or a macro has no value.
    """
    if not re.search(r"^models\s*:", text, re.MULTILINE) or not re.search(r"\bcmd['\"]?\s*:", text):
        return None
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError:
        return None
    models = document.get("models") if isinstance(document, dict) else None
    if not isinstance(models, dict) or not all(isinstance(m, dict) for m in models.values()):
        return None
    servers: list[StartedServer | None] = []
    entries: list[Mapping[str, Any]] = []
    warnings: list[str] = []
    groups, lines = _groups(document, text), _lines(text)
    on_startup = (document.get("hooks") or {}).get("on_startup") or {}
    preloaded = [str(name) for name in on_startup.get("preload") or ()]
    for name, model in models.items():
        entry = _Entry(str(name), model, document, setting, text, lines.get(str(name), 0))
        servers.append(entry.server())
        rest = entry.rest(groups.get(str(name), groups.get("")), preloaded, warnings)
        entries.append(rest if servers[-1] is not None else {**entry.as_command(), **rest})
    warnings += [
        tr("{key} is not carried over: {why}", key=key, why=why)
        for key, why in _LEFT_OUT.items()
        if key in document
    ]
    keys = [_filled(str(key), {}, setting, text) for key in document.get("apiKeys") or ()]
    return Swap(servers, entries, tuple(keys), tuple(dict.fromkeys(warnings)))


@dataclass(frozen=True, slots=True)
class _Entry:
    name: str
    model: Mapping[str, Any]
    document: Mapping[str, Any]
    setting: Setting
    text: str
    line: int

    def server(self) -> StartedServer | None:
        command = Command(tuple(self._words(_USUAL_PORT)), self._env(), "", line=self.line)
        found = find_servers([command])
        return replace(found[0], names=(self.name, *self._aliases())) if found else None

    def as_command(self) -> Mapping[str, Any]:
        """The entry of an unknown server, which yibu runs unchanged."""
        words = self._words("{port}")
        if not any("{port}" in word for word in words):
            gap = Gap(self.line, " ".join(words)[:60])
            raise UnknownScriptError(
                gap,
                tr(
                    "of {name} is no server that is known here, and has no ${{PORT}}",
                    name=self.name,
                ),
                tr("Write ${PORT} where it is told its port."),
            )
        options: dict[str, Any] = {"command": words}
        if self.model.get("checkEndpoint"):
            options["ready"] = self._filled(str(self.model["checkEndpoint"]))
        if self.model.get("useModelName"):
            options["served_name"] = self._filled(str(self.model["useModelName"]))
        found: dict[str, Any] = {"name": self.name, "engine": "command", "options": options}
        further = {"aliases": self._aliases(), "env": self._env()}
        return found | {key: value for key, value in further.items() if value}

    def _aliases(self) -> list[str]:
        return [self._filled(str(alias)) for alias in self.model.get("aliases") or ()]

    def _env(self) -> dict[str, str]:
        pairs = (self._filled(str(pair)).partition("=") for pair in self.model.get("env") or ())
        return {name: value for name, _, value in pairs}

    def _words(self, port: str) -> list[str]:
        """The command's words, with macros filled in first, as llama-swap does."""
        text = self._filled(str(self.model.get("cmd", "")), port)
        lines = [line for line in text.splitlines() if not line.strip().startswith("#")]
        try:
            return shlex.split(" ".join(line.strip().removesuffix("\\") for line in lines))
        except ValueError as error:
            gap = Gap(self.line, tr("the command of {name}", name=self.name))
            raise UnknownScriptError(gap, tr("cannot be read: {error}", error=error)) from error

    def _filled(self, text: str, port: str = _USUAL_PORT) -> str:
        own = {"MODEL_ID": self.name, "PORT": port}
        macros = {**(self.document.get("macros") or {}), **(self.model.get("macros") or {}), **own}
        return _filled(text, macros, self.setting, self.text)

    def rest(self, group: Any, preloaded: Sequence[str], warnings: list[str]) -> Mapping[str, Any]:
        """When it is loaded, for how long it stays, its group and its limit; in ``warnings`` what has no
        counterpart."""
        found: dict[str, Any] = {}
        ttl = self.model.get("ttl", -1)
        ttl = self.document.get("globalTTL", 0) if ttl == -1 else ttl
        if ttl:
            found["keep"] = f"idle {ttl}s"
        if group:
            found["group"] = group
        if self.name in preloaded:
            found["preload"] = True
        if limit := self.model.get("concurrencyLimit"):
            found["limits"] = {"concurrency": limit}
        warnings += [
            tr("{name}: {key} is not carried over: {why}", name=self.name, key=key, why=why)
            for key, why in _LEFT_OUT.items()
            if key in self.model
        ]
        return found


def _groups(document: Mapping[str, Any], text: str) -> dict[str, Any]:
    """The group of each model as an entry has it, and that of models of none under "".

    Raises:
        UnknownScriptError: a matrix says what groups cannot.
    """
    router = (document.get("routing") or {}).get("router") or {}
    settings = router.get("settings") or {}
    if document.get("matrix") or router.get("use") == "matrix":
        matrix = document.get("matrix") or settings.get("matrix") or {}
        try:
            return groups_of(matrix, [str(name) for name in document["models"]])
        except MatrixError as error:
            raise UnknownScriptError(
                Gap(_line_of(text, "matrix:"), "matrix"), str(error),
                tr("Leave the matrix out: memory then decides which models are loaded together; or write groups."),
            ) from error  # fmt: skip
    groups = document.get("groups") or settings.get("groups") or {}
    if not groups:
        return {"": "llama-swap"}
    found: dict[str, Any] = {"": {"name": "llama-swap", "exclusive": True}}
    for name, group in groups.items():
        traits = {
            "swap": bool(group.get("swap", True)),
            "exclusive": bool(group.get("exclusive", True)),
            "persistent": bool(group.get("persistent", False)),
        }
        usual = {"swap": True, "exclusive": False, "persistent": False}
        said = {key: value for key, value in traits.items() if value != usual[key]}
        entry = {"name": str(name), **said} if said else str(name)
        found |= {str(member): entry for member in group.get("members") or ()}
    return found


def _filled(text: str, macros: Mapping[str, Any], setting: Setting, whole: str) -> str:
    """The text with macros and variables in the place of their names, and of names in these."""

    def value(found: re.Match[str]) -> str:
        name = found[1]
        variables = {**setting.variables, **setting.given}
        if name.startswith("env.") and name[4:] in variables:
            return variables[name[4:]]
        if name in macros:
            return str(macros[name])
        gap = Gap(_line_of(whole, found[0]), found[0])
        raise UnknownScriptError(
            gap, tr("has no value here"),
            tr("--set {name}=… gives it.", name=name[4:]) if name.startswith("env.") else tr("It is no macro of the file."),
        )  # fmt: skip

    for _ in range(len(macros) + 1):
        text, changed = _MACRO.subn(value, text)
        if not changed:
            break
    return text


def _line_of(text: str, word: str) -> int:
    """The first line that has the word."""
    return text.count("\n", 0, text.find(word)) + 1


def _lines(text: str) -> dict[str, int]:
    """The line of each model."""
    root: Any = yaml.compose(text, Loader=yaml.SafeLoader)
    models = next(node for key, node in root.value if key.value == "models")
    return {key.value: key.start_mark.line + 1 for key, _ in models.value}
