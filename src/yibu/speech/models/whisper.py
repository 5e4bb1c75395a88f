"""Whisper in CTranslate2's layout, through the parts of faster-whisper.

Each segment is one 30 s window, recognized by itself: no text of the segment before is fed to
the next, so that segments of many requests share a batch and the text depends on neither.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from yibu.errors import EngineStartError, UnsupportedError, UsageError
from yibu.speech.answers.formats import compression_ratio
from yibu.speech.types import SAMPLE_RATE, RecognitionOptions, Recognized, Samples, Segment, Word

log = logging.getLogger(__name__)

_COMPUTE_TYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16", "int8": "int8"}
_BEAM_SIZE = 5
_BEST_OF = 5
_PROMPT_TOKENS = 223
"""Half of the decoder's context less one, as in OpenAI's implementation."""
_MAX_TOKENS = 448

_WARMER = (0.2, 0.6, 1.0)
"""Temperatures tried in turn where the text loops or is improbable (Radford et al.
2022, 4.5, which has five: here everyone waits meanwhile)."""
_MAX_COMPRESSION = 2.4
_MIN_LOGPROB = -1.0
_NO_SPEECH = 0.6

_ZH_PROMPT = "以下是普通话的简体中文句子，"
"""Without a prompt the model writes Chinese in either script, as chance has it; this one leans it
to simplified characters."""
_ZH_ECHO = "以下是普通"
"""Of what is hardly Chinese the model writes that prompt, in either script, instead of the speech."""

_HOP = SAMPLE_RATE // 100
_LOUD, _OVER_NOISE = 0.05, 3.0
"""A frame of 10 ms sounds with this share of a loud one's amplitude, and so much over the noise."""
_SHORTEST = 0.05
"""Seconds that are left of a word."""

_PREPENDED, _APPENDED = "\"'“¿([{-", "\"'.。,，!！?？:：”)]}、"


@dataclass(slots=True)
class _Window:
    """One segment on its way through the model."""

    segment: Segment
    options: RecognitionOptions
    features: Any
    """CTranslate2's encoder output, shape [1, 1500, width]."""
    language: str
    tokenizer: Any
    tokens: list[int]
    average_logprob: float = 0.0
    no_speech: float = 0.0
    temperature: float = 0.0
    unprompted: bool = False
    """Without our prompt, which it wrote back."""

    @property
    def text(self) -> str:
        return str(self.tokenizer.decode(self.tokens)).strip()

    @property
    def failed(self) -> bool:
        """Whether the text loops or is improbable, and is not just silence."""
        improbable = self.average_logprob < _MIN_LOGPROB
        if improbable and self.no_speech > _NO_SPEECH:
            return False
        return improbable or compression_ratio(self.text) > _MAX_COMPRESSION


