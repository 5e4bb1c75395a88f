"""Recognized segments in the shapes of OpenAI's API: json, text, srt, vtt, verbose_json, and the
events of a stream (schemas CreateTranscriptionResponse*, TranscriptText*Event)."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from yibu.speech.answers.languages import name_of
from yibu.speech.answers.subtitles import cues, srt, vtt
from yibu.speech.audio.tracks import Heard
from yibu.speech.types import RecognitionOptions, Recognized

CONTENT_TYPES = {
    "text": "text/plain; charset=utf-8",
    "srt": "application/x-subrip; charset=utf-8",
    "vtt": "text/vtt; charset=utf-8",
}
"""Content types of the formats that are not JSON."""

RESPONSE_FORMATS = ("json", "text", "srt", "vtt", "verbose_json", "diarized_json")

_MEL_FRAMES_A_SECOND = 100


@dataclass(frozen=True, slots=True)
class Transcript:
    """What an answer is made of."""

    segments: Sequence[Recognized]
    heard: Heard
    options: RecognitionOptions

    @property
    def spoken(self) -> list[Recognized]:
        return [segment for segment in self.segments if segment.text]

    @property
    def text(self) -> str:
        return "".join(pieces(self.segments))

    @property
    def language(self) -> str | None:
        """The language of most of the speech: given by the client, or detected."""
        if self.options.language != "auto":
            return self.options.language
        return _of_most(self.spoken, lambda segment: segment.language)

    @property
    def emotion(self) -> str | None:
        """The emotion of most of the speech; None for models without emotions."""
        return _of_most(self.spoken, lambda segment: segment.emotion)

    @property
    def events(self) -> list[str]:
        """Every kind of audio event that was heard, also without speech, in order of appearance."""
        return list(dict.fromkeys(event for one in self.segments for event in one.events))


def speaker_of_most(segments: Sequence[Recognized]) -> str | None:
    """The speaker with the most speech in ``segments``; None where speakers are not told apart."""
    return _of_most(segments, lambda segment: segment.speaker)


def _of_most(
    segments: Sequence[Recognized], said: Callable[[Recognized], str | None]
) -> str | None:
    seconds: dict[str, float] = {}
    for segment in segments:
        if what := said(segment):
            seconds[what] = seconds.get(what, 0.0) + segment.end - segment.start
    return max(seconds, key=lambda what: seconds[what], default=None)


def pieces(segments: Sequence[Recognized]) -> Iterator[str]:
    """The text of each segment, with the separator to the one before it."""
    before = ""
    for segment in segments:
        piece = separated(before, segment.text)
        yield piece
        before = piece or before


def separated(before: str, text: str) -> str:
    """``text``, with a space in front where the two scripts need one: never beside Chinese, Japanese or
    full-width punctuation."""
    text = text.strip()
    if not before or not text or _is_wide(before[-1]) or _is_wide(text[0]):
        return text
    return f" {text}"


def body(transcript: Transcript, response_format: str, granularities: frozenset[str]) -> Any:
    """The answer: a string for text, srt and vtt, else an object for JSON."""
    if response_format == "text":
        return transcript.text + "\n"
    if response_format == "srt":
        return srt(cues(transcript.spoken))
    if response_format == "vtt":
        return vtt(cues(transcript.spoken))
    # Whole seconds, as OpenAI and vLLM tell them: LiteLLM takes no others.
    seconds = math.ceil(round(transcript.heard.seconds, 1))
    usage = {"type": "duration", "seconds": seconds}
    notes = {"notes": list(transcript.heard.notes)} if transcript.heard.notes else {}
    if response_format == "json":
        return {"text": transcript.text, "usage": usage, **notes}
    if response_format == "diarized_json":
        return {**_diarized(transcript), "usage": usage, **notes}
    return {**_verbose(transcript, granularities), "usage": usage, **notes}


def script_text(transcript: Transcript) -> str:
    """The text as FunASR's ``rich_transcription_postprocess`` words it over a whole file, which
    is what callers of ``/recognize/`` are used to; the plain text for models without tags."""
    raws = [segment.raw for segment in transcript.segments if segment.raw]
    if not any("<|" in raw for raw in raws):
        return transcript.text
    from yibu.speech.models.richtext import transcript as rich_text

    return rich_text(raws)


def delta_event(piece: str) -> dict[str, Any]:
    return {"type": "transcript.text.delta", "delta": piece}


def done_event(transcript: Transcript) -> dict[str, Any]:
    return {"type": "transcript.text.done", "text": transcript.text}


def segment_event(number: int, segment: Recognized) -> dict[str, Any]:
    """OpenAI's TranscriptTextSegmentEvent, which is its TranscriptionDiarizedSegment too."""
    return {
        "type": "transcript.text.segment",
        "id": f"seg_{number:03}",
        "start": round(segment.start, 3),
        "end": round(segment.end, 3),
        "text": segment.text,
        "speaker": segment.speaker or "A",
    }


