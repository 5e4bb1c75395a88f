"""FunASR's websocket protocol: a JSON message, then binary audio, then ``{"is_speaking": false}``.

https://github.com/modelscope/FunASR/blob/main/runtime/docs/websocket_protocol.md. FunASR has two
servers, and clients of both are served as they expect it. Clients of the Python server ask for the
subprotocol ``binary``: every sentence has ``is_final: true``, and ``timestamp`` is a list. The others
(the web page, C++, Java, Go) know the C++ server: only the last message of the audio is final, which
some answer by closing, and ``timestamp`` is a string of JSON.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import IO, Any

from yibu.errors import RequestError, TooLargeError, UnsupportedError
from yibu.speech.answers.formats import Transcript, separated
from yibu.speech.audio.tracks import Heard
from yibu.speech.live.funasr_settings import FunasrSettings, truth
from yibu.speech.live.intake import Intake, decoded, open_intake
from yibu.speech.live.messages import Message, parse_object
from yibu.speech.live.session import LiveSession
from yibu.speech.live.stamps import times_of
from yibu.speech.live.tools import LiveTools
from yibu.speech.live.utterance import Utterance
from yibu.speech.settings import EngineLimits
from yibu.speech.transcriber import Transcriber
from yibu.speech.types import Endpointing, Recognized, Recognizer

_HELD = 1024 * 1024
"""Bytes of a file kept in memory."""


class FunasrConnection:
    """One connection, which may send several recordings. ``handle`` each message in turn; always
    ``close``."""

    def __init__(
        self,
        tools: LiveTools,
        transcriber: Transcriber,
        recognizer: Recognizer,
        limits: EngineLimits,
        send: Callable[[Message], None],
        *,
        python: bool,
    ) -> None:
        """``python``: the client speaks the protocol of FunASR's Python server."""
        self._tools, self._transcriber, self._recognizer = tools, transcriber, recognizer
        self._limits, self._send, self._python = limits, send, python
        self._asked = FunasrSettings()
        self._session: LiveSession | None = None
        self._intake: Intake | None = None
        self._file: IO[bytes] | None = None
        self._size = 0
        self._before = ""
        """The text before the next one."""
        self._final_sent = False
        self._errors: list[str] = []
        self._seconds = 0.0

    @property
    def seconds(self) -> float:
        """Seconds of audio so far."""
        return self._seconds + (self._session.seconds if self._session is not None else 0.0)

    async def handle(self, message: Message) -> None:
        """Handle a client's message; faults are reported to the client."""
        try:
            if isinstance(message, bytes):
                await self._audio(message)
            else:
                await self._control(parse_object(message))
        except (RequestError, UnsupportedError) as error:
            self.tell_error(error)

    def close(self) -> None:
        if self._session is not None:
            self._session.close()
        if self._intake is not None:
            self._intake.close()
        if self._file is not None:
            self._file.close()
        self._session = self._intake = self._file = None

    def tell_error(self, error: Exception) -> None:
        """Report an error: the protocol has no message for it, so it is a result without text."""
        message = error.message if isinstance(error, RequestError) else str(error)
        if message not in self._errors:
            self._errors.append(message)
            self._tell(self._mode("offline"), "", final=False, error=message)

    # Client messages ------------------------------------------------------------------------

    async def _control(self, message: dict[str, Any]) -> None:
        asked = self._asked.after(message, self._recognizer)
        if self._session is not None and asked != self._asked:
            if (asked.mode, asked.rate, asked.wav_format) != (
                self._asked.mode,
                self._asked.rate,
                self._asked.wav_format,
            ):
                await self._end()
            elif self._session is not None:
                await self._session.configure(asked.options, Endpointing())
        self._asked = asked
        if "is_speaking" in message and not truth(message["is_speaking"]):
            await self._end()
            if truth(message.get("is_end", False)):
                self._acknowledge()

    def _acknowledge(self) -> None:
        message: dict[str, Any] = {
            "mode": self._asked.mode,
            "wav_name": self._asked.wav_name,
            "is_final": not self._errors,
            "is_end": True,
        }
        if self._errors:
            message["error"] = "; ".join(self._errors)
        self._errors = []
        self._send(message)

    async def _audio(self, data: bytes) -> None:
        if not data:
            return
        if self._asked.mode == "offline":
            await self._store(data)
            return
        if self._session is None:
            self._session = LiveSession(
                self._tools, self, self._asked.options, Endpointing(),
                self._asked.interval, self._asked.chunking,
                streamed_finals=self._asked.mode == "online",
            )  # fmt: skip
            self._before = ""
            self._final_sent = False
        if self._intake is None:
            self._intake = open_intake(self._asked.streamed_format(data), self._asked.rate)
        await self._hear(self._session, self._intake, data)

    async def _hear(self, session: LiveSession, intake: Intake, data: bytes | None) -> None:
        samples = await decoded(intake, data, self._tools.pool)
        if len(samples):
            await session.hear(samples)

    async def _store(self, data: bytes) -> None:
        if self._file is None:
            self._file = tempfile.SpooledTemporaryFile(_HELD)  # noqa: SIM115 - closed by close()
            self._size = 0
        self._size += len(data)
        if self._size > self._limits.upload_bytes:
            raise TooLargeError(
                "The recording is over {upload_bytes} bytes, the limit of this server",
                upload_bytes=self._limits.upload_bytes,
            )
        await asyncio.to_thread(self._file.write, data)

    async def _end(self) -> None:
        """End the recording: send the last results and the one that marks the end."""
        if self._file is not None or self._asked.mode == "offline":
            await self._transcribe()
            return
        if self._session is not None:
            try:
                if self._intake is not None:
                    await self._hear(self._session, self._intake, None)
                await self._session.finish()
                await self._session.drained()
            except RequestError as error:
                self.tell_error(error)
            finally:
                self._seconds += self._session.seconds
                self.close()
        if not self._final_sent:
            self._tell(self._mode("offline"), "", final=True)
        self._final_sent = False

    async def _transcribe(self) -> None:
        file, self._file = self._file, None
        segments: list[Recognized] = []
        if file is not None:
            said = await asyncio.to_thread(self._asked.stated, file)
            options = replace(self._asked.options, speakers=self._transcriber.tells_speakers)
            try:
                heard = await self._transcriber.run(file, said, options, segments.append)
                self._seconds += heard.seconds
            except RequestError as error:
                self.tell_error(error)
            finally:
                file.close()
        text = Transcript(segments, Heard(0.0), self._asked.options).text
        self._tell("offline", text, final=True, segments=segments)

    # What is heard --------------------------------------------------------------------------

    def began(self, utterance: Utterance) -> None:
        """Do nothing: the protocol has no message for it."""

    def ended(self, utterance: Utterance) -> None:
        """Do nothing: the protocol has no message for it."""

    def partial(self, utterance: Utterance, new: str) -> None:
        text = separated(self._before, new) if utterance.shown == new else new
        self._tell(self._mode("online"), text, final=False)

    def final(self, utterance: Utterance) -> None:
        if utterance.error is not None:
            self.tell_error(utterance.error)
            return
        text = utterance.text
        over = self._session is not None and self._session.told_all
        last = over or self._python
        if self._asked.mode == "online":
            rest = utterance.rest if utterance.shown else separated(self._before, text)
            if rest or self._python:
                self._tell("online", rest, final=last)
        else:
            self._tell(
                "2pass-offline", separated(self._before, text), final=last,
                segments=utterance.recognized,
            )  # fmt: skip
        self._before = text or self._before
        self._final_sent = over

    def _mode(self, stage: str) -> str:
        return f"2pass-{stage}" if self._asked.mode == "2pass" else self._asked.mode

    def _tell(
        self,
        mode: str,
        text: str,
        *,
        final: bool,
        segments: Sequence[Recognized] = (),
        error: str | None = None,
    ) -> None:
        message: dict[str, Any] = {
            "mode": mode,
            "text": text,
            "wav_name": self._asked.wav_name,
            "is_final": final,
        }
        if text:
            message |= times_of(text, segments, as_list=self._python)
        if error is not None:
            message["error"] = error
        self._send(message)
