"""OpenAI's Realtime API for transcription: client events in, server events out.

https://platform.openai.com/docs/guides/realtime-transcription; schemas ``RealtimeClientEvent*`` and
``RealtimeServerEvent*``. A faulty event is answered with an ``error`` event, and the session goes on.
"""

from __future__ import annotations

import base64
import binascii
import logging
import secrets
from collections.abc import Callable
from typing import Any

from yibu.errors import InvalidRequestError, RequestError, UnsupportedError
from yibu.speech.live.intake import Intake, decoded, open_intake
from yibu.speech.live.messages import Message, parse_object
from yibu.speech.live.session import LiveSession
from yibu.speech.live.settings import UPDATES, SessionSettings
from yibu.speech.live.tools import LiveTools
from yibu.speech.live.utterance import Utterance
from yibu.speech.types import Recognizer

log = logging.getLogger(__name__)

LEAST_COMMIT = 0.1
"""Seconds of audio that a commit needs."""
_TELLS = {
    "session.update": "session.updated",
    "transcription_session.update": "transcription_session.updated",
}


class Realtime:
    """One connection. ``handle`` each message in turn; always ``close`` it."""

    def __init__(
        self,
        tools: LiveTools,
        recognizer: Recognizer,
        names: frozenset[str],
        model: str,
        send: Callable[[Message], None],
    ) -> None:
        """``names`` are those that the model may be called by, ``model`` the one in use; ``send``
        queues a message. Raises UnsupportedError where the model cannot hear live speech."""
        self._recognizer, self._names, self._send = recognizer, names, send
        self._pool = tools.pool
        self._settings = SessionSettings(model)
        self._id = _id("sess")
        self._items: dict[Utterance, str] = {}
        self._previous: str | None = None
        self._session = LiveSession(
            tools, self, self._settings.options(recognizer), self._settings.endpointing
        )
        self._intake: Intake = open_intake(*self._settings.intake)
        self._handlers = {
            **dict.fromkeys(UPDATES, self._update),
            "input_audio_buffer.append": self._append,
            "input_audio_buffer.commit": self._commit,
            "input_audio_buffer.clear": self._clear,
        }

    @property
    def seconds(self) -> float:
        """Seconds of audio so far."""
        return self._session.seconds

    def greet(self) -> None:
        self._tell("session.created", session=self._settings.told(self._id))

    async def handle(self, message: Message) -> None:
        """Handle a client's message; faults are reported to the client."""
        event: dict[str, Any] = {}
        try:
            event = parse_object(message)
            kind = event.get("type")
            handler = self._handlers.get(kind) if isinstance(kind, str) else None
            if handler is None:
                raise InvalidRequestError(
                    "The event's type is {kind!r}; it can be {handlers}",
                    kind=str(kind)[:64],
                    handlers=", ".join(self._handlers),
                    param="type",
                    code="invalid_event_type",
                )
            await handler(event)
        except RequestError as error:
            self._tell_error(error, event.get("event_id"))
        except UnsupportedError as error:
            self._tell_error(InvalidRequestError(str(error)), event.get("event_id"))

    def close(self) -> None:
        self._session.close()
        self._intake.close()

    def tell_error(self, error: RequestError) -> None:
        self._tell_error(error, None)

    # Client events --------------------------------------------------------------------------

    async def _update(self, event: dict[str, Any]) -> None:
        kind = event["type"]
        if "session" not in event:
            raise _missing("session")
        settings = UPDATES[kind](self._settings, event["session"], self._names, self._recognizer)
        before = self._settings.endpointing
        if before is not None and settings.endpointing != before:
            await self._session.finish()  # what began under one rule ends under it
        await self._session.configure(settings.options(self._recognizer), settings.endpointing)
        if settings.intake != self._settings.intake:
            await self._hear(None)
            self._intake = open_intake(*settings.intake)
        self._settings = settings
        old = kind == "transcription_session.update"
        session = settings.told_as_before(self._id) if old else settings.told(self._id)
        self._tell(_TELLS[kind], session=session)

    async def _append(self, event: dict[str, Any]) -> None:
        audio = event.get("audio")
        if audio is None:
            raise _missing("audio")
        try:
            data = base64.b64decode(audio, validate=True)
        except (TypeError, ValueError, binascii.Error):
            raise InvalidRequestError(
                "'audio' is not base64", param="audio", code="invalid_value"
            ) from None
        await self._hear(data)

    async def _hear(self, data: bytes | None) -> None:
        samples = await decoded(self._intake, data, self._pool)
        if len(samples):
            await self._session.hear(samples)

    async def _commit(self, event: dict[str, Any]) -> None:
        if event.get("final_audio") is not None:
            raise InvalidRequestError("'final_audio' is not known", code="unknown_parameter")
        buffered = self._session.buffered
        if buffered < LEAST_COMMIT:
            raise InvalidRequestError(
                "Error committing input audio buffer: buffer too small. Expected at least "
                "{minimum:.0f}ms of audio, but buffer only has {buffered:.2f}ms of audio.",
                minimum=LEAST_COMMIT * 1000,
                buffered=buffered * 1000,
                code="input_audio_buffer_commit_empty",
            )
        await self._session.commit(self._committed)

    async def _clear(self, _: dict[str, Any]) -> None:
        if (forgotten := self._session.clear()) is not None:
            self._items.pop(forgotten, None)
        self._tell("input_audio_buffer.cleared")

    # What is heard --------------------------------------------------------------------------

    def began(self, utterance: Utterance) -> None:
        self._tell(
            "input_audio_buffer.speech_started",
            audio_start_ms=round(utterance.start * 1000),
            item_id=self._item(utterance),
        )

    def ended(self, utterance: Utterance) -> None:
        self._tell(
            "input_audio_buffer.speech_stopped",
            audio_end_ms=round(utterance.end * 1000),
            item_id=self._item(utterance),
        )
        self._committed(utterance)

    def partial(self, utterance: Utterance, new: str) -> None:
        self._tell_text("delta", utterance, delta=new, logprobs=None)

    def final(self, utterance: Utterance) -> None:
        if utterance.error is not None:
            self._tell_text("failed", utterance, error=_fields(utterance.error))
        else:
            text = utterance.text
            if text.startswith(utterance.shown) and utterance.rest:
                self._tell_text("delta", utterance, delta=utterance.rest, logprobs=None)
            for segment in utterance.recognized:
                if segment.text:
                    self._tell_text(
                        "segment",
                        utterance,
                        text=segment.text,
                        id=_id("seg"),
                        speaker=segment.speaker or "",
                        start=round(segment.start, 3),
                        end=round(segment.end, 3),
                    )
            seconds = round(max(0.0, utterance.end - utterance.start), 3)
            self._tell_text(
                "completed",
                utterance,
                transcript=text,
                logprobs=None,
                usage={"type": "duration", "seconds": seconds},
            )
        self._items.pop(utterance, None)

    def _committed(self, utterance: Utterance) -> None:
        item_id = self._item(utterance)
        previous, self._previous = self._previous, item_id
        self._tell("input_audio_buffer.committed", previous_item_id=previous, item_id=item_id)
        item = {
            "id": item_id,
            "object": "realtime.item",
            "type": "message",
            "status": "completed",
            "role": "user",
            "content": [{"type": "input_audio"}],
        }
        for event in ("added", "created", "done"):
            self._tell(f"conversation.item.{event}", previous_item_id=previous, item=item)

    def _item(self, utterance: Utterance) -> str:
        return self._items.setdefault(utterance, _id("item"))

    def _tell_text(self, kind: str, utterance: Utterance, **fields: Any) -> None:
        self._tell(
            f"conversation.item.input_audio_transcription.{kind}",
            item_id=self._item(utterance),
            content_index=0,
            **fields,
        )

    def _tell_error(self, error: RequestError, event_id: object) -> None:
        shown = event_id if isinstance(event_id, str) else None
        self._tell("error", error={**_fields(error), "event_id": shown})

    def _tell(self, kind: str, **fields: Any) -> None:
        self._send({"type": kind, "event_id": _id("event"), **fields})


def _fields(error: RequestError) -> dict[str, Any]:
    return {
        "type": error.type,
        "code": error.code,
        "message": error.message,
        "param": error.param,
    }


def _missing(name: str) -> InvalidRequestError:
    return InvalidRequestError(
        "Missing required parameter: '{name}'",
        name=name,
        param=name,
        code="missing_required_parameter",
    )


def _id(kind: str) -> str:
    return f"{kind}_{secrets.token_hex(12)}"
