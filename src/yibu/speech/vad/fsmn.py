"""FSMN-VAD (``iic/speech_fsmn_vad_zh-cn-16k-common-pytorch`` or ``-onnx``) in numpy, over a live
stream.

The network sees five stacked frames of the filter bank, each 10 ms, and looks only backwards
in its four memory blocks; the newest output therefore needs two frames (20 ms) more than it
describes. A session keeps the memory blocks' last inputs, the endpointer's state and the
samples of the speech that has not ended.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from yibu.errors import UnsupportedError, VerificationError
from yibu.speech.checkpoints.config import read_config, section
from yibu.speech.checkpoints.pytorch import Weights, read_checkpoint
from yibu.speech.features import (
    FRAME_LENGTH,
    FRAME_SHIFT,
    MEL_BINS,
    Normalizer,
    fbank,
    stack_frames,
)
from yibu.speech.segments import SegmentCutter, SegmentRule, Span
from yibu.speech.types import SAMPLE_RATE, Endpointing, Features, Samples, Segment, SpeechBegan
from yibu.speech.vad.endpoint import Endpointer, EndpointRule, Frames, Opened
from yibu.speech.vad.fsmn_onnx import onnx_weights

_WIDTH = 5
_SIDE = (_WIDTH - 1) // 2
_BLOCK = 256
"""Frames computed at a time: their data stays in the cache."""

Array = npt.NDArray[np.float32]


class FsmnNetwork:
    """The weights, shared by all sessions, and the forward pass."""

    def __init__(self, weights: Weights, layers: int, order: int) -> None:
        def matrix(name: str) -> Array:
            return np.ascontiguousarray(weights[f"encoder.{name}.weight"].T, dtype=np.float32)

        def affine(name: str) -> tuple[Array, Array]:
            bias = np.asarray(weights[f"encoder.{name}.bias"], dtype=np.float32)
            return matrix(name), bias

        self._inputs = (affine("in_linear1.linear"), affine("in_linear2.linear"))
        self._blocks = []
        for n in range(layers):
            taps = weights[f"encoder.fsmn.{n}.fsmn_block.conv_left.weight"]
            if taps.shape[2] != order:
                raise ValueError(f"layer {n} has {taps.shape[2]} taps, {order} expected")
            kernel = np.ascontiguousarray(taps[:, 0, :, 0].T, dtype=np.float32)
            self._blocks.append(
                (matrix(f"fsmn.{n}.linear.linear"), kernel, affine(f"fsmn.{n}.affine.linear"))
            )
        self._outputs = (affine("out_linear1.linear"), affine("out_linear2.linear"))

    def memory(self) -> list[Array]:
        """The memory of a new stream: what each block saw last, which is nothing."""
        return [
            np.zeros((len(kernel) - 1, kernel.shape[1]), np.float32)
            for _, kernel, _ in self._blocks
        ]

    def silence(self, stacked: Features, memory: list[Array]) -> Array:
        """p(silence) of each frame [T] from float32 [T, 400]; moves ``memory`` forward."""
        parts = [
            self._silence(stacked[at : at + _BLOCK], memory)
            for at in range(0, len(stacked), _BLOCK)
        ]
        return np.concatenate(parts) if parts else np.empty(0, np.float32)

    def _silence(self, x: npt.NDArray[Any], memory: list[Array]) -> Array:
        (first, first_bias), (second, second_bias) = self._inputs
        x = (x @ first + first_bias) @ second + second_bias
        np.maximum(x, 0, out=x)
        for n, (project, kernel, (expand, bias)) in enumerate(self._blocks):
            projected: npt.NDArray[Any] = x @ project
            history = np.concatenate((memory[n], projected))
            memory[n] = history[len(projected) :]
            windows = np.lib.stride_tricks.sliding_window_view(history, len(kernel), axis=0)
            projected += np.einsum("tcw,wc->tc", windows, kernel)
            x = projected @ expand + bias
            np.maximum(x, 0, out=x)
        (first, first_bias), (second, second_bias) = self._outputs
        logits = (x @ first + first_bias) @ second + second_bias
        logits -= logits.max(axis=1, keepdims=True)
        np.exp(logits, out=logits)
        silence: Array = logits[:, 0] / logits.sum(axis=1)
        return silence


class FsmnVad:
    """A loaded FSMN-VAD: makes a session for each file."""

    name = "fsmn-vad"

    def __init__(
        self,
        network: FsmnNetwork,
        normalizer: Normalizer,
        endpoints: EndpointRule,
        rule: SegmentRule,
        *,
        samples: bool = True,
    ) -> None:
        self._network = network
        self._normalizer = normalizer
        self._endpoints = endpoints
        self._rule = rule
        self._samples = samples

    @classmethod
    def load(
        cls, directory: Path, rule: SegmentRule | None = None, *, samples: bool = True
    ) -> FsmnVad:
        """Load config.yaml, am.mvn and the weights from ``directory``.

        ``samples`` says whether segments carry their samples beside the filter bank.

        The weights are those of the first that is there of model.pt, model.onnx and
        model_quant.onnx. Older ONNX exports call the two others vad.yaml and vad.mvn.

        Raises ``VerificationError`` for missing or damaged files and ``UnsupportedError`` for
        another kind of network.
        """
        rule = rule or SegmentRule()
        config = read_config(directory, _there(directory, "config.yaml", "vad.yaml").name)
        encoder = section(config, "encoder_conf", directory)
        shape = {"input_dim": _WIDTH * MEL_BINS, "rorder": 0, "lstride": 1}
        for key, expected in shape.items():
            if encoder.get(key) != expected:
                raise UnsupportedError(
                    "{directory}: encoder_conf.{key} is {found!r}, {expected} expected",
                    directory=directory,
                    key=key,
                    found=encoder.get(key),
                    expected=expected,
                    hint="Use iic/speech_fsmn_vad_zh-cn-16k-common-pytorch",
                )
        network = _network(directory, encoder)
        rules = section(
            config, "vad_post_conf" if "vad_post_conf" in config else "model_conf", directory
        )
        endpoints = replace(endpoint_rule(rules), cap=int(rule.cap * 100))
        mvn = _there(directory, "am.mvn", "vad.mvn")
        normalizer = Normalizer.read(mvn, _WIDTH * MEL_BINS)
        return cls(network, normalizer, endpoints, rule, samples=samples)

    def session(self) -> FsmnSession:
        return FsmnSession(*self._parts(self._endpoints))

    def utterances(self, endpointing: Endpointing) -> FsmnUtterances:
        return FsmnUtterances(*self._parts(live_rule(self._endpoints, endpointing)))

    def _parts(self, rule: EndpointRule) -> tuple[FsmnFrames, Endpointer, SegmentCutter]:
        """The parts of a new stream."""
        frames = FsmnFrames(self._network, self._normalizer)
        return frames, Endpointer(rule), SegmentCutter(self._rule, samples=self._samples)


def _there(directory: Path, usual: str, *others: str) -> Path:
    """The first of the files that exists; ``usual`` where none does."""
    paths = [directory / name for name in (usual, *others)]
    return next((path for path in paths if path.exists()), paths[0])


def _network(directory: Path, encoder: dict[str, Any]) -> FsmnNetwork:
    path = _there(directory, "model.pt", "model.onnx", "model_quant.onnx")
    try:
        layers, order = int(encoder["fsmn_layers"]), int(encoder["lorder"])
        if path.suffix == ".onnx":
            weights = onnx_weights(path, layers)
        else:
            weights = read_checkpoint(path).tensors
        network = FsmnNetwork(weights, layers, order)
        # Matrices that do not fit each other are found here, not in the first request.
        network.silence(np.zeros((1, _WIDTH * MEL_BINS), np.float32), network.memory())
    except (LookupError, ValueError, TypeError) as error:
        raise VerificationError(
            "{path} does not hold the network of the config beside it: {error}",
            path=path,
            error=error,
            hint="Download the VAD model again",
        ) from error
    return network


def endpoint_rule(model_conf: dict[str, Any]) -> EndpointRule:
    """The window and margins of a VAD's ``model_conf`` (milliseconds); patience is our own."""

    def frames(key: str, default: int) -> int:
        return int(model_conf.get(key, default)) // 10

    return EndpointRule(
        window=frames("window_size_ms", 200),
        to_speech=frames("sil_to_speech_time_thres", 150),
        to_silence=frames("speech_to_sil_time_thres", 150),
        lookback=frames("lookback_time_start_point", 200),
        lookahead=frames("lookahead_time_end_point", 100),
    )


