"""The chunks of a stream differ in their text alone, so that one that was looked through tells the next."""

from __future__ import annotations

import re

from yibu.gateway.answers.sse import is_utf8

_TEXT = re.compile(rb'"(?:content|text|reasoning_content|reasoning)":"')


class ChunkTemplate:
    """What stands before and behind the text of a chunk, as the engine writes it and as it is sent on.

    Comparing it whole costs a tenth of looking for what may have to be changed.
    """

    def __init__(self) -> None:
        self._given = (b"", b"")
        self._sent = (b"", b"")
        self._known = False

    def learn(self, given: bytes, sent: bytes) -> None:
        """Take the events for templates, where they are one line with one text without escapes."""
        self._known = False
        before, after = _cut(given), _cut(sent)
        if before is not None and after is not None:
            self._given, self._sent, self._known = before, after, True

    def apply(self, data: bytes) -> bytes | None:
        """What whole events in ``data`` become; None where any of them is another kind of event."""
        if not self._known or not data.endswith(self._given[1]):
            return None
        before, behind = self._given
        first, last = self._sent
        sent = []
        for event in data[:-2].split(b"\n\n"):
            text = event[len(before) : -len(behind) + 2]
            if not (
                event.startswith(before)
                and event.endswith(behind[:-2])
                and len(event) + 2 >= len(before) + len(behind)
                and b'"' not in text
                and b"\n" not in text
                and b"\r" not in text
                and not text.endswith(b"\\")
                and is_utf8(text)
            ):
                return None
            sent += [first, text, last]
        return b"".join(sent)


def _cut(event: bytes) -> tuple[bytes, bytes] | None:
    """An event before and behind its text."""
    found = _TEXT.findall(event)
    if len(found) != 1 or b"\\" in event:
        return None
    start = event.index(found[0]) + len(found[0])
    return event[:start], event[event.index(b'"', start) :]
