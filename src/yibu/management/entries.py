"""From yibu.yaml and a command line to the models to bring up: entries are read, then written once.

What users write for a bare server (its host, port, keys, names, model and GPUs, in an entry's ``flags:``,
``options:`` and ``env:`` or after ``--``) becomes the gateway's settings and the entry's own; the rest
stays the engine's. A contradiction is refused, with the line to write.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from yibu.config import ENGINE_NAMES, Config, EngineName, ModelConfig
from yibu.config.names import check_name, plain_name
from yibu.engines import registry
from yibu.engines.gpu_variables import GPU_VARIABLES, shown_gpus
from yibu.engines.servers import Lifted
from yibu.errors import ConfigError, UsageError
from yibu.management.gateway_flags import from_command_line, from_entries
from yibu.management.sources import path_note, resolve_source, served_name
from yibu.messages import tr


@dataclass(frozen=True, slots=True)
class TypedOptions:
    """A command line's arguments beside the models' names."""

    name: str | None = None
    engine: str | None = None
    flags: tuple[str, ...] = ()
    """Flags after ``--``."""
    host: str | None = None
    port: int | None = None
    force: bool = False
    offline: bool = False


NOTHING_TYPED = TypedOptions()


@dataclass(frozen=True, slots=True)
class Chosen:
    """What to bring up, and the gateway's settings."""

    config: Config
    models: tuple[ModelConfig, ...]
    """The models; sources are complete, so that the node needs no directory to read them."""
    notes: tuple[str, ...] = ()
    """What became of the gateway's flags, in words."""
    from_file: bool = False
    """Whether no model was named, which means all of the file."""


_NOTHING = Lifted(())


@dataclass(frozen=True, slots=True)
class _Entry:
    """One entry of the file, or of the command line."""

    model: ModelConfig
    found: Lifted = _NOTHING
    """Its flags, options and variables, taken apart."""
    words: tuple[str, ...] = ()
    """The engine's own flags."""
    is_command: bool = False
    """Its flags are those of a user's own command, and stay as they are: only it knows what they mean."""

    @classmethod
    def of(cls, model: ModelConfig) -> _Entry:
        server = registry.server_of(model)
        if server is None:
            found = Lifted((), options=model.options, env=model.env)
            return cls(model, found, model.flags, is_command=True)
        try:
            found = server.lift(model.flags, model.options, model.env)
        except ConfigError as error:
            raise ConfigError(
                "model {model!r}: {error_message}",
                model=model.name,
                error_message=error.message,
                hint=error.hint,
            ) from error
        if found.key_file is not None:
            raise ConfigError(
                "model {model!r}: a file of keys stands in its flags",
                model=model.name,
                key_file=found.key_file,
                hint="Keys are the gateway's: gateway: {{api_key_file: {key_file}}}",
            )
        return cls(model, found, found.words)

    @property
    def names(self) -> tuple[str, ...]:
        """All names that clients may use."""
        adapters = (name for name, _ in self.found.adapters)
        return tuple(dict.fromkeys((*self.model.names, *adapters, *self.found.names)))

    def source(self, directory: Path) -> str:
        """Where its files are, whole; "" for none."""
        written = self.model.source
        if (named := self.found.hub_model or self.found.model) is not None:
            named = _local_first(named, directory)
            if written and named not in (written, f"hf:{written}", f"modelscope:{written}"):
                raise ConfigError(
                    "model {model!r} has the source {written}, and its flags say --model {named}",
                    model=self.model.name,
                    written=written,
                    named=named,
                    hint="Take --model out of its flags, or write: source: {named}",
                )
            written = written or named
        return str(resolve_source(written, directory)) if written else ""

    def settled(self, directory: Path, typed: TypedOptions, flags: Lifted) -> ModelConfig:
        """The entry as the node gets it, with the command line's arguments applied."""
        model, own = self.model, self.found
        base = model.directory or directory
        options = {**own.options}
        lora = {
            **{name: str(resolve_source(s, base)) for name, s in model.adapters.items()},
            **{name: str(resolve_source(s, base)) for name, s in _adapters(own, base).items()},
            **{name: str(resolve_source(s, directory)) for name, s in _adapters(flags, directory).items()},
        }  # fmt: skip
        if lora:
            options["lora"] = lora
        engine = _engine(typed.engine) or model.engine
        for option in registry.source_options(replace(model, options=options, engine=engine)):
            if isinstance(text := options.get(option), str):
                options[option] = str(resolve_source(text, base))
        name, *typed_names = (
            *_name(typed.name),
            *flags.names,
            *([] if typed.name or flags.names else [model.name]),
        )
        others = dict.fromkeys((*model.aliases, *own.names, *typed_names))
        env = own.env
        if not self.is_command:
            env = {name: value for name, value in env.items() if name not in GPU_VARIABLES}
        return replace(
            model,
            name=name,
            name_derived=model.name_derived and not (typed.name or flags.names),
            source=self.source(base),
            engine=engine,
            options=options,
            flags=(*self.words, *typed.flags),
            env=env,
            gpus=model.gpus if self.is_command else self._gpus(),
            aliases=tuple(other for other in others if other != name and other not in lora),
            directory=base,
            force=typed.force,
            offline=typed.offline,
        )

    def _gpus(self) -> tuple[int, ...] | None:
        """GPUs of ``gpus:``, or of a variable in its ``env:``."""
        model, chosen = self.model, self.model.gpus
        for variable in GPU_VARIABLES:
            if (value := model.env.get(variable)) is None:
                continue
            named = _numbers(model, variable, value)
            if chosen is not None and chosen != named:
                raise ConfigError(
                    "model {model!r} has gpus: {chosen}, and its env {variable}={value}",
                    model=model.name,
                    chosen=list(chosen),
                    variable=variable,
                    value=value,
                    named=list(named),
                    hint="Take {variable} out of its env, or write: gpus: {named}",
                )
            chosen = named
        return chosen


