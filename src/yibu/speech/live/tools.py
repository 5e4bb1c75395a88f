"""What live sessions share."""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from yibu.speech.batcher import Batcher
from yibu.speech.live.partials import PartialQueue
from yibu.speech.metrics import SpeechMetrics
from yibu.speech.types import Recognizer, Segmenter

if TYPE_CHECKING:  # OpenVINO is not in whisper's environment
    from yibu.speech.models.paraformer_online import OnlineParaformer


@dataclass(frozen=True, slots=True)
class LiveTools:
    """What all live sessions of an engine share."""

    segmenter: Segmenter
    batcher: Batcher
    partials: PartialQueue
    pool: Executor
    metrics: SpeechMetrics
    recognizer: Recognizer
    tells_speakers: bool = False
    streaming: OnlineParaformer | None = None
    """The model for partial texts, where it is not the recognizer."""
