"""Tool calls completed to OpenAI's specification.

Every call has an id, a type, a name and its arguments as JSON, ``{}`` where there are none. In a stream its first
delta has all but the rest of the arguments, and each call has an index of its own.
"""

from __future__ import annotations

import uuid

import orjson

from yibu.engines.answers import Fields, objects


def normalize_calls(message: Fields, *, cut: bool) -> bool:
    """Complete the calls of a whole message; whether it has any. ``cut``: by the token limit."""
    calls = _calls_in(message)
    if not calls:
        message.pop("tool_calls", None)
        return bool(message.get("function_call"))
    message["tool_calls"] = calls
    for call in calls:
        call["id"] = str(call.get("id") or _new_id())
        _complete(call)
        if "function" in call and not cut:
            call["function"]["arguments"] = call["function"]["arguments"] or "{}"
    return True


def _calls_in(holder: Fields) -> list[Fields]:
    calls = holder.get("tool_calls")  # TGI before 3.1 streams the one call, not a list of it
    return objects([calls] if isinstance(calls, dict) else calls)


class ToolCallDeltas:
    """The calls of one choice in a stream; ``names`` are those of the request's tools."""

    def __init__(self, names: frozenset[str] = frozenset()) -> None:
        self._names = names
        self._ids: list[str] = []
        """Call ids by the client's index."""
        self._called: list[str] = []
        """The names so far, by the client's index."""
        self._given: dict[int, int] = {}
        """The client's index of the latest call, by the engine's."""
        self._filled: set[int] = set()
        """Calls that have arguments."""
        self._held: dict[int, Fields] = {}
        """Calls held back because their name may be incomplete: many clients take it from the first delta."""

    def __bool__(self) -> bool:
        return bool(self._ids)

    def normalize(self, delta: Fields, reason: str | None = None) -> None:
        """Complete the calls of one delta; ``reason`` is why it ends its choice."""
        calls = [call for call in _calls_in(delta) if self._normalize(call)]
        if reason is not None:
            calls += self._held.values()
            # Clients parse the arguments of a call that takes none, too.
            for index in range(len(self._ids)):
                if reason != "length" and index not in self._filled:
                    calls.append({"index": index, "function": {"arguments": "{}"}})
        if calls:
            delta["tool_calls"] = calls
        else:
            delta.pop("tool_calls", None)

    def _normalize(self, call: Fields) -> bool:
        """Complete a delta of a call; whether to send it now."""
        given = call.get("index")
        if call.get("id") is not None:
            call["id"] = str(call["id"])
        known = self._find(call, given)
        if known is None:
            known = len(self._ids)
            self._ids.append(call.get("id") or _new_id())
            call["id"] = self._ids[known]
            _complete(call)
            new = call.get("function")
            self._called.append(new["name"] if isinstance(new, dict) else "")
        else:
            self._continue(call, known)
        if isinstance(given, int):
            self._given[given] = known
        call["index"] = known
        function = call.get("function")
        if "custom" in call or (isinstance(function, dict) and function.get("arguments")):
            self._filled.add(known)
        elif not isinstance(function, dict):
            return True
        elif self._goes_on(self._called[known]):
            self._held[known] = dict(call)
            return False
        self._held.pop(known, None)
        return True

    def _continue(self, call: Fields, known: int) -> None:
        """Reduce a later delta to what clients may append: no id or name a second time."""
        call.pop("id", None)
        call.pop("type", None)
        function = call.get("function")
        if isinstance(function, dict):
            before = self._called[known]
            whole = self._called[known] = self._named(before, function.pop("name", None) or "")
            if before != whole:
                function["name"] = whole.removeprefix(before)
            if "arguments" in function:
                function["arguments"] = as_text(function["arguments"])
        if (held := self._held.get(known)) is not None:
            arguments = function.get("arguments", "") if isinstance(function, dict) else ""
            whole_function = {"name": self._called[known], "arguments": arguments}
            call |= {**held, "function": {**held["function"], **whole_function}}

    def _named(self, name: str, piece: str) -> str:
        """The name with a piece appended, unless the piece repeats it."""
        for whole in (name + piece, piece, name):
            if any(known.startswith(whole) for known in self._names):
                return whole
        return name or piece

    def _goes_on(self, name: str) -> bool:
        return any(known != name and known.startswith(name) for known in self._names)

    def _find(self, call: Fields, given: object) -> int | None:
        """The index of the call that this delta continues; None where it begins one."""
        identifier = call.get("id")
        if identifier in self._ids:
            return self._ids.index(identifier)
        function = call.get("function")
        name = function.get("name") if isinstance(function, dict) else None
        if isinstance(given, int):
            known = self._given.get(given)
            other = name and (bool(identifier) or known in self._filled)
            return None if other else known
        last = len(self._ids) - 1
        if (
            name
            and not identifier
            and last in self._held
            and self._named(self._called[last], name) != name
        ):
            return last
        return None if name or not self._ids else last


def _complete(call: Fields) -> None:
    if "custom" in call:
        call.setdefault("type", "custom")
        return
    call["type"] = "function"
    function = call.get("function")
    if not isinstance(function, dict):
        # Some have the function's fields beside the id.
        function = {n: call.pop(n) for n in ("name", "arguments") if n in call}
        call["function"] = function
    function["name"] = function.get("name") or ""
    function["arguments"] = as_text(function.get("arguments"))


def as_text(arguments: object) -> str:
    if isinstance(arguments, str):
        return arguments
    return "" if arguments is None else orjson.dumps(arguments).decode()


def _new_id() -> str:
    return "call_" + uuid.uuid4().hex[:24]
