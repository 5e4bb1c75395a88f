"""FunASR's websocket protocol: a JSON message, then binary audio, then ``{"is_speaking": false}``.

https://github.com/modelscope/FunASR/blob/main/runtime/docs/websocket_protocol.md. FunASR has two
servers, and clients of both are served as they expect it. Clients of the Python server ask for the
subprotocol ``binary``: every sentence has ``is_final: true``, and ``timestamp`` is a list. The others
(the web page, C++, Java, Go) know the C++ server: only the last message of the audio is final, which
some answer by closing, and ``timestamp`` is a string of JSON.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import IO, Any

from yibu.errors import InvalidRequestError, RequestError, TooLargeError, UnsupportedError
from yibu.messages import tr
from yibu.speech.formats import Transcript, separated
from yibu.speech.languages import normalized
from yibu.speech.live.intake import CONTAINERS, Intake, open_intake
from yibu.speech.live.messages import Message, parse_object
from yibu.speech.live.session import LiveSession, LiveTools
from yibu.speech.live.stamps import looked_up, sentences
from yibu.speech.live.utterance import Utterance
from yibu.speech.models.hotwords import parsed
from yibu.speech.settings import Limits
from yibu.speech.stated import RawFormat, Stated
from yibu.speech.tracks import Heard
from yibu.speech.transcriber import Transcriber
from yibu.speech.types import Endpointing, Options, Recognized, Recognizer, Samples, Word

MODES = ("2pass", "online", "offline")

_FRAME_SECONDS = 0.06
"""Of the streaming models that ``chunk_size`` counts."""
_INTERVALS = (0.3, 2.0)
_HEADERS = {b"RIFF": "wav", b"OggS": "ogg", b"\x1aE\xdf\xa3": "webm", b"fLaC": "flac"}
"""How files begin that clients send as ``pcm``: the web page leaves the header of a WAV."""
_HOTWORD_CHARACTERS = 4096
_HELD = 1024 * 1024
"""Bytes of a file that are kept in memory."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What the client's messages have said."""

    mode: str = "2pass"
    wav_name: str = "microphone"
    wav_format: str = "pcm"
    rate: int = 16_000
    interval: float = 0.4
    language: str = "auto"
    use_itn: bool = True
    hotwords: tuple[str, ...] = ()

    def after(self, message: dict[str, Any], recognizer: Recognizer) -> Asked:
        """Raises InvalidRequestError for a value that cannot be used."""
        mode = message.get("mode") or self.mode
        if mode not in MODES:
            raise InvalidRequestError(
                tr(
                    "mode is {mode!r}; it can be {MODES}",
                    mode=str(mode)[:32],
                    MODES=", ".join(MODES),
                ),
                param="mode",
            )
        itn = message.get("svs_itn", message.get("itn"))
        language = message.get("svs_lang")
        return replace(
            self,
            mode=mode,
            wav_name=str(message.get("wav_name") or self.wav_name)[:256],
            wav_format=str(message.get("wav_format") or self.wav_format)[:32].lower(),
            rate=_rate(message.get("audio_fs"), self.rate),
            interval=_interval(message, self.interval),
            language=normalized(str(language), recognizer.languages) if language else self.language,
            use_itn=self.use_itn if itn is None else _truth(itn),
            hotwords=_hotwords(message, recognizer, self.hotwords),
        )

    @property
    def options(self) -> Options:
        return Options(
            language=self.language, words=True, use_itn=self.use_itn, hotwords=self.hotwords
        )


