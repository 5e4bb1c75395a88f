"""A Realtime session's settings: checked, merged, and reported to the client.

Both forms are read: ``session.update`` with ``audio.input`` (schemas
``RealtimeTranscriptionSessionCreateRequestGA`` and ``…ResponseGA``), and the older
``transcription_session.update`` with ``input_audio_format``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from yibu.errors import InvalidRequestError, RequestError, UnknownModelError
from yibu.messages import tr
from yibu.speech.answers.languages import normalized
from yibu.speech.live.intake import RATES
from yibu.speech.models.hotwords import parsed
from yibu.speech.types import Endpointing, RecognitionOptions, Recognizer

OLD_FORMATS = {"pcm16": "audio/pcm", "g711_ulaw": "audio/pcmu", "g711_alaw": "audio/pcma"}
INTAKES = {
    "audio/pcm": "s16le",
    "audio/pcmu": "mulaw",
    "audio/pcma": "alaw",
    "audio/webm": "webm",
    "audio/ogg": "ogg",
    "audio/wav": "wav",
    "audio/flac": "flac",
    "audio/mpeg": "mp3",
    "audio/mp4": "mp4",
}
"""Format of the API → that of the intake; all but the first three are not OpenAI's."""

_NOISE = ("near_field", "far_field")
_LOGPROBS = "item.input_audio_transcription.logprobs"
_PROMPT_CHARACTERS = 4096
_HOUR = 3600
_TURN = frozenset(
    {
        "type",
        "threshold",
        "prefix_padding_ms",
        "silence_duration_ms",
        "create_response",
        "interrupt_response",
        "idle_timeout_ms",
    }
)


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """One session's settings."""

    model: str
    language: str | None = None
    prompt: str | None = None
    keywords: tuple[str, ...] = ()
    """Keywords of models that take hotwords, for which the prompt is a list of them too."""
    format: str = "audio/pcm"
    rate: int = 24_000
    noise_reduction: str | None = None
    """Accepted and reported; the models need none."""
    endpointing: Endpointing | None = field(default_factory=Endpointing)
    include: tuple[str, ...] = ()

    @property
    def intake(self) -> tuple[str, int]:
        """Sample format and rate."""
        raw = self.format == "audio/pcm"
        return INTAKES[self.format], self.rate if raw else 8_000

    def options(self, recognizer: Recognizer) -> RecognitionOptions:
        """Options for the recognizer. Raises InvalidRequestError for a language that the model does not
        know."""
        hotwords: tuple[str, ...] = ()
        if recognizer.takes_hotwords:
            hotwords = tuple(dict.fromkeys([*self.keywords, *parsed(self.prompt or "")]))
        return RecognitionOptions(
            language=normalized(self.language, recognizer.languages),
            prompt=self.prompt,
            hotwords=hotwords,
        )

    def told(self, session_id: str) -> dict[str, Any]:
        """The session object of the current API."""
        audio: dict[str, Any] = {"type": self.format}
        if self.format == "audio/pcm":
            audio["rate"] = self.rate
        return {
            "type": "transcription",
            "object": "realtime.transcription_session",
            "id": session_id,
            "expires_at": int(time.time()) + 24 * _HOUR,
            "audio": {
                "input": {
                    "format": audio,
                    "transcription": self._transcription(),
                    "noise_reduction": self._noise(),
                    "turn_detection": self._turn(),
                }
            },
            "include": list(self.include),
        }

    def told_as_before(self, session_id: str) -> dict[str, Any]:
        """The session object of the older API."""
        old = {new: name for name, new in OLD_FORMATS.items()}
        return {
            "id": session_id,
            "object": "realtime.transcription_session",
            "client_secret": None,
            "input_audio_format": old.get(self.format, self.format),
            "input_audio_transcription": self._transcription(),
            "input_audio_noise_reduction": self._noise(),
            "turn_detection": self._turn(),
            "include": list(self.include),
        }

    def _transcription(self) -> dict[str, Any]:
        language = {"language": self.language} if self.language else {}
        return {"model": self.model, **language, "prompt": self.prompt or ""}

    def _noise(self) -> dict[str, str] | None:
        return {"type": self.noise_reduction} if self.noise_reduction else None

    def _turn(self) -> dict[str, Any] | None:
        rule = self.endpointing
        if rule is None:
            return None
        return {
            "type": "server_vad",
            "threshold": rule.threshold,
            "prefix_padding_ms": round(rule.prefix_padding * 1000),
            "silence_duration_ms": round(rule.silence * 1000),
        }