def _diarized(transcript: Transcript) -> dict[str, Any]:
    return {
        "task": "transcribe",
        "duration": round(transcript.heard.seconds, 3),
        "text": transcript.text,
        "segments": [segment_event(n, one) for n, one in enumerate(transcript.spoken, 1)],
    }


def _verbose(transcript: Transcript, granularities: frozenset[str]) -> dict[str, Any]:
    translated = transcript.options.task == "translate"
    answer: dict[str, Any] = {
        "task": transcript.options.task,
        "language": "english" if translated else name_of(transcript.language),
        "duration": round(transcript.heard.seconds, 3),
        "text": transcript.text,
    }
    if transcript.heard.tracks:
        answer["audio_track"] = transcript.heard.track
    if len(transcript.heard.tracks) > 1:
        answer["audio_tracks"] = [asdict(track) for track in transcript.heard.tracks]
    if transcript.emotion is not None:
        answer["emotion"] = transcript.emotion
    if transcript.events:
        answer["events"] = transcript.events
    if "word" in granularities:
        answer["words"] = [
            {"word": word.text.strip(), "start": round(word.start, 3), "end": round(word.end, 3)}
            for segment in transcript.spoken
            for word in segment.words
        ]
    if "segment" in granularities:
        answer["segments"] = [
            _segment(number, segment) for number, segment in enumerate(transcript.spoken)
        ]
    return answer


def _segment(number: int, segment: Recognized) -> dict[str, Any]:
    """OpenAI's TranscriptionSegment, whose fields are all required: a figure that the model does
    not have is 0. Beyond it, what the model says of language, emotion and events."""
    ratio = segment.compression_ratio
    answer: dict[str, Any] = {
        "id": number,
        "seek": round(segment.start * _MEL_FRAMES_A_SECOND),
        "start": round(segment.start, 3),
        "end": round(segment.end, 3),
        "text": segment.text,
        "tokens": list(segment.tokens),
        "temperature": segment.temperature,
        "avg_logprob": segment.average_logprob or 0.0,
        "compression_ratio": compression_ratio(segment.text) if ratio is None else ratio,
        "no_speech_prob": segment.no_speech_probability or 0.0,
    }
    if segment.speaker is not None:
        answer["speaker"] = segment.speaker
    if segment.language is not None:
        answer["language"] = segment.language
    if segment.emotion is not None:
        answer["emotion"] = segment.emotion
    if segment.events:
        answer["events"] = list(segment.events)
    return answer


def compression_ratio(text: str) -> float:
    """Whisper's measure of repetition: bytes over bytes compressed by zlib."""
    data = text.encode()
    return len(data) / len(zlib.compress(data))


def _is_wide(character: str) -> bool:
    """Whether the script around it uses no spaces: CJK ideographs, kana, full-width forms, but
    not hangul, which does."""
    point = ord(character)
    return (
        0x2E80 <= point <= 0x9FFF
        or 0xF900 <= point <= 0xFAFF
        or 0xFE30 <= point <= 0xFFEF
        or (0x20000 <= point <= 0x3FFFF)
    )
