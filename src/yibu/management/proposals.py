"""The console's deployment page: entries from what was typed or pasted, and their plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from yibu.errors import UsageError
from yibu.management.context import Context
from yibu.management.files import ConfigFile
from yibu.messages import tr

if TYPE_CHECKING:
    from yibu.config import Config
    from yibu.management.planning import Planned
    from yibu.planner.explain import Row
    from yibu.planner.ledger import Reservation


@dataclass(frozen=True, slots=True)
class Proposal:
    """Entries in the form of yibu.yaml."""

    entries: Sequence[Mapping[str, Any]]
    warnings: Sequence[str] = ()
    secrets: Sequence[str] = field(default=())
    """Names of variables, and "API keys", whose values are left out."""
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Those values: what refers to them is planned as if the node had them."""


def propose(wanted: Mapping[str, Any], context: Context) -> Proposal:
    """The entries that a request means; it has one of ``model``, ``script`` and ``yaml``.

    Raises:
        YibuError: it cannot be understood.
    """
    if script := wanted.get("script"):
        from yibu.management.adopting import adopt_text

        values = wanted.get("set") or {}
        found = adopt_text(script, "", values, context.env, context.directory)
        secrets = [*sorted(found.secrets), *([tr("API keys")] if found.keys else [])]
        return Proposal(found.document["models"], found.warnings, secrets, found.secrets)
    if text := wanted.get("yaml"):
        import yaml

        config = _parsed(text, context)  # with every fault and its line, before it is read as it is
        if not config.models:
            raise UsageError("The text has no models", hint="models: [{name: chat, source: …}]")
        return Proposal(yaml.safe_load(text)["models"])
    return Proposal([_typed(wanted, context)])


def plan(
    wanted: Mapping[str, Any], context: Context, file: ConfigFile, held: Sequence[Reservation]
) -> dict[str, Any]:
    """As docs/console.md has it. Blocking: it asks the hub for headers.

    Raises:
        YibuError: a model cannot be found, read or served at all.
    """
    from yibu.management.entries import choose
    from yibu.management.insertion import entries_text
    from yibu.management.planning import plan_beside

    proposal = propose(wanted, context)
    text = entries_text(proposal.entries)
    context = context.with_env(**proposal.variables)
    chosen = choose([], _parsed(text, context), context.directory)
    about, notes, planned = plan_beside(chosen.models, context, held, wanted.get("machine"))
    return {
        "fits": all(one.plan.placement is not None for one in planned),
        "machine": list(map(_row, about)),
        "models": [_model(one) for one in planned],
        "notes": [*chosen.notes, *notes],
        "warnings": list(proposal.warnings),
        "secrets": list(proposal.secrets),
        "yaml": text,
        "file": _in_file(proposal, file),
    }


def _model(one: Planned) -> dict[str, Any]:
    notes = [row.value for row in one.rows if row.kind == "note"]
    rows = [_row(row) for row in one.rows if row.kind == "value"]
    return {**one.data(), "rows": rows, "notes": notes}


def _row(row: Row) -> dict[str, str]:
    return {"label": row.label, "value": row.value, "note": row.note}


def _in_file(proposal: Proposal, file: ConfigFile) -> dict[str, Any] | None:
    """The node's file with the entries in it; None where it cannot take them as it is."""
    import yaml

    from yibu.management.insertion import with_entries

    now = file.read()
    try:
        text = with_entries(now["text"], proposal.entries)
    except yaml.YAMLError:
        return None
    diff = file.text_difference(text)
    return {"path": now["path"], "sha256": now["sha256"], "text": text, "diff": diff}


def _typed(wanted: Mapping[str, Any], context: Context) -> dict[str, Any]:
    """The entry of one model that was named, as `yibu up` would bring it up."""
    from yibu.config import Config
    from yibu.management.entries import TypedOptions, choose

    flags = tuple(wanted.get("flags") or ())
    typed = TypedOptions(name=wanted.get("name"), engine=wanted.get("engine"), flags=flags)
    model = choose([wanted.get("model") or ""], Config(), context.directory, typed).models[0]
    entry: dict[str, Any] = {"name": model.name, "source": model.source}
    if wanted.get("engine"):
        entry["engine"] = wanted["engine"]
    if model.flags:
        entry["flags"] = list(model.flags)
    return {**entry, **(wanted.get("settings") or {})}


def _parsed(text: str, context: Context) -> Config:
    from yibu.config import file as config_file

    schema = config_file.parse(text.encode(), tr("the text"), env=context.env)
    return config_file.resolve(schema, None, env=context.env)
