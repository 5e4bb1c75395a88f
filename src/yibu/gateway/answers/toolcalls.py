"""Tool calls as OpenAI's specification has them, whatever the engine left out.

Whole: every call has an id, a type, a name and its arguments as a string. Streamed: the first delta
of a call has all of them, each call has an index of its own, and later deltas bring arguments alone.
"""

from __future__ import annotations

import uuid

import orjson

from yibu.engines.answers import Fields, objects


def normalize_calls(message: Fields) -> bool:
    """Complete the calls of a whole message; whether it has any."""
    calls = objects(message.get("tool_calls"))
    if not calls:
        message.pop("tool_calls", None)
        return bool(message.get("function_call"))
    message["tool_calls"] = calls
    for call in calls:
        call["id"] = call.get("id") or _new_id()
        _complete(call)
    return True


class ToolCallDeltas:
    """The calls of one choice in a stream."""

    def __init__(self) -> None:
        self._ids: list[str] = []
        """By the index that clients see."""
        self._given: dict[int, int] = {}
        """The engine's index of the latest call with it → ours."""
        self._filled: set[int] = set()
        """Calls that have arguments."""

    def __bool__(self) -> bool:
        return bool(self._ids)

    def normalize(self, delta: Fields) -> None:
        """Complete the calls of one delta."""
        calls = objects(delta.get("tool_calls"))
        if "tool_calls" in delta and not calls:
            del delta["tool_calls"]
        for call in calls:
            self._normalize(call)

    def _normalize(self, call: Fields) -> None:
        given = call.get("index")
        known = self._find(call, given)
        if known is None:
            known = len(self._ids)
            self._ids.append(call.get("id") or _new_id())
            call["id"] = self._ids[known]
            _complete(call, streamed=True)
        else:
            # Clients join strings: an id or a name that is repeated would be doubled.
            call.pop("id", None)
            call.pop("type", None)
            if isinstance(function := call.get("function"), dict):
                function.pop("name", None)
                if "arguments" in function:
                    function["arguments"] = _as_text(function["arguments"])
        if isinstance(given, int):
            self._given[given] = known
        call["index"] = known
        function = call.get("function")
        if isinstance(function, dict) and function.get("arguments"):
            self._filled.add(known)

    def _find(self, call: Fields, given: object) -> int | None:
        """The call that this delta goes on with; None where it begins one."""
        identifier = call.get("id")
        if identifier in self._ids:
            return self._ids.index(identifier)
        function = call.get("function")
        named = isinstance(function, dict) and bool(function.get("name"))
        if isinstance(given, int):
            known = self._given.get(given)
            other = named and (bool(identifier) or known in self._filled)
            return None if other else known
        return None if named or not self._ids else len(self._ids) - 1


def _complete(call: Fields, *, streamed: bool = False) -> None:
    if "custom" in call:
        call.setdefault("type", "custom")
        return
    call["type"] = call.get("type") or "function"
    function = call.get("function")
    if not isinstance(function, dict):
        # Some have the function's fields beside the id.
        function = {n: call.pop(n) for n in ("name", "arguments") if n in call}
        call["function"] = function
    function.setdefault("name", "")
    empty = "" if streamed else "{}"
    function["arguments"] = _as_text(function.get("arguments"), empty)


def _as_text(arguments: object, empty: str = "") -> str:
    if isinstance(arguments, str):
        return arguments
    return empty if arguments is None else orjson.dumps(arguments).decode()


def _new_id() -> str:
    return "call_" + uuid.uuid4().hex[:24]
