"""``tool_choice`` in the three APIs, for engines that support less of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from yibu.engines.requests import Body, ModelContext, as_object, refusal
from yibu.messages import tr

Mode = Literal["none", "auto", "required"]

NO_TOOLS = tr(
    "Its chat template puts no tools into the prompt, so that the model cannot know "
    "them. Use tool_choice 'auto', or a model whose template takes tools"
)


def read_choice(choice: Any) -> tuple[Mode, tuple[str, ...] | None]:
    """Whether a choice demands a call, and the tools it allows; None: all."""
    if not isinstance(choice, dict):
        return (
            "none" if choice == "none" else "required" if choice == "required" else "auto"
        ), None
    match choice.get("type"):
        case "allowed_tools":
            allowed = as_object(choice.get("allowed_tools", choice))
            mode: Mode = "required" if allowed.get("mode") == "required" else "auto"
            return mode, tuple(name_of(as_object(tool)) for tool in allowed.get("tools") or ())
        case "any":
            return "required", None
        case "none" | "auto" as plain:
            return plain, None
        case _:  # Anthropic's "tool", OpenAI's "function" and "custom"
            return "required", (name_of(choice),)


def name_of(tool: Mapping[str, Any]) -> str:
    """A tool's name, which chat nests one level deeper than the other APIs."""
    owner = tool.get(tool.get("type", ""))
    return str((owner if isinstance(owner, dict) else tool).get("name", ""))


def choose_tools(body: Body, asked: ModelContext) -> Mode:
    """Keep the tools that ``tool_choice`` allows, and return its mode.

    That it names tools which are there, the gateway has checked.

    Raises:
        InvalidRequestError: a call is demanded of a model whose template knows no tools.
    """
    mode, names = read_choice(body.get("tool_choice", "auto"))
    tools: Sequence[Mapping[str, Any]] = body.get("tools") or ()
    if names is not None:
        known = {name_of(tool): tool for tool in tools}
        body["tools"] = [known[name] for name in names if name in known]
    features = asked.abilities.features
    if mode == "required" and features is not None and "tools" not in features:
        raise refusal("tool_choice", NO_TOOLS, asked)
    return mode