def updated(
    settings: SessionSettings, given: object, names: frozenset[str], recognizer: Recognizer
) -> SessionSettings:
    """The settings after ``session.update``; missing fields stay. ``names`` are the model's.

    Raises:
        InvalidRequestError: a value is none; ``param`` names it.
        UnknownModelError: another model is asked for.
    """
    session = _Fields("session", given)
    kind = session.take("type")
    if kind is not None and kind != "transcription":
        raise _wrong("session.type", kind, tr("'transcription', which is all that is served here"))
    audio = session.fields("audio")
    sound = audio.fields("input")
    if "format" in sound:
        settings = _with_format(settings, sound.fields("format"))
    changed = _common(
        settings, session, sound, "transcription", "noise_reduction", names, recognizer
    )
    for fields in (audio, session, sound):
        fields.nothing_left()
    changed.options(recognizer)
    return changed


def updated_as_before(
    settings: SessionSettings, given: object, names: frozenset[str], recognizer: Recognizer
) -> SessionSettings:
    """The settings after ``transcription_session.update``."""
    session = _Fields("session", given)
    session.take("modalities")
    session.take("client_secret")
    if (name := session.take("input_audio_format")) is not None:
        if not isinstance(name, str) or name not in OLD_FORMATS:
            raise _wrong("session.input_audio_format", name, ", ".join(OLD_FORMATS))
        settings = replace(settings, format=OLD_FORMATS[name], rate=24_000)
    noise, speech = "input_audio_noise_reduction", "input_audio_transcription"
    changed = _common(settings, session, session, speech, noise, names, recognizer)
    session.nothing_left()
    changed.options(recognizer)
    return changed


def _common(
    settings: SessionSettings,
    session: _Fields,
    sound: _Fields,
    transcription: str,
    noise: str,
    names: frozenset[str],
    recognizer: Recognizer,
) -> SessionSettings:
    if "include" in session:
        settings = replace(settings, include=_include(session.take("include")))
    if noise in sound:
        reduction = sound.fields(noise)
        kind = reduction.take("type")
        if kind is not None and kind not in _NOISE:
            raise _wrong(f"{reduction.path}.type", kind, " or ".join(_NOISE))
        settings = replace(settings, noise_reduction=kind)
    if transcription in sound:
        settings = _with_transcription(settings, sound.fields(transcription), names, recognizer)
    if "turn_detection" in sound:
        settings = replace(settings, endpointing=_turn(sound, settings.endpointing))
    return settings


def _include(given: object) -> tuple[str, ...]:
    values = given if isinstance(given, list) else [given] if given is not None else []
    for value in values:
        if value != _LOGPROBS:
            raise _wrong("session.include", value, repr(_LOGPROBS))
    return tuple(values)


def _with_format(settings: SessionSettings, given: _Fields) -> SessionSettings:
    kind = given.take("type")
    if kind is None:
        kind = settings.format
    if not isinstance(kind, str) or kind not in INTAKES:
        raise _wrong(f"{given.path}.type", kind, ", ".join(INTAKES))
    rate = given.number("rate", settings.rate, 0, 1e6)
    if kind == "audio/pcm" and (rate != int(rate) or int(rate) not in RATES):
        raise _wrong(f"{given.path}.rate", rate, f"{RATES.start} to {RATES.stop - 1}")
    given.nothing_left()
    return replace(settings, format=kind, rate=int(rate))