class FunasrConnection:
    """One connection, which may send several recordings. ``handle`` each message in turn, ``close``
    always."""

    def __init__(
        self,
        tools: LiveTools,
        transcriber: Transcriber,
        recognizer: Recognizer,
        limits: Limits,
        send: Callable[[Message], None],
        *,
        python: bool,
    ) -> None:
        """``python``: the client is one of FunASR's Python server."""
        self._tools, self._transcriber, self._recognizer = tools, transcriber, recognizer
        self._limits, self._send, self._python = limits, send, python
        self._asked = Asked()
        self._session: LiveSession | None = None
        self._intake: Intake | None = None
        self._file: IO[bytes] | None = None
        self._size = 0
        self._before = ""
        """The text that the next one stands behind."""
        self._final_sent = False
        self._errors: list[str] = []
        self._seconds = 0.0

    @property
    def seconds(self) -> float:
        """Of audio so far."""
        return self._seconds + (self._session.seconds if self._session is not None else 0.0)

    async def handle(self, message: Message) -> None:
        """Take a message of the client's; a fault of it is told to it."""
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
        """There is no message for errors: it is a result without text that has one."""
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
        if "is_speaking" in message and not _truth(message["is_speaking"]):
            await self._end()
            if _truth(message.get("is_end", False)):
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
                self._tools, self, self._asked.options, Endpointing(), self._asked.interval
            )
            self._before = ""
            self._final_sent = False
        if self._intake is None:
            self._intake = open_intake(_streamed_format(self._asked, data), self._asked.rate)
        await self._hear(lambda: self._intake.feed(data) if self._intake is not None else None)

    async def _hear(self, decode: Callable[[], Samples | None]) -> None:
        samples = await asyncio.get_running_loop().run_in_executor(self._tools.pool, decode)
        if samples is not None and len(samples) and self._session is not None:
            await self._session.hear(samples)

    async def _store(self, data: bytes) -> None:
        if self._file is None:
            self._file = tempfile.SpooledTemporaryFile(_HELD)  # noqa: SIM115 - closed by close()
            self._size = 0
        self._size += len(data)
        if self._size > self._limits.upload_bytes:
            raise TooLargeError(
                tr(
                    "The recording is over {upload_bytes} bytes, the limit of this server",
                    upload_bytes=self._limits.upload_bytes,
                )
            )
        await asyncio.to_thread(self._file.write, data)

    async def _end(self) -> None:
        """The recording is over: the last results, and one that says so."""
        if self._file is not None or self._asked.mode == "offline":
            await self._transcribe()
            return
        if self._session is not None:
            try:
                if self._intake is not None:
                    await self._hear(self._intake.finish)
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
            said = await asyncio.to_thread(_said, self._asked, file)
            try:
                heard = await self._transcriber.run(
                    file, said, self._asked.options, segments.append
                )
                self._seconds += heard.seconds
            except RequestError as error:
                self.tell_error(error)
            finally:
                file.close()
        text = Transcript(segments, Heard(0.0), self._asked.options).text
        words = [word for segment in segments for word in segment.words]
        self._tell("offline", text, final=True, words=words)

    # What is heard --------------------------------------------------------------------------

    def began(self, utterance: Utterance) -> None:
        """The protocol has no message for it."""

    def ended(self, utterance: Utterance) -> None:
        """Nor for this."""

    def partial(self, utterance: Utterance, new: str) -> None:
        first = utterance.agreement.shown == new
        text = separated(self._before, new) if first else new
        self._tell(self._mode("online"), text, final=False)

    def final(self, utterance: Utterance) -> None:
        if utterance.error is not None:
            self.tell_error(utterance.error)
            return
        text = utterance.text
        over = self._session is not None and self._session.told_all
        last = over or self._python
        if self._asked.mode == "online":
            rest = utterance.agreement.final(text)
            if not utterance.agreement.shown:
                rest = separated(self._before, rest)
            if rest or self._python:
                self._tell("online", rest, final=last)
        else:
            words = [word for segment in utterance.recognized for word in segment.words]
            self._tell("2pass-offline", separated(self._before, text), final=last, words=words)
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
        words: list[Word] | None = None,
        error: str | None = None,
    ) -> None:
        message: dict[str, Any] = {
            "mode": mode,
            "text": text,
            "wav_name": self._asked.wav_name,
            "is_final": final,
        }
        if words and text:
            stamps = [[round(w.start * 1000), round(w.end * 1000)] for w in words]
            if self._python:
                message["timestamp"] = stamps
            elif looked_up(text) <= len(stamps):
                message["timestamp"] = json.dumps(stamps)
            message["stamp_sents"] = sentences(text, words)
        if error is not None:
            message["error"] = error
        self._send(message)


def _streamed_format(asked: Asked, data: bytes) -> str:
    """Of a stream that begins with ``data``."""
    known = next((kind for head, kind in _HEADERS.items() if data.startswith(head)), None)
    if known is not None or asked.wav_format in ("pcm", "s16le"):
        return known or "s16le"
    if asked.wav_format in ("mulaw", "pcmu", "alaw", "pcma"):
        return "mulaw" if asked.wav_format in ("mulaw", "pcmu") else "alaw"
    if asked.wav_format in CONTAINERS:
        return asked.wav_format
    raise InvalidRequestError(
        tr(
            "wav_format is {wav_format!r}; live audio can be pcm, mulaw, alaw, {CONTAINERS}, "
            "and mode offline takes any file",
            wav_format=asked.wav_format,
            CONTAINERS=", ".join(sorted(CONTAINERS)),
        ),
        param="wav_format",
    )


def _said(asked: Asked, file: IO[bytes]) -> Stated:
    """Of a whole file: raw samples where the client says so, unless it begins like a file."""
    file.seek(0)
    begins = file.read(4)
    file.seek(0)
    if asked.wav_format != "pcm" or any(begins.startswith(head) for head in _HEADERS):
        return Stated()
    return Stated(raw=RawFormat("s16le", asked.rate, 1))


def _hotwords(
    message: dict[str, Any], recognizer: Recognizer, usual: tuple[str, ...]
) -> tuple[str, ...]:
    """For models that take them; clients send them to every model."""
    given = message.get("hotwords")
    if given is None or not recognizer.takes_hotwords:
        return usual
    text = given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)
    if len(text) > _HOTWORD_CHARACTERS:
        raise InvalidRequestError(
            tr(
                "hotwords have {text_count} characters; {HOTWORD_CHARACTERS} are the limit",
                text_count=len(text),
                HOTWORD_CHARACTERS=_HOTWORD_CHARACTERS,
            ),
            param="hotwords",
        )
    return parsed(text)


def _rate(value: object, usual: int) -> int:
    if value is None:
        return usual
    try:
        rate = int(str(value)[:16])
    except ValueError:
        raise InvalidRequestError(
            tr("audio_fs is {value!r}, not a number of Hz", value=str(value)[:32]), param="audio_fs"
        ) from None
    return rate


def _interval(message: dict[str, Any], usual: float) -> float:
    """Seconds between partial texts: the middle number of ``chunk_size`` in frames of 60 ms."""
    given = message.get("chunk_size")
    if given is None:
        return usual
    numbers = given.split(",") if isinstance(given, str) else given
    try:
        seconds = int(numbers[1]) * _FRAME_SECONDS
    except (TypeError, ValueError, LookupError):
        raise InvalidRequestError(
            tr(
                "chunk_size is {given!r}; expected three numbers such as [5, 10, 5]",
                given=str(given)[:32],
            ),
            param="chunk_size",
        ) from None
    return min(max(seconds, _INTERVALS[0]), _INTERVALS[1])


def _truth(value: object) -> bool:
    """Booleans as clients write them: ``true``, ``"true"``, 1."""
    return (
        value.strip().lower() not in ("", "0", "false") if isinstance(value, str) else bool(value)
    )