class WhisperRecognizer:
    """A loaded model; see ``load``."""

    takes_hotwords = False
    tells_times = False

    def __init__(self, model: Any, *, name: str, precision: str, on_cpu: bool) -> None:
        self._whisper = model
        self.name = name
        self.precision = precision
        self.languages = frozenset({"auto", *model.supported_languages})
        self._multilingual = bool(model.model.is_multilingual)
        translates = {"translate"} if self._multilingual else set()
        self.tasks = frozenset({"transcribe"} | translates)
        self._together = not on_cpu or precision == "int8"
        """Decode segments in one batch. In int8 on a CPU the result is the same to the last bit;
        in floats there the order of summation follows the batch's size, so each goes alone."""
        self._encode_together = not on_cpu
        """On a CPU a window by itself stays in the cache: measured twice as fast as six at once."""

    @classmethod
    def load(cls, directory: Path, *, precision: str, device: str, threads: int) -> Self:
        """Load a model directory. ``device`` is ``cpu``, ``cuda`` or ``cuda:N``.

        Raises:
            UnsupportedError: files are missing, or the device cannot compute in that precision.
            EngineStartError: CTranslate2 sees no such device.
            UsageError: an unknown precision.
        """
        import ctranslate2
        from faster_whisper.transcribe import WhisperModel

        for file in ("model.bin", "config.json", "tokenizer.json"):
            if not (directory / file).is_file():
                raise UnsupportedError(
                    "{directory} has no {file}: a whisper model in CTranslate2's layout has",
                    directory=directory,
                    file=file,
                    hint="ct2-transformers-converter makes it with --copy_files tokenizer.json",
                )
        kind, _, index = device.partition(":")
        try:
            supported = ctranslate2.get_supported_compute_types(kind)
        except (RuntimeError, ValueError) as error:  # no driver, no such device
            raise EngineStartError(
                "device {device}: CTranslate2 {version} cannot use it: {error}",
                device=device,
                version=ctranslate2.__version__,
                error=error,
                hint="Check nvidia-smi and the driver, or set `device: cpu`",
                cause="no_cuda",
            ) from error
        compute_type = _compute_type(precision, kind, supported)
        try:
            model = WhisperModel(
                str(directory),
                device=kind,
                device_index=int(index or 0),
                compute_type=compute_type,
                cpu_threads=threads,
                local_files_only=True,
            )
        except (RuntimeError, ValueError) as error:  # CTranslate2's words for damaged files
            raise UnsupportedError(
                "{directory} cannot be loaded: {error}",
                directory=directory,
                error=error,
                hint="The download may be damaged: yibu pull it again",
            ) from error
        chosen = next(key for key, value in _COMPUTE_TYPES.items() if value == compute_type)
        return cls(model, name=directory.name, precision=chosen, on_cpu=kind == "cpu")

    def recognize(
        self, segments: Sequence[Segment], options: Sequence[RecognitionOptions]
    ) -> list[Recognized]:
        """One answer a segment, in order; each depends on its own segment and options alone."""
        encoded = self._encode(segments)
        windows = [self._window(*item) for item in zip(segments, options, encoded, strict=True)]
        for group in self._groups(windows):
            self._generate(group, group[0].options.temperature)
        for window in windows:
            if window.options.temperature == 0.0 and window.failed:
                self._try_warmer(window)
        return [self._recognized(window) for window in windows]

    def _encode(self, segments: Sequence[Segment]) -> list[Any]:
        from faster_whisper.audio import pad_or_trim
        from faster_whisper.transcribe import get_ctranslate2_storage

        mels = [
            pad_or_trim(self._whisper.feature_extractor(segment.samples)[..., :-1])
            for segment in segments
        ]
        if not self._encode_together:
            return [self._whisper.encode(mel) for mel in mels]
        output = self._whisper.model.encode(get_ctranslate2_storage(np.stack(mels)), to_cpu=True)
        return [get_ctranslate2_storage(row[None]) for row in np.array(output)]

    def _window(self, segment: Segment, options: RecognitionOptions, features: Any) -> _Window:
        from faster_whisper.tokenizer import Tokenizer

        language = options.language
        if language == "auto":
            language = self._detect(features)
        tokenizer = Tokenizer(
            self._whisper.hf_tokenizer,
            self._multilingual,
            task=options.task,
            language=language,
        )
        return _Window(segment, options, features, language, tokenizer, [])

    def _detect(self, features: Any) -> str:
        if not self._multilingual:
            return "en"
        token, _ = self._whisper.model.detect_language(features)[0][0]
        return str(token)[2:-2]

    def _groups(self, windows: Sequence[_Window]) -> list[list[_Window]]:
        """Windows that one call can decode: the same prompt and temperature."""
        if not self._together:
            return [[window] for window in windows]
        groups: dict[object, list[_Window]] = {}
        for window in windows:
            key: object = (tuple(self._prompt(window)), window.options.temperature)
            if window.options.temperature > 0.0:
                key = id(window)  # samples are drawn from one stream of numbers a call
            groups.setdefault(key, []).append(window)
        return list(groups.values())

    def _prompt(self, window: _Window) -> list[int]:
        text = window.options.prompt
        ours = window.language == "zh" and window.options.task == "transcribe"
        if text is None and ours and not window.unprompted:
            text = _ZH_PROMPT
        previous = window.tokenizer.encode(" " + text.strip())[-_PROMPT_TOKENS:] if text else []
        return list(self._whisper.get_prompt(window.tokenizer, previous, without_timestamps=True))

    def _generate(self, windows: Sequence[_Window], temperature: float) -> None:
        from faster_whisper.transcribe import get_ctranslate2_storage, get_suppressed_tokens

        sampling = (
            {"beam_size": 1, "num_hypotheses": _BEST_OF, "sampling_topk": 0}
            if temperature > 0.0
            else {"beam_size": _BEAM_SIZE}
        )
        features = windows[0].features
        if len(windows) > 1:
            stacked = np.concatenate([np.array(window.features) for window in windows])
            features = get_ctranslate2_storage(stacked)
        results = self._whisper.model.generate(
            features,
            [self._prompt(window) for window in windows],
            max_length=_MAX_TOKENS,
            return_scores=True,
            return_no_speech_prob=True,
            sampling_temperature=temperature or 1.0,
            suppress_tokens=list(get_suppressed_tokens(windows[0].tokenizer, [-1])),
            **sampling,
        )
        for window, result in zip(windows, results, strict=True):
            tokens = list(result.sequences_ids[0])
            window.tokens = tokens
            window.average_logprob = result.scores[0] * len(tokens) / (len(tokens) + 1)
            window.no_speech = float(result.no_speech_prob)
            window.temperature = temperature
            if window.options.prompt is None and not window.unprompted and _ZH_ECHO in window.text:
                window.unprompted = True
                self._generate([window], temperature)

    def _try_warmer(self, window: _Window) -> None:
        """Sample at rising temperatures until the text neither loops nor is improbable, and keep
        the most probable of the tries that do not loop."""
        import ctranslate2

        ctranslate2.set_random_seed(0)
        best = replace(window)
        for temperature in _WARMER:
            self._generate([window], temperature)
            if not window.failed:
                return
            looped = compression_ratio(best.text) > _MAX_COMPRESSION
            loops = compression_ratio(window.text) > _MAX_COMPRESSION
            if (looped, -best.average_logprob) > (loops, -window.average_logprob):
                best = replace(window)
        window.tokens, window.average_logprob = best.tokens, best.average_logprob
        window.temperature = best.temperature

    def _recognized(self, window: _Window) -> Recognized:
        segment = window.segment
        silent = window.no_speech > _NO_SPEECH and window.average_logprob < _MIN_LOGPROB
        text = "" if silent else window.text
        onsets = Onsets(segment.samples)
        return Recognized(
            text=text,
            # The VAD's segment begins with up to 0.4 s of silence.
            start=segment.start + onsets.after(0.0, segment.duration),
            end=segment.end,
            language=window.language,
            words=self._words(window, onsets) if text and window.options.words else (),
            raw=text,
            average_logprob=window.average_logprob,
            no_speech_probability=window.no_speech,
            compression_ratio=compression_ratio(text) if text else 0.0,
            temperature=window.temperature,
            tokens=tuple(window.tokens),
        )

    def _words(self, window: _Window, onsets: Onsets) -> tuple[Word, ...]:
        """Align the text with the audio by the decoder's cross-attention, which lets a word begin in
        the silence in front of it."""
        from faster_whisper.transcribe import merge_punctuations

        tokens = [token for token in window.tokens if token < window.tokenizer.eot]
        frames = round(window.segment.duration * self._whisper.frames_per_second)
        [alignment] = self._whisper.find_alignment(
            window.tokenizer, [tokens], window.features, max(frames, 1)
        )
        merge_punctuations(alignment, _PREPENDED, _APPENDED)
        start, end = window.segment.start, window.segment.end
        return tuple(
            Word(
                text=word["word"].strip(),
                start=min(start + onsets.after(float(word["start"]), float(word["end"])), end),
                end=min(start + float(word["end"]), end),
            )
            for word in alignment
            if word["word"].strip()
        )


