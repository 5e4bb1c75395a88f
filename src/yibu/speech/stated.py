"""What a request says about its audio: fields and content type.

A header that is recognized always counts. What is said by a PCM type or by ``sample_rate`` is of
samples without one; where it contradicts a header in a form field, the request is wrong.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any

from yibu.errors import InvalidRequestError
from yibu.messages import tr
from yibu.speech.http.upload import Form, Upload

RAW_FORMATS = ("s16le", "s16be", "s24le", "s24be", "s32le", "f32le", "u8", "alaw", "mulaw")

_RAW_SUFFIXES = (".pcm", ".raw", ".s16le", ".s16", ".sw", ".ul", ".al")
_RAW_TYPES = {
    "audio/l8": "u8",
    "audio/l16": "s16be",
    "audio/l24": "s24be",  # RFC 2586, 3190
    **dict.fromkeys(("audio/pcm", "audio/x-pcm", "audio/raw", "audio/x-raw"), "s16le"),
    **dict.fromkeys(("audio/pcmu", "audio/mulaw", "audio/x-mulaw", "audio/basic"), "mulaw"),
    **dict.fromkeys(("audio/pcma", "audio/alaw", "audio/x-alaw"), "alaw"),
}
_CODED: dict[str, tuple[str, int]] = {
    **dict.fromkeys(("audio/gsm", "audio/x-gsm", ".gsm"), ("gsm", 8_000)),
    **dict.fromkeys(("audio/g722", ".g722"), ("g722", 16_000)),
    **dict.fromkeys(("audio/g729", ".g729"), ("g729", 8_000)),
    **{f".sln{rate or ''}": ("s16le", 1000 * (rate or 8)) for rate in (0, 12, 16, 24, 32, 48)},
}
"""Codecs without a header that telephone systems record, by content type and suffix: each has one rate,
which for G.722 is not the one that RTP states (RFC 3551, 4.5.2)."""
_TELEPHONE_RATE = 8000
"""Of the types for G.711, which need not say it (RFC 3551, 4.5.14; RFC 2046, 4.3)."""
_UNSPECIFIC_TYPES = frozenset(
    {"", "application/octet-stream", "binary/octet-stream", "application/x-binary", "audio/*"}
    | {"audio/wav", "audio/x-wav", "audio/wave", "audio/vnd.wave", "audio/unknown", "audio/x-au"}
)
"""Types that do not say that the samples have a header, or are sent for a name whatever the file."""
_RATE_NAMES = ("rate", "samplerate", "sample-rate", "sample_rate")
_ENDIANNESS = {"s16be": "s16le", "s24be": "s24le"}


@dataclass(frozen=True, slots=True)
class RawFormat:
    """The format of headerless samples."""

    sample_format: str
    rate: int
    channels: int


@dataclass(frozen=True, slots=True)
class Stated:
    """The client's statements. Every value may be missing."""

    rate: int | None = None
    channels: int | None = None
    sample_format: str | None = None
    raw: RawFormat | None = None
    """The samples' format, where the file has no header."""
    needs_rate: bool = False
    """Whether it is headerless by its name or type, and nothing gives its rate."""
    track: int | None = None
    """Which of several audio tracks, from 0."""

    def check(self, stream: Any, container: str) -> None:
        """Raise where a form field contradicts the header of a file."""
        context = stream.codec_context
        said = {
            "sample_rate": (self.rate, context.sample_rate, " Hz"),
            "channels": (self.channels, context.channels, ""),
            "sample_format": (self.sample_format, context.name.removeprefix("pcm_"), ""),
        }
        for name, (value, found, unit) in said.items():
            if value is not None and value != found:
                raise InvalidRequestError(
                    "{name} is {value}{unit}, but the file has a header ({container}) that says "
                    "{found}{unit}. Leave {name} out: it is for samples without a header",
                    name=name,
                    value=value,
                    unit=unit,
                    container=container,
                    found=found,
                    param=name,
                    code="contradictory_audio",
                )


def stated(form: Form, upload: Upload) -> Stated:
    """Read the fields and the content type.

    Raises:
        InvalidRequestError: a value is not what it can be.
    """
    kind, given = _content_type(upload.content_type)
    rate, channels = form.first("sample_rate"), form.first("channels")
    sample_format, track = form.first("sample_format"), form.first("audio_track")
    if sample_format is not None and sample_format not in RAW_FORMATS:
        raise not_one_of("sample_format", sample_format, ", ".join(RAW_FORMATS))
    said = Stated(
        rate=None if rate is None else _integer(rate, "sample_rate"),
        channels=None if channels is None else _integer(channels, "channels"),
        sample_format=sample_format,
        track=None if track is None else _integer(track, "audio_track"),
    )
    return _with_raw(said, kind, given, upload.filename)


def not_one_of(name: str, value: str, known: str) -> InvalidRequestError:
    """A 400 about a field that has another value than it can have."""
    text = tr("{name} is {value!r}; it can be {known}", name=name, value=value[:32], known=known)
    return InvalidRequestError(text, param=name)


def _with_raw(said: Stated, kind: str, given: dict[str, str], filename: str) -> Stated:
    typed = _RAW_TYPES.get(kind)
    coded = _CODED.get(kind)
    if coded is None and kind in _UNSPECIFIC_TYPES:
        coded = _CODED.get(PurePath(filename.lower()).suffix)
    if coded is not None and said.rate in {None, coded[1]} and said.sample_format is None:
        return replace(said, raw=RawFormat(*coded, said.channels or 1))
    if typed is None and kind not in _UNSPECIFIC_TYPES:
        return said
    rate = said.rate
    if typed is not None and rate is None:
        stated_rate = next((given[name] for name in _RATE_NAMES if given.get(name)), None)
        if stated_rate is not None:
            rate = _integer(
                stated_rate, "sample_rate", tr("the rate in the content type {kind}", kind=kind)
            )
        elif typed in {"mulaw", "alaw"}:
            rate = _TELEPHONE_RATE
    if rate is None:
        named = filename.lower().endswith(_RAW_SUFFIXES)
        return replace(said, needs_rate=typed is not None or named)
    if typed in _ENDIANNESS and given.get("endianness", "").startswith("little"):
        typed = _ENDIANNESS[typed]
    by_type = given.get("format", "").lower()
    sample_format = said.sample_format or (by_type if by_type in RAW_FORMATS else typed or "s16le")
    channels = said.channels
    if channels is None:
        channels = _integer(given.get("channels") or "1", "channels")
    return replace(said, raw=RawFormat(sample_format, rate, channels))


def _content_type(value: str) -> tuple[str, dict[str, str]]:
    """The type and its parameters; GStreamer's caps part them by commas, and name their kinds."""
    kind, *settings = (part.strip() for part in value.lower().replace(",", ";").split(";"))
    pairs = (setting.partition("=") for setting in settings)
    given = {
        name.strip(" +"): text.strip(' "').rpartition(")")[2].strip(' "') for name, _, text in pairs
    }
    return kind, given


def _integer(value: str, name: str, shown: str = "") -> int:
    value = value.strip()
    if not (value.isascii() and value.isdecimal() and len(value) <= 9):
        raise InvalidRequestError(
            "{shown} is {value!r}, not a whole number",
            shown=shown or name,
            value=value[:32],
            param=name,
        )
    return int(value)
