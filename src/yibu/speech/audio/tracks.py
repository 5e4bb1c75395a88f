"""Which of a file's audio tracks is transcribed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from yibu.errors import InvalidRequestError
from yibu.messages import tr
from yibu.speech.audio.faults import bad_audio

_USUAL_LAYOUT = re.compile(r"[a-z0-9.]+(\([a-z-]+\))?")
"""ffmpeg's name of a layout that channels have in its own order, such as ``stereo`` and ``5.1(side)``."""


@dataclass(frozen=True, slots=True)
class Track:
    """An audio track as the file describes it."""

    codec: str
    channels: int
    language: str | None
    title: str | None
    default: bool


@dataclass(frozen=True, slots=True)
class Heard:
    """A file's properties, as found while reading."""

    seconds: float
    track: int = 0
    """The audio track used, from 0."""
    tracks: tuple[Track, ...] = ()
    notes: tuple[str, ...] = ()
    """Notes for the listener on how the file was read."""


def described(stream: Any) -> Track:
    language = stream.metadata.get("language")
    return Track(
        stream.codec_context.name if stream.codec_context else "unknown",
        stream.codec_context.channels if stream.codec_context else 0,
        None if language == "und" else language,
        stream.metadata.get("title"),
        _is_default(stream),
    )


def settle_layout(stream: Any) -> None:
    """Replace a channel layout in an order of its own by one in the usual order.

    Whoever asks PyAV for such a layout, decoding included, frees its channel map once more, which ends the
    process at the second time. Asking once and replacing it at once frees it once.
    """
    layout = stream.codec_context.layout if stream.codec_context else None
    if layout is not None and layout.nb_channels:
        usual = _USUAL_LAYOUT.fullmatch(layout.name)
        stream.codec_context.layout = layout.name if usual else f"{layout.nb_channels}C"


def choose(streams: Sequence[Any], wanted: int | None) -> Any:
    """The track that was asked for, or the one that ffmpeg takes: flagged as default, with the most
    channels, the first.

    Raises:
        InvalidRequestError: there is none, or its codec is not known.
    """
    for stream in streams:
        settle_layout(stream)
    if not streams:
        raise bad_audio(tr("The file has no audio stream"))
    if wanted is not None and wanted >= len(streams):
        many = (
            tr("tracks 0 to {streams_count}", streams_count=len(streams) - 1)
            if len(streams) > 1
            else tr("one audio track, 0")
        )
        raise InvalidRequestError(
            "audio_track is {wanted}, but the file has {many}",
            wanted=wanted,
            many=many,
            param="audio_track",
        )
    if wanted is not None:
        stream = streams[wanted]
    else:
        readable = [stream for stream in streams if stream.codec_context] or streams
        stream = max(readable, key=lambda one: (_is_default(one), _channels(one), -one.index))
    if stream.codec_context is None:
        raise bad_audio(
            tr("The audio codec of track {stream} is not known", stream=streams.index(stream))
        )
    stream.codec_context.thread_count = 1  # concurrency comes from decoding several files
    return stream


def _is_default(stream: Any) -> bool:
    from av.stream import Disposition

    return bool(stream.disposition & Disposition.default)


def _channels(stream: Any) -> int:
    return int(stream.codec_context.channels) if stream.codec_context else 0
