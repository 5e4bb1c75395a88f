"""An engine's own server: how people start it, and which of its flags concern yibu.

An engine's folder fills a ``ServerCommand`` by its ``server.toml``: the programs, modules and images that
start it, its own defaults, and what its flags mean to a gateway in front of it. ``yibu adopt``, ``flags:``, ``options:``
and the flags after ``--`` are all taken apart here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from yibu.config.engines import engine_table
from yibu.engines.flags import Flag, FlagTable, is_flag, lacks_value, spelt
from yibu.errors import ConfigError
from yibu.messages import tr

Role = Literal[
    "host", "port", "key", "key_file", "name", "model", "hub_repo", "hub_file", "adapters"
]
"""The meaning of a flag that belongs to the gateway or to the entry."""

SETTINGS: Mapping[str, str] = {
    "host": "gateway.host",
    "port": "gateway.port",
    "key": "gateway.api_keys",
    "key_file": "gateway.api_key_file",
    "name": tr("the entry's name"),
    "model": tr("the entry's source"),
    "hub_repo": tr("the entry's source (hf:ORG/NAME)"),
    "hub_file": tr("the entry's source (hf:ORG/NAME#FILE)"),
    "adapters": "options.lora",
}
"""The setting of yibu.yaml for a role."""
_ONE_VALUE = frozenset({"value", "int", "text"})
_NONE: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True)
class Image:
    """A container image that runs an engine's server."""

    pattern: re.Pattern[str]
    entry: tuple[str, ...]
    """Its entrypoint; empty where the arguments name the program."""
    switches: tuple[str, ...] = ()
    """First arguments with which an entrypoint that knows several programs runs the server."""
    program: tuple[str, ...] = ()
    """The server, where ``switches`` choose it."""


@dataclass(frozen=True, slots=True)
class FlagTranslation:
    """The replacement of a flag that a server no longer has, and the sentence that says so."""

    note: str
    words: Callable[[Sequence[str]], list[str]] = lambda _values: []
    """New words by the flag's values; empty to leave it out."""
    switch: bool = False
    """Whether it took no value."""


