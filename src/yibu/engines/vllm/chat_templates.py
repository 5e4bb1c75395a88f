"""Which chat template vLLM is given: the model's own, or one of ours where that takes no tools.

vLLM's parsers read tool calls out of what a model writes, but it writes them only when its prompt
had the tools, and some families' own templates leave a request's ``tools`` out. For a few of these
yibu has a template, written after the format that the family documents (``templates/``).
"""

from __future__ import annotations

from yibu.engines.families import Family
from yibu.messages import tr
from yibu.planner.types import ModelFacts

_OTHER = tr("options.chat_template: FILE has another used")


def template_words(
    facts: ModelFacts, family: Family | None, parses: bool, users: set[str], notes: list[str]
) -> list[str]:
    """The flags for the chat template, and into ``notes`` the reason.

    Args:
        parses: A parser of tool calls was chosen, by the user or by the family.
        users: The names of the user's flags.
    """
    if facts.pooling or "chat_template" in users:
        return []
    ours = family.parsers.template if family is not None and parses else None
    if ours is not None and family is not None and not facts.template_takes_tools:
        lack = tr("takes no tools") if facts.chat_template else tr("is missing")
        notes.append(
            tr(
                "chat template: yibu's for {title}, because the model's own {lack} ({OTHER})",
                title=family.title,
                lack=lack,
                OTHER=_OTHER,
            )
        )
        return ["--chat-template", f"{{templates}}/{ours}"]
    if not facts.chat_template:
        notes.append(
            tr(
                "chat template: the model's files have none, so that chat is refused and "
                "only /v1/completions answers (options.chat_template: FILE gives one)"
            )
        )
    elif parses and not facts.template_takes_tools:
        notes.append(
            tr(
                "chat template: the one in the model's files, which takes no tools: a "
                "request's tools do not reach the model ({OTHER})",
                OTHER=_OTHER,
            )
        )
    else:
        notes.append(tr("chat template: the one in the model's files ({OTHER})", OTHER=_OTHER))
    return []
