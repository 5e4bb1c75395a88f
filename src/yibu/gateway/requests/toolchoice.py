"""``tool_choice`` in the shapes of Chat Completions, Responses and Messages."""

from __future__ import annotations

from typing import Any

from yibu.engines.answers import objects
from yibu.errors import InvalidRequestError
from yibu.messages import tr

Body = dict[str, Any]

_FORCED = frozenset({"function", "custom", "tool", "any"})
"""Types of a choice that demand a call: of one function, or (Anthropic's ``any``) of any."""


def demands_call(body: Body) -> bool:
    """Whether the request demands a tool call.

    Raises:
        InvalidRequestError: it names a function that is not among its tools, or has no tools.
    """
    choice = body.get("tool_choice")
    function = body.get("function_call")
    if isinstance(function, dict):
        _check_names(body, "functions", "function_call.name", [function.get("name")])
        return False  # the older form, which answers with ``function_call``
    if choice == "required":
        _check_tools(body)
        return True
    if not isinstance(choice, dict):
        return False
    kind = choice.get("type")
    if kind == "allowed_tools":
        allowed = choice.get("allowed_tools", choice)
        if not isinstance(allowed, dict):
            return False
        names = [
            _name(tool)
            for tool in objects(allowed.get("tools"))
            if tool.get("type") in {None, "function", "custom"}
        ]
        _check_names(body, "tools", "tool_choice", names)
        return allowed.get("mode") == "required"
    if kind not in _FORCED:
        return False
    if kind == "any":
        _check_tools(body)
    else:
        _check_names(body, "tools", "tool_choice", [_name(choice)])
    return True


def tool_names(body: Body) -> frozenset[str]:
    """The names of the request's tools."""
    names = map(_name, objects(body.get("tools")))
    return frozenset(name for name in names if isinstance(name, str))


def _check_tools(body: Body) -> None:
    if not body.get("tools"):
        raise InvalidRequestError(
            "'tool_choice' is only allowed when 'tools' are given", param="tool_choice"
        )


def _check_names(body: Body, field: str, param: str, names: list[Any]) -> None:
    known = [_name(tool) for tool in objects(body.get(field))]
    for name in names:
        if isinstance(name, str) and name not in known:
            have = ", ".join(str(other) for other in known if other) or tr("none")
            raise InvalidRequestError(
                tr(
                    "'{param}' names the function {name!r}, which is not in '{field}'; those "
                    "are: {have}",
                    param=param,
                    name=name,
                    field=field,
                    have=have,
                ),
                param=param,
            )


def _name(tool: Body) -> object:
    """The tool's name: nested in Chat Completions, beside the type in the other APIs."""
    nested = tool.get("function") or tool.get("custom")
    return nested.get("name") if isinstance(nested, dict) else tool.get("name")