def choose(
    wanted: Sequence[str],
    config: Config,
    directory: Path,
    typed: TypedOptions = NOTHING_TYPED,
    *,
    may_be_empty: bool = False,
) -> Chosen:
    """The models that are named (names of the file, catalogue entries, sources), or all of the file.

    ``may_be_empty``: the file may say that it has none.

    Raises:
        UsageError: nothing is named anywhere, or a name is unknown, or several models are named with
            flags for one.
        ConfigError: flags contradict the file or each other, or two models claim one name.
    """
    _engine(typed.engine)
    entries = [_Entry.of(model) for model in config.models]
    _refuse_twins(entries)
    for_one = typed.name or typed.engine or typed.flags
    wanted, typed, flags = _read_typed(wanted, typed, entries, directory)
    if not wanted and not entries and not (may_be_empty and config.no_models):
        raise no_model(config)
    named = [_named(text, entries, directory) for text in wanted] if wanted else entries
    if for_one and len(named) != 1:
        raise UsageError(
            "--name, --engine and flags after -- belong to one model, and {named_count} are named.",
            named_count=len(named),
            hint="Name one model, or write the settings into yibu.yaml: yibu init",
        )
    models = [entry.settled(directory, typed, flags) for entry in named]
    _refuse_clashes(models, entries, directory)
    config, said = from_command_line(config, flags, typed.host, typed.port)
    config, notes = from_entries(config, [(one.model.name, one.found) for one in entries])
    unique = {model.name: model for model in models}
    paths = [path_note(text, directory) for text in wanted]
    paths += [path_note(e.model.source, e.model.directory or directory) for e in named]
    meant = dict.fromkeys(note for note in paths if note)
    return Chosen(config, tuple(unique.values()), (*meant, *said, *notes), from_file=not wanted)


def no_model(config: Config) -> UsageError:
    if config.path is None:
        return UsageError(
            "No model was named, and there is no yibu.yaml here.",
            hint="Try: yibu up smollm2, or write a file with: yibu init",
        )
    return UsageError(
        "No model was named, and {path} has none.",
        path=config.path,
        hint="Try: yibu up smollm2. To stop the models that it had: models: [], and yibu apply -f {path}",
    )


def gateway_settings(config: Config) -> Config:
    """The configuration with the gateway as its entries' flags ask for it. Raises ConfigError."""
    entries = [_Entry.of(model) for model in config.models]
    return from_entries(config, [(one.model.name, one.found) for one in entries])[0]


