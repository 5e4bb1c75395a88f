"""Silero VAD (the ONNX file that faster-whisper carries) and a segment rule for whisper.

Whisper computes a 30 s window whatever is in it, so the rule fills windows: speech is joined
over short pauses, long silence is skipped, and the longer a segment gets the shorter a pause
ends it. One cannot grow over ``MAX_SECONDS``: speech without pauses is cut where the voice is
weakest.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from yibu.speech.types import SAMPLE_RATE, Endpointing, Samples, Segment, UtteranceDetector
from yibu.speech.vad.silero_frames import FRAME, MIN_SPEECH_FRAMES, SileroFrames
from yibu.speech.vad.silero_live import SileroUtterances

_SPEECH, _SILENCE = 0.5, 0.35
"""Probabilities at which speech begins and ends."""
_PAD = int(0.4 * SAMPLE_RATE)
MAX_SECONDS = 29.0
_MAX = int(MAX_SECONDS * SAMPLE_RATE)
_ENDING_PAUSES = ((12.0, 2.0), (20.0, 0.7), (MAX_SECONDS, 0.3))
"""(up to this many seconds of segment, a pause of this many seconds ends it)."""


def _model_path() -> Path:
    """The model file inside the installed faster-whisper."""
    import faster_whisper.utils

    return Path(faster_whisper.utils.get_assets_path()) / "silero_vad_v6.onnx"


class SileroVad:
    """The loaded model. One for all sessions: ONNX Runtime's ``run`` is thread-safe."""

    name = "silero-vad"

    def __init__(self) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.inter_op_num_threads = options.intra_op_num_threads = 1
        options.enable_cpu_mem_arena = False
        self._model = onnxruntime.InferenceSession(
            str(_model_path()), options, providers=["CPUExecutionProvider"]
        )

    def session(self) -> SileroSession:
        return SileroSession(self._model)

    def utterances(self, endpointing: Endpointing) -> UtteranceDetector:
        return SileroUtterances(self._model, endpointing)


class SileroSession:
    """One file. Keeps at most one segment's samples and probabilities, and the open frame."""

    def __init__(self, model: Any) -> None:
        self._frames = SileroFrames(model)
        self._buffer = np.zeros(0, np.float32)
        """Samples from ``_origin`` on; the first ``_judged`` of them have probabilities."""
        self._origin = 0
        self._judged = 0
        self._begin: int | None = None
        """Where the open segment begins, in samples of the file."""
        self._probabilities: list[float] = []
        """Of the frames since the open segment's first voiced one."""
        self._first_frame = 0
        self._floor = 0
        """The end of the last segment: none begins before it."""

    def feed(self, samples: Samples) -> list[Segment]:
        self._buffer = np.concatenate([self._buffer, samples])
        whole = (len(self._buffer) - self._judged) // FRAME * FRAME
        return self._judge(self._buffer[self._judged : self._judged + whole])

    def finish(self) -> list[Segment]:
        rest = self._buffer[self._judged :]
        total = self._origin + len(self._buffer)
        segments = []
        if len(rest):
            padded = np.pad(rest, (0, FRAME - len(rest)))
            self._buffer = np.concatenate([self._buffer[: self._judged], padded])
            segments = self._judge(padded)
        if self._begin is not None:
            voiced = self._voiced_end()
            segments += self._close(min(voiced + _PAD, total))
        return segments

    def _judge(self, samples: Samples) -> list[Segment]:
        """Take whole frames that stand in the buffer behind those judged already."""
        segments: list[Segment] = []
        for probability in self._frames.infer(samples):
            frame = self._origin + self._judged
            self._judged += FRAME
            if self._begin is None:
                if probability >= _SPEECH:
                    self._begin = max(self._floor, frame - _PAD, self._origin)
                    self._first_frame = frame
                    self._probabilities = [probability]
            else:
                self._probabilities.append(probability)
                segments += self._end_if_due(frame + FRAME)
        self._forget()
        return segments

    def _end_if_due(self, now: int) -> list[Segment]:
        assert self._begin is not None
        length = (now - self._begin) / SAMPLE_RATE
        voiced = self._voiced_end()
        pause = next(pause for limit, pause in (*_ENDING_PAUSES, (1e9, 0.0)) if length <= limit)
        if now - voiced >= pause * SAMPLE_RATE and now > voiced:
            return self._close(min(voiced + _PAD, now))
        if now - self._begin + FRAME > _MAX:
            return self._split()
        return []

    def _voiced_end(self) -> int:
        """The end of the last frame that is not silence, in samples of the file."""
        for index in range(len(self._probabilities) - 1, -1, -1):
            if self._probabilities[index] >= _SILENCE:
                return self._first_frame + (index + 1) * FRAME
        return self._first_frame

    def _split(self) -> list[Segment]:
        """Cut unbroken speech where the voice is weakest in the segment's last third, and go on
        from there."""
        smooth = np.convolve(self._probabilities, np.ones(5) / 5, mode="same")
        late = len(smooth) * 2 // 3
        index = late + int(np.argmin(smooth[late:-2]))
        cut = self._first_frame + index * FRAME
        rest = self._probabilities[index:]
        segments = self._close(cut)
        self._begin = self._first_frame = cut
        self._probabilities = rest
        return segments

    def _close(self, end: int) -> list[Segment]:
        assert self._begin is not None
        begin, spoken = self._begin, sum(p >= _SPEECH for p in self._probabilities)
        self._begin = None
        self._probabilities = []
        self._floor = end
        if spoken < MIN_SPEECH_FRAMES:
            return []
        samples = self._buffer[begin - self._origin : end - self._origin].copy()
        return [Segment(start=begin / SAMPLE_RATE, samples=samples)]

    def _forget(self) -> None:
        """Free samples that no segment can need any more."""
        judged = self._origin + self._judged
        keep = self._begin if self._begin is not None else max(self._floor, judged - _PAD)
        drop = max(0, keep - self._origin)
        self._buffer = self._buffer[drop:].copy()
        self._origin += drop
        self._judged -= drop