def _compute_type(precision: str, device: str, supported: set[str]) -> str:
    if precision == "auto":
        preferred = ("float16", "float32") if device == "cuda" else ("int8", "float32")
        chosen = next(kind for kind in preferred if kind in supported)
        log.info(
            "precision auto: %s on %s, the fastest kind this device supports; in int8 the text "
            "may differ in a few characters from fp32",
            chosen,
            device,
        )
        return chosen
    if precision not in _COMPUTE_TYPES:
        raise UsageError(
            "The precision {precision!r} is not known; it can be auto, {types}",
            precision=precision,
            types=", ".join(_COMPUTE_TYPES),
        )
    compute_type = _COMPUTE_TYPES[precision]
    if compute_type not in supported:
        usable = [key for key, value in _COMPUTE_TYPES.items() if value in supported]
        raise UnsupportedError(
            "This {device} cannot compute whisper in {precision}; it can in {usable}",
            device=device,
            precision=precision,
            usable=", ".join(usable),
            hint="Leave precision at auto",
        )
    return compute_type


class Onsets:
    """Which hundredths of a second of some samples are not quiet."""

    def __init__(self, samples: Samples) -> None:
        whole = samples[: len(samples) // _HOP * _HOP].reshape(-1, _HOP)
        level = np.sqrt(np.einsum("fn,fn->f", whole, whole) / _HOP)
        quiet, loud = np.percentile(level, (10, 95)) if len(level) else (0.0, 0.0)
        self._sounds: npt.NDArray[np.intp] = np.flatnonzero(
            level > max(_LOUD * loud, min(_OVER_NOISE * quiet, loud / 2))
        )

    def after(self, start: float, end: float) -> float:
        """When the first sound from ``start`` on begins, in seconds: no later than just before
        ``end``, and ``start`` where nothing sounds."""
        index = np.searchsorted(self._sounds, int(start * 100))
        if index == len(self._sounds):
            return start
        found = float(self._sounds[index]) / 100
        return max(start, min(found, end - _SHORTEST))