def live_rule(rule: EndpointRule, endpointing: Endpointing) -> EndpointRule:
    """The rule of files with a live session's settings. With the usual padding an utterance begins
    where it begins in a file."""
    noticed = rule.window - rule.to_silence
    """Frames of silence after which the window says so."""
    ahead = _SIDE + round(FRAME_LENGTH / FRAME_SHIFT) - 1
    """Frames that have been heard beyond the newest that is judged: they are silence too."""
    patience = max(1, round(endpointing.silence * 100) - noticed - ahead)
    return replace(
        rule,
        threshold=endpointing.threshold,
        lookback=round(endpointing.prefix_padding * 100) - rule.window // 2,
        patience=tuple((limit, min(patience, frames)) for limit, frames in rule.patience),
    )


class FsmnFrames:
    """One stream's samples as they come → their filter bank, and p(silence) of each frame."""

    def __init__(self, network: FsmnNetwork, normalizer: Normalizer) -> None:
        self._network = network
        self._normalizer = normalizer
        self._memory = network.memory()
        self._tail: Samples = np.empty(0, np.float32)
        """Samples of an incomplete frame."""
        self._context: Features = np.empty((0, MEL_BINS), np.float32)
        """The last frames, which are stacked with the next ones."""

    def feed(self, samples: Samples) -> tuple[Features, Array]:
        """Take the next samples (any number): the frames that became whole, and p(silence) of
        those that the network has seen the two frames after of."""
        joined = np.concatenate((self._tail, samples))
        features = fbank(joined)
        self._tail = joined[len(features) * FRAME_SHIFT :].copy()
        return features, self._silence(features, last=False)

    def samples(self, frames: int) -> int:
        """Samples missing until so many more frames are complete."""
        return FRAME_LENGTH + (frames - 1) * FRAME_SHIFT - len(self._tail)

    def finish(self) -> Array:
        """No more samples: p(silence) of the last frames."""
        return self._silence(np.empty((0, MEL_BINS), np.float32), last=True)

    def _silence(self, features: Features, *, last: bool) -> Array:
        if len(features) and not len(self._context):
            features = np.concatenate((np.repeat(features[:1], _SIDE, axis=0), features))
        window = np.concatenate((self._context, features))
        if last and len(window):
            window = np.concatenate((window, np.repeat(window[-1:], _SIDE, axis=0)))
        self._context = window[-2 * _SIDE :].copy()
        if len(window) <= 2 * _SIDE:
            return np.empty(0, np.float32)
        stacked = stack_frames(window, _WIDTH, 1)[_SIDE:-_SIDE]
        return self._network.silence(self._normalizer(stacked), self._memory)


