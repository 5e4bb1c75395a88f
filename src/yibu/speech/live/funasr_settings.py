"""The settings in a client's messages of FunASR's websocket protocol."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import IO, Any

from yibu.errors import InvalidRequestError
from yibu.speech.answers.languages import normalized
from yibu.speech.live.intake import CONTAINERS
from yibu.speech.models.hotwords import parsed
from yibu.speech.stated import RawFormat, Stated
from yibu.speech.types import Chunking, RecognitionOptions, Recognizer

MODES = ("2pass", "online", "offline")

_FRAME_SECONDS = 0.06
"""Seconds of a frame, in which ``chunk_size`` counts."""
_INTERVALS = (0.3, 2.0)
_MOST_FRAMES, _MOST_LOOK_BACK = 33, 16
_HEADERS = {b"RIFF": "wav", b"OggS": "ogg", b"\x1aE\xdf\xa3": "webm", b"fLaC": "flac"}
"""First bytes of files that clients send as ``pcm``: the web page leaves the header of a WAV."""
_HOTWORD_CHARACTERS = 4096


@dataclass(frozen=True, slots=True)
class FunasrSettings:
    """The settings so far."""

    mode: str = "2pass"
    wav_name: str = "microphone"
    wav_format: str = "pcm"
    rate: int = 16_000
    chunking: Chunking | None = None
    language: str = "auto"
    use_itn: bool = True
    hotwords: tuple[str, ...] = ()

    def after(self, message: dict[str, Any], recognizer: Recognizer) -> FunasrSettings:
        """The settings after a message. Raises InvalidRequestError for an unusable value."""
        mode = message.get("mode") or self.mode
        if mode not in MODES:
            raise InvalidRequestError(
                "mode is {mode!r}; it can be {modes}",
                mode=str(mode)[:32],
                modes=", ".join(MODES),
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
            chunking=_chunking(message, self.chunking),
            language=normalized(str(language), recognizer.languages) if language else self.language,
            use_itn=self.use_itn if itn is None else truth(itn),
            hotwords=_hotwords(message, recognizer, self.hotwords),
        )

    @property
    def options(self) -> RecognitionOptions:
        return RecognitionOptions(
            language=self.language, words=True, use_itn=self.use_itn, hotwords=self.hotwords
        )

    @property
    def interval(self) -> float:
        """Seconds between partial texts."""
        if self.chunking is None:
            return 0.4
        return min(max(self.chunking.frames * _FRAME_SECONDS, _INTERVALS[0]), _INTERVALS[1])

    def streamed_format(self, data: bytes) -> str:
        """The format of a stream that begins with ``data``."""
        known = next((kind for head, kind in _HEADERS.items() if data.startswith(head)), None)
        if known is not None or self.wav_format in ("pcm", "s16le"):
            return known or "s16le"
        if self.wav_format in ("mulaw", "pcmu", "alaw", "pcma"):
            return "mulaw" if self.wav_format in ("mulaw", "pcmu") else "alaw"
        if self.wav_format in CONTAINERS:
            return self.wav_format
        raise InvalidRequestError(
            "wav_format is {wav_format!r}; live audio can be pcm, mulaw, alaw, {containers}, "
            "and mode offline takes any file",
            wav_format=self.wav_format,
            containers=", ".join(sorted(CONTAINERS)),
            param="wav_format",
        )

    def stated(self, file: IO[bytes]) -> Stated:
        """The format of a whole file: raw samples where the client says so, unless it begins like a file."""
        file.seek(0)
        begins = file.read(4)
        file.seek(0)
        if self.wav_format != "pcm" or any(begins.startswith(head) for head in _HEADERS):
            return Stated()
        return Stated(raw=RawFormat("s16le", self.rate, 1))


def _hotwords(
    message: dict[str, Any], recognizer: Recognizer, usual: tuple[str, ...]
) -> tuple[str, ...]:
    """The hotwords, for models that take them; clients send them to every model."""
    given = message.get("hotwords")
    if given is None or not recognizer.takes_hotwords:
        return usual
    text = given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)
    if len(text) > _HOTWORD_CHARACTERS:
        raise InvalidRequestError(
            "hotwords have {text_count} characters; {limit} are the limit",
            text_count=len(text),
            limit=_HOTWORD_CHARACTERS,
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
            "audio_fs is {value!r}, not a number of Hz", value=str(value)[:32], param="audio_fs"
        ) from None
    return rate


def _chunking(message: dict[str, Any], usual: Chunking | None) -> Chunking | None:
    """``chunk_size`` without its first number, and the look-backs."""
    given = message.get("chunk_size")
    numbers = given.split(",") if isinstance(given, str) else given
    chunking = usual or Chunking()
    try:
        frames, ahead = numbers[1:3] if numbers is not None else (chunking.frames, chunking.ahead)
        encoder = message.get("encoder_chunk_look_back", chunking.encoder_look_back)
        decoder = message.get("decoder_chunk_look_back", chunking.decoder_look_back)
        found = Chunking(
            min(max(int(frames), 1), _MOST_FRAMES),
            min(max(int(ahead), 0), _MOST_FRAMES),
            min(max(int(encoder), 0), _MOST_LOOK_BACK),
            min(max(int(decoder), 0), _MOST_LOOK_BACK),
        )
    except (TypeError, ValueError, LookupError):
        raise InvalidRequestError(
            "chunk_size is {given!r}; expected three numbers such as [5, 10, 5]",
            given=str(given)[:32],
            param="chunk_size",
        ) from None
    return usual if numbers is None and usual is None else found


def truth(value: object) -> bool:
    """Booleans as clients write them: ``true``, ``"true"``, 1."""
    return (
        value.strip().lower() not in ("", "0", "false") if isinstance(value, str) else bool(value)
    )
