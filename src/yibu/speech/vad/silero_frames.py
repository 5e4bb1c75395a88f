"""Silero VAD's probabilities of speech, frame by frame."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from yibu.speech.types import Samples

FRAME = 512
"""Samples, 32 ms: what the model was trained on."""
MIN_SPEECH_FRAMES = 3
_CONTEXT = 64
"""Samples of the frame before, which the model sees again."""


class SileroFrames:
    """The probabilities of speech along one stream."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._hidden = np.zeros((1, 1, 128), np.float32)
        self._cell = np.zeros((1, 1, 128), np.float32)
        self._context = np.zeros(_CONTEXT, np.float32)

    def infer(self, samples: Samples) -> list[float]:
        """One for each of the next frames; ``samples`` are whole frames."""
        if not len(samples):
            return []
        frames = samples.reshape(-1, FRAME)
        before = np.concatenate([self._context[None], frames[:-1, -_CONTEXT:]])
        self._context = frames[-1, -_CONTEXT:].copy()
        outputs: list[npt.NDArray[np.float32]] = self._model.run(
            None,
            {"input": np.hstack([before, frames]), "h": self._hidden, "c": self._cell},
        )
        self._hidden, self._cell = outputs[1], outputs[2]
        return [float(value) for value in outputs[0].reshape(-1)]