class FsmnSession:
    """Segments one file; see ``SegmenterSession``."""

    def __init__(self, frames: FsmnFrames, endpointer: Endpointer, cutter: SegmentCutter) -> None:
        self._frames = frames
        self._endpointer = endpointer
        self._cutter = cutter

    def feed(self, samples: Samples) -> list[Segment]:
        """Take the next samples (any number) and return the segments that are finished."""
        samples = np.asarray(samples, dtype=np.float32)
        features, silence = self._frames.feed(samples)
        self._cutter.append(samples, features)
        return list(self._detect(silence))

    def finish(self) -> list[Segment]:
        """No more samples: return what is left."""
        segments = list(self._detect(self._frames.finish()))
        for frames in self._endpointer.finish():
            segments += self._cutter.speech(_span(frames))
        return segments + self._cutter.finish()

    def _detect(self, silence: Array) -> Iterator[Segment]:
        for at in range(0, len(silence), _BLOCK):
            for frames in self._endpointer.feed(silence[at : at + _BLOCK]):
                yield from self._cutter.speech(_span(frames))
        yield from self._cutter.advance(self._endpointer.earliest * FRAME_SHIFT)


class FsmnUtterances:
    """Finds utterances on a live stream; see ``UtteranceDetector``."""

    def __init__(self, frames: FsmnFrames, endpointer: Endpointer, cutter: SegmentCutter) -> None:
        self._frames = frames
        self._endpointer = endpointer
        self._cutter = cutter
        self._whole = 0
        """Frames so far."""

    def feed(self, samples: Samples) -> list[SpeechBegan | Segment]:
        samples = np.asarray(samples, dtype=np.float32)
        features, silence = self._frames.feed(samples)
        self._cutter.append(samples, features)
        self._whole += len(features)
        found = self._found(self._endpointer.events(silence))
        self._cutter.drop_before(self._endpointer.earliest * FRAME_SHIFT)
        return found

    def finish(self) -> list[SpeechBegan | Segment]:
        events = self._endpointer.events(self._frames.finish())
        return self._found([*events, *self._endpointer.finish()])

    @property
    def uneventful(self) -> int:
        return self._frames.samples(self._endpointer.uneventful + 1) - 1

    def speech(self) -> Segment | None:
        start = self._endpointer.start
        if start is None or start >= self._whole:
            return None
        return self._cutter.segment(_span(Frames(start, self._whole)))

    def ending(self) -> Segment | None:
        frames = self._endpointer.ending
        return None if frames is None else self._cutter.segment(_span(frames))

    def _found(self, events: Sequence[Opened | Frames]) -> list[SpeechBegan | Segment]:
        return [
            SpeechBegan(event.start * FRAME_SHIFT / SAMPLE_RATE)
            if isinstance(event, Opened)
            else self._cutter.segment(_span(event))
            for event in events
        ]


def _span(frames: Frames) -> Span:
    """The samples of whole frames, so that nothing beyond the file's last frame is asked for."""
    return Span(frames.start * FRAME_SHIFT, frames.end * FRAME_SHIFT)