@dataclass(frozen=True, slots=True)
class Lifted:
    """An engine's flags, separated from those of the gateway and the entry."""

    flags: tuple[Flag, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    host: str | None = None
    port: int | None = None
    api_keys: tuple[str, ...] = field(default=(), repr=False)
    keys_on_command_line: bool = False
    key_file: str | None = None
    names: tuple[str, ...] = ()
    model: str | None = None
    """A path, or a hub's model name as the engine's own server takes it."""
    hub_model: str | None = None
    """``hf:ORG/NAME``, with the quantization or the file, where a flag names a hub."""
    adapters: tuple[tuple[str, str], ...] = ()
    """Names of LoRA adapters and where they are."""

    @property
    def words(self) -> tuple[str, ...]:
        """The engine's own flags."""
        return tuple(word for flag in self.flags for word in flag.words)


@dataclass(frozen=True, slots=True)
class ServerCommand:
    """An engine's own server: its command, and the meaning of its flags for yibu."""

    title: str
    """The makers' name for it."""
    documentation: str
    """Where its flags are listed."""
    table: FlagTable
    programs: Mapping[str, tuple[str, ...]]
    """A program's name → the words that must follow it (``vllm`` → ``serve``)."""
    roles: Mapping[str, Role]
    """Flags that belong to the gateway or the entry."""
    port: int
    """Its default port."""
    host: str = "127.0.0.1"
    modules: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Python's modules that start it → the words that must follow."""
    files: tuple[str, ...] = ()
    """Ends of the paths of Python files that start it."""
    images: tuple[Image, ...] = ()
    positional: bool = False
    """Whether the first word that is no flag is the model."""
    names_itself: bool = False
    """Whether it answers to the model as typed if no name is given."""
    unused: Mapping[str, str] = field(default_factory=dict)
    """Flags that mean nothing behind yibu's gateway → why; adopt leaves them out."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """Flags that would keep the gateway from reaching the server → what to do instead; adopt leaves
    these out too, and a launch plan refuses them."""
    secrets: frozenset[str] = frozenset()
    """Flags with secret values, which must not appear on a command line."""
    translations: Mapping[str, FlagTranslation] = field(default_factory=dict)
    """Replacements of older versions' flags, by name."""
    plugins: Mapping[str, str] = field(default_factory=dict)
    """List flags by the flag that adds to them."""
    options: Mapping[str, str] = field(default_factory=dict)
    """yibu's names of options → the flags that they stand for."""
    hub_variable: str = ""
    """With it set to true, bare names of models are ModelScope's."""
    prefixes: tuple[str, ...] = ()
    """Prefixes of this engine's environment variables."""
    paths: frozenset[str] = frozenset()
    """Flags whose values are files or folders, which begin where the server was started."""
    ends: frozenset[str] = frozenset({"help", "h"})
    """Flags with which the program prints something and ends."""
    program_option: str = ""
    """The option that names a server program of the user's own."""
    adopt_options: Callable[[dict[str, Any]], dict[str, Any]] = lambda options: options
    """Turns flags read as options into those that yibu.yaml should have."""

    def started(self, argv: Sequence[str]) -> list[str] | None:
        """The server's own arguments, with the model as ``--model``, if the command starts it."""
        program, rest = _base(argv[0]), list(argv[1:])
        found = self._after(self.programs.get(program), rest)
        if found is None and re.fullmatch(r"python[\d.]*", program):
            while rest and rest[0].startswith("-") and rest[0] not in ("-m", "-c"):
                rest = rest[2 if rest[0] in ("-W", "-X") else 1 :]  # -u and the like
            if len(rest) >= 2 and rest[0] == "-m":
                found = self._after(self.modules.get(rest[1]), rest[2:])
            elif rest and rest[0].endswith(self.files):
                found = rest[1:]
            elif rest and "/" in rest[0]:  # a console script, as a running process shows it
                found = self._after(self.programs.get(_base(rest[0])), rest[1:])
        return None if found is None else self._with_model(found)

    @staticmethod
    def _after(words: tuple[str, ...] | None, rest: list[str]) -> list[str] | None:
        if words is None or tuple(rest[: len(words)]) != words:
            return None
        return rest[len(words) :]

    def _with_model(self, words: list[str]) -> list[str]:
        """The words with a positional model turned into ``--model``."""
        if not self.positional:
            return words
        if words and not is_flag(words[0]):
            return ["--model", *words]
        kept: list[str] = []
        model: list[str] = []
        for flag in self.table.read(words):
            old = self.translations.get(flag.name)
            kind = "switch" if old and old.switch else self.table.flags.get(flag.name, "value")
            count = {"switch": 0, "value": 1}.get(kind)
            if count is not None and len(flag.values) == count + 1 and not model:
                model = ["--model", flag.values[-1]]
                kept += flag.words[:-1]
            else:
                kept += flag.words
        return [*model, *kept]

    def only_prints(self, words: Sequence[str]) -> bool:
        """Whether the program would print something (``--help``) and end.

        Raises:
            ConfigError: the words cannot be read.
        """
        return any(flag.name in self.ends and not flag.off for flag in self.table.read(words))

    def left_out(self, name: str) -> str | None:
        """Why adopt leaves a flag out; None if it keeps it."""
        return self.refused.get(name) or self.unused.get(name)

    def refuse(self, model: str, flag: Flag) -> None:
        """Raise ConfigError for a flag that an engine behind a gateway must not get."""
        who = f"model {model!r}: {spelt(flag.name)}"
        if (role := self.roles.get(flag.name)) is not None:  # lifted from what users write
            raise ConfigError(
                "{who} is not the engine's here",
                who=who,
                settings=SETTINGS[role],
                hint="Set {settings} in yibu.yaml",
            )
        if flag.name in self.refused:
            raise ConfigError(
                "{who} cannot be used, because the engine listens on loopback behind the gateway",
                who=who,
                hint=self.refused[flag.name],
            )
        if flag.name in self.ends:
            raise ConfigError(
                "{who} would have {title} print something and end",
                who=who,
                title=self.title,
                url=self.documentation,
                hint="Leave it out; {url} lists the flags",
            )
        if flag.name in self.secrets and flag.values:
            raise ConfigError(
                "{who} would stand on the engine's command line, where every user of the "
                "machine can read it",
                who=who,
                hint=self.unused[flag.name],
            )

    def lift(
        self,
        words: Sequence[str],
        options: Mapping[str, Any] = _NONE,
        env: Mapping[str, str] = _NONE,
    ) -> Lifted:
        """Separate host, port, keys, names and model from the flags of a bare server.

        Flags win over options, and options over variables.

        Raises:
            ConfigError: one of them lacks its value, or the port is no number.
        """
        found: dict[Role, tuple[str, ...]] = {}
        kept_env = dict(env)
        for variable, name in self.table.variables.items():
            role = self.roles.get(name)
            if role is not None and (value := kept_env.pop(variable, "")):
                found[role] = (value,)
        kept_options = dict(options)
        owned = {option: value for option, value in options.items() if self._role_of(option)}
        for option in owned:
            del kept_options[option]
        kept: list[Flag] = []
        given = self.table.read(words)
        for flag in (*self.table.of_options(owned), *given):
            role = self.roles.get(flag.name)
            if role is None:
                kept.append(flag)
            elif not flag.values:
                raise lacks_value(tr("the flag {words}", words=flag.words[0]), flag.words[0])
            elif len(flag.values) > 1 and self.table.flags.get(flag.name) in _ONE_VALUE:
                raise ConfigError(
                    "the flag {words} takes one value, found {values!r}",
                    words=flag.words[0],
                    values=" ".join(flag.values),
                    hint="Quote a value that has spaces",
                )
            elif role == "key":
                found[role] = (*found.get(role, ()), *flag.values)
            else:
                found[role] = flag.values
        typed = any(self.roles.get(flag.name) == "key" for flag in given)
        return self._lifted(found, Lifted(tuple(kept), kept_options, kept_env), typed=typed)

    def _role_of(self, option: str) -> Role | None:
        return None if option in self.options else self.roles.get(self.table.name(option)[0])

    def _lifted(
        self, found: Mapping[Role, tuple[str, ...]], rest: Lifted, *, typed: bool
    ) -> Lifted:
        def one(role: Role) -> str | None:
            return found[role][-1] if role in found else None

        port, repo, file = one("port"), one("hub_repo"), one("hub_file")
        if port is not None and not port.isdigit():
            raise ConfigError("--port has to be a number, found {port!r}", port=port)
        hub = None
        if repo is not None:
            repo = repo.removeprefix("hf:")
            hub = f"hf:{repo.partition(':')[0]}#{file}" if file else f"hf:{repo}"
        separator = self.table.strict
        names = [name for given in found.get("name", ()) for name in _split(given, separator)]
        keys = [key for given in found.get("key", ()) for key in _split(given, separator)]
        return Lifted(
            flags=rest.flags,
            options=rest.options,
            env=rest.env,
            host=one("host"),
            port=None if port is None else int(port),
            api_keys=tuple(keys),
            keys_on_command_line=typed,
            key_file=one("key_file"),
            names=tuple(names),
            model=one("model"),
            hub_model=hub,
            adapters=tuple(map(adapter, found.get("adapters", ()))),
        )


def _base(path: str) -> str:
    return path.rpartition("/")[2]


def _split(text: str, commas: bool) -> list[str]:
    return [part.strip() for part in text.split(",")] if commas else [text]


def adapter(word: str) -> tuple[str, str]:
    """``name=path``, or vLLM's newer ``{"name": …, "path": …}``.

    Raises:
        ConfigError: it is neither.
    """
    name, equals, path = word.partition("=")
    if word.startswith("{"):
        try:
            read = json.loads(word)
            name, path = read["name"], read["path"]
        except (ValueError, KeyError, TypeError):
            name = path = ""
    elif not equals:
        name = path = ""
    if not (isinstance(name, str) and isinstance(path, str) and name and path):
        raise ConfigError(
            "--lora-modules has {word!r}; name=path was expected",
            word=word,
            hint="Or write it into yibu.yaml: options: {lora: {NAME: PATH_OR_SOURCE}}",
        )
    return name, path


def server_command(engine: str, table: FlagTable, **more: Any) -> ServerCommand:
    """The server described by ``server.toml`` in an engine's folder, with ``more`` from code."""
    rows = engine_table(engine, "server.toml")
    for name in ("programs", "modules"):
        rows[name] = {program: tuple(words) for program, words in rows.get(name, {}).items()}
    for name in ("unused", "refused"):
        reasons = rows.get(name, {}).items()
        rows[name] = {flag: tr(why) for flags, why in reasons for flag in flags.split()}
    for name in ("files", "prefixes"):
        rows[name] = tuple(rows.get(name, ()))
    for name in {"secrets", "paths", "ends"} & rows.keys():
        rows[name] = frozenset(rows[name])
    images = [
        Image(re.compile(row.pop("pattern")), **{name: tuple(words) for name, words in row.items()})
        for row in rows.get("images", ())
    ]
    return ServerCommand(table=table, **{**rows, "images": tuple(images)}, **more)
