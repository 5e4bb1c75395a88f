"""Templates of a stream's chunks, which differ in their text alone: one parsed chunk tells how to
rewrite the next."""

from __future__ import annotations

import re

from yibu.gateway.answers.sse import is_utf8

_TEXT = re.compile(rb'"(?:content|text|reasoning_content|reasoning)": ?"')
_PLAIN = re.compile(rb'[^"\r\n\\]*(?:\\(?!u[dD][89a-fA-F])[^"\r\n\\]*)*(?<!\\)')
"""A text up to its closing quote, without surrogates."""


class ChunkTemplate:
    """What stands before and after a chunk's text, as the engine writes it and as it is sent.

    Comparing it whole costs a tenth of looking for what may have to be changed. An expression made
    for each stream would be faster still, and costs as much to compile as 300 events.
    """

    def __init__(self) -> None:
        self._before = self._behind = b""
        self._sent: tuple[bytes, bytes] | None = (b"", b"")
        """What replaces them; None where nothing changes."""
        self._known = False

    def learn(self, given: bytes, sent: bytes) -> None:
        """Use these events as templates, if they are one line with one text without escapes."""
        before, after = _cut(given), _cut(sent)
        self._known = before is not None and after is not None
        if before is not None:
            self._before, self._behind = before
            self._sent = None if before == after else after

    def forget(self) -> None:
        self._known = False

    def apply(self, data: bytes) -> bytes | None:
        """The rewritten events of ``data``; None where any of them does not match the template."""
        before, behind, sent = self._before, self._behind, self._sent
        if not self._known or not data.startswith(before) or not data.endswith(behind):
            return None
        if not is_utf8(data):
            return None
        start, end = len(before), len(behind)
        if _PLAIN.fullmatch(data, start, len(data) - end):
            return data if sent is None else b"".join((sent[0], data[start:-end], sent[1]))
        texts = []
        for event in data[:-2].split(b"\n\n"):
            stop = len(event) + 2 - end
            if not (
                event.startswith(before)
                and event.endswith(behind[:-2])
                and _PLAIN.fullmatch(event, start, stop)
            ):
                return None
            texts.append(event[start:stop])
        if sent is None:
            return data
        return b"".join((sent[0], (sent[1] + sent[0]).join(texts), sent[1]))


def _cut(event: bytes) -> tuple[bytes, bytes] | None:
    """The parts of an event before and after its text."""
    found = _TEXT.findall(event)
    if len(found) != 1 or b"\\" in event:
        return None
    start = event.index(found[0]) + len(found[0])
    return event[:start], event[event.index(b'"', start) :]