def _with_transcription(
    settings: SessionSettings, given: _Fields, names: frozenset[str], recognizer: Recognizer
) -> SessionSettings:
    model = given.text("model", settings.model)
    if model not in names:
        raise UnknownModelError(
            "The model {model!r} is not served on this connection; {served!r} is. Name "
            "the model when you connect: /v1/realtime?intent=transcription&model=MODEL",
            model=model[:128],
            served=settings.model,
            param=f"{given.path}.model",
        )
    language, prompt = settings.language, settings.prompt
    if "language" in given:
        language = given.text("language", None) or None
    if "prompt" in given:
        prompt = given.text("prompt", None) or None
    if prompt is not None and len(prompt) > _PROMPT_CHARACTERS:
        shown = tr("{prompt_count} characters long", prompt_count=len(prompt))
        raise _wrong(
            f"{given.path}.prompt",
            shown,
            tr("at most {limit} characters", limit=_PROMPT_CHARACTERS),
        )
    keywords = given.take("keywords") or () if recognizer.takes_hotwords else ()
    if not isinstance(keywords, list | tuple) or not all(isinstance(k, str) for k in keywords):
        raise _wrong(
            f"{given.path}.keywords", keywords, tr("a list of strings"), code="invalid_type"
        )
    for name in ("languages", "keywords", "delay"):
        if given.take(name):
            raise InvalidRequestError(
                "'{given_path}.{name}' is not supported by this model. Leave it out",
                given_path=given.path,
                name=name,
                param=f"{given.path}.{name}",
                code="unsupported_parameter",
            )
    given.nothing_left()
    return replace(
        settings,
        model=model,
        language=language,
        prompt=prompt,
        keywords=tuple(word[:_PROMPT_CHARACTERS] for word in keywords) or settings.keywords,
    )


def _turn(sound: _Fields, before: Endpointing | None) -> Endpointing | None:
    if sound.peek("turn_detection") is None:
        sound.take("turn_detection")
        return None
    given = sound.fields("turn_detection")
    kind = given.take("type")
    if kind is not None and kind != "server_vad":
        raise _wrong(f"{given.path}.type", kind, tr("'server_vad', or null instead of the object"))
    usual = before or Endpointing()
    threshold = given.number("threshold", usual.threshold, 0.0, 1.0)
    padding = given.number("prefix_padding_ms", usual.prefix_padding * 1000, 0, 5_000)
    silence = given.number("silence_duration_ms", usual.silence * 1000, 50, 10_000)
    for name in _TURN:
        given.take(name)
    given.nothing_left()
    return Endpointing(threshold, padding / 1000, silence / 1000)


class _Fields:
    """An object of the request; fields that are not read are errors."""

    def __init__(self, path: str, given: object) -> None:
        if given is None:
            given = {}
        if not isinstance(given, Mapping):
            raise _wrong(path, given, tr("an object"), code="invalid_type")
        self.path = path
        self._left: dict[str, Any] = dict(given)

    def __contains__(self, name: str) -> bool:
        return name in self._left

    def peek(self, name: str) -> Any:
        return self._left.get(name)

    def take(self, name: str) -> Any:
        return self._left.pop(name, None)

    def fields(self, name: str) -> _Fields:
        return _Fields(f"{self.path}.{name}", self._left.pop(name, None))

    def text(self, name: str, usual: str | None) -> Any:
        value = self._left.pop(name, usual)
        if value is not None and not isinstance(value, str):
            raise _wrong(f"{self.path}.{name}", value, tr("a string"), code="invalid_type")
        return usual if value is None else value

    def number(
        self, name: str, usual: float, low: float = 0.0, high: float = float("inf")
    ) -> float:
        value = self._left.pop(name, None)
        if value is None:
            return usual
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _wrong(f"{self.path}.{name}", value, tr("a number"), code="invalid_type")
        if not low <= value <= high:
            raise _wrong(f"{self.path}.{name}", value, f"{low:g} to {high:g}")
        return float(value)

    def nothing_left(self) -> None:
        """Raises InvalidRequestError for unknown fields."""
        for name in self._left:
            raise InvalidRequestError(
                "Unknown parameter: '{path}.{name}'",
                path=self.path,
                name=str(name)[:64],
                param=f"{self.path}.{str(name)[:64]}",
                code="unknown_parameter",
            )


def _wrong(
    param: str, value: object, expected: str, *, code: str = "invalid_value"
) -> RequestError:
    shown = repr(value) if not isinstance(value, dict | list) else type(value).__name__
    return InvalidRequestError(
        tr(
            "'{param}' is {shown}; expected {expected}",
            param=param,
            shown=shown[:80],
            expected=expected,
        ),
        param=param,
        code=code,
    )


Update = Callable[[SessionSettings, object, frozenset[str], Recognizer], SessionSettings]
UPDATES: dict[str, Update] = {
    "session.update": updated,
    "transcription_session.update": updated_as_before,
}