def _read_typed(
    wanted: Sequence[str], typed: TypedOptions, entries: Sequence[_Entry], directory: Path
) -> tuple[Sequence[str], TypedOptions, Lifted]:
    """The flags after ``--``, taken apart: where ``--model`` is among them, it names what to bring up; what is
    left as typed are the engine's own."""
    if not typed.flags:
        return wanted, typed, _NOTHING
    word = wanted[0] if len(wanted) == 1 else ""
    known = [e.model for e in entries if e.model.name == word or (not wanted and len(entries) == 1)]
    model = known[0] if known else ModelConfig("", source=word)
    engine = _engine(typed.engine) or model.engine
    server = registry.server_of(replace(model, engine=engine, flags=typed.flags))
    if server is None:
        return wanted, typed, _NOTHING
    found = server.lift(typed.flags)
    named = found.hub_model or found.model
    if named is not None:
        named = _local_first(named, directory)
        if wanted and tuple(wanted) != (named,):
            raise UsageError(
                "--model {named} stands after --, and {wanted} before it.",
                named=named,
                wanted=", ".join(wanted),
                hint=tr("Name the model once: yibu up {wanted} -- FLAGS", wanted=wanted[0]),
            )
        wanted = (named,)
    return wanted, replace(typed, flags=found.words), found


def _named(text: str, entries: Sequence[_Entry], directory: Path) -> _Entry:
    for entry in entries:
        if entry.model.name == text:
            return entry
    from yibu.hub.catalogue import lookup
    from yibu.hub.source import existing_path

    if existing_path(text, directory) is None and (known := lookup(text)) is not None:
        # Served under the name that was typed: it is what the user will ask for.
        name, source = text.strip().lower(), known.source()
    else:
        source = resolve_source(text, directory)
        name = served_name(
            source.file or (f"{source.name}:{source.tag}" if source.tag else source.name)
        )
    return _Entry(ModelConfig(name=name, source=str(source), name_derived=True))


def _refuse_twins(entries: Sequence[_Entry]) -> None:
    owners: dict[str, str] = {}
    for entry in entries:
        for name in entry.names:
            if (other := owners.setdefault(name, entry.model.name)) != entry.model.name:
                raise ConfigError(
                    "the models {other} and {model} both claim the name {name!r}; "
                    "clients could reach only one",
                    other=other,
                    model=entry.model.name,
                    name=name,
                    hint="Take it out of one's aliases, or of its --served-model-name",
                )


def _refuse_clashes(
    chosen: Sequence[ModelConfig], entries: Sequence[_Entry], directory: Path
) -> None:
    """Raises UsageError where a name that was taken from a source means another model already."""
    here: dict[str, ModelConfig] = {}
    in_file = {plain_name(name): entry for entry in entries for name in entry.names}
    for model in chosen:
        name, where, known = plain_name(model.name), tr("this command has"), model
        if (entry := in_file.get(name)) is not None:
            source = entry.source(entry.model.directory or directory)
            where, known = "yibu.yaml has", replace(entry.model, source=source)
        else:
            known = here.setdefault(name, model)
        if model.source != known.source and (model.name_derived or known.name_derived):
            raise UsageError(
                "{model_source} would be named {model}, and {where} a {known} already, "
                "from {known_source}.",
                model_source=model.source,
                model=model.name,
                where=where,
                known=known.name,
                known_source=known.source or tr("no source"),
                hint="Give it another name: yibu up {model_source} --name NAME",
            )


def _numbers(model: ModelConfig, variable: str, value: str) -> tuple[int, ...]:
    if (numbers := shown_gpus(value)) is not None:
        return numbers
    from yibu.node.machine import hardware

    found = hardware.visible(hardware.gpus(), value)
    if len(found) != len(value.split(",")):
        raise ConfigError(
            "model {model!r}: its env has {variable}={value}, which names no GPU of this machine",
            model=model.name,
            variable=variable,
            value=value,
            hint="See their numbers with nvidia-smi -L, and write: gpus: [0]",
        )
    return tuple(gpu.index for gpu in found)


def _adapters(found: Lifted, directory: Path) -> dict[str, str]:
    """LoRA adapters that flags name, by name."""
    return {name: _local_first(path, directory) for name, path in found.adapters}


def _local_first(name: str, directory: Path) -> str:
    """An engine takes a folder of that name before it asks a hub; a bare name here is a hub's."""
    if not name.startswith(("/", "~", ".")):
        return f"./{name}" if (directory / name).exists() else name
    return name


def _name(name: str | None) -> tuple[str, ...]:
    if name is None:
        return ()
    try:
        return (check_name(name),)
    except ValueError as error:
        raise UsageError(
            "--name {name!r} cannot be used: {error}.", name=name, error=error
        ) from error


def _engine(name: str | None) -> EngineName | None:
    if name is None or name in ENGINE_NAMES:
        return name
    raise UsageError(
        "{name!r} is no engine; known are {engines}.", name=name, engines=", ".join(ENGINE_NAMES)
    )
