"""Paraformer for live speech: FunASR's ``ParaformerStreaming`` (``models/paraformer_streaming/model.py``).

The sound is taken in chunks of 600 ms. Each is encoded with 300 ms of the chunk before it, whose
tokens are not yet said, and with what the layers kept of earlier chunks; what is said is final.

    session = OnlineParaformer.load(directory, precision="auto", threads=2).session()
    session.feed(samples)               # → tokens that are new
    session.feed(samples, final=True)   # the last ones
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from yibu.errors import UnsupportedError
from yibu.speech.checkpoints.config import check_class, of_one_model, read_config
from yibu.speech.checkpoints.pytorch import Checkpoint, read_checkpoint
from yibu.speech.features import (
    FRAME_SHIFT,
    MEL_BINS,
    Normalizer,
    fbank,
    frame_count,
)
from yibu.speech.models.compiled import Array, Compiler
from yibu.speech.models.grouping import positions
from yibu.speech.models.online_graph import chunk_decoder, chunk_encoder
from yibu.speech.models.paraformer import BLANK, END, LANGUAGES, START, Shapes, language_of
from yibu.speech.models.paraformer_graph import predictor_graph
from yibu.speech.models.paraformer_text import join, text_of, words_of
from yibu.speech.models.stacked import STACK_STEP, STACK_WIDTH
from yibu.speech.models.vocabulary import Vocabulary
from yibu.speech.types import Chunking, Features, RecognitionOptions, Recognized, Samples, Segment

_FRAME = STACK_STEP * FRAME_SHIFT
"""Samples of one of the network's frames: 60 ms."""
_BEFORE = (STACK_WIDTH - 1) // 2
_PUBLISHED = "iic/speech_paraformer-large_asr_nat-zh-cn-16k-common-vocab8404-online"


class OnlineParaformer:
    """A loaded model. Its sessions are fed from one thread at a time."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        shapes: Shapes,
        normalizer: Normalizer,
        vocabulary: Sequence[str],
        *,
        precision: str,
        threads: int,
    ) -> None:
        self.shapes = shapes
        self.normalizer = normalizer
        self.vocabulary = vocabulary
        width = shapes.encoder.width
        compiler = Compiler(checkpoint, precision=precision, threads=threads)
        self.encoder = compiler.compile(lambda b: chunk_encoder(b, shapes.encoder))
        self.predictor = compiler.compile(
            lambda b: predictor_graph(b, width, shapes.predictor), exact=True
        )
        self.decoder = compiler.compile(lambda b: chunk_decoder(b, shapes.decoder))
        self.session().feed(np.zeros(32_000, np.float32), final=True)
        compiler.release()

    @classmethod
    def load(cls, directory: Path, *, precision: str, threads: int) -> OnlineParaformer:
        """Raises ``VerificationError`` for missing or damaged files, ``UnsupportedError`` for another
        network."""
        config = read_config(directory)
        check_class(config, directory, "ParaformerStreaming", _PUBLISHED)
        checkpoint = read_checkpoint(directory / "model.pt")
        vocabulary = Vocabulary.read_tokens(directory / "tokens.json").pieces
        normalizer = Normalizer.read(directory / "am.mvn", STACK_WIDTH * MEL_BINS)
        with of_one_model(directory):
            shapes = Shapes.read(config, checkpoint.tensors, directory)
            kernel = checkpoint.tensors["decoder.decoders.0.self_attn.fsmn_block.weight"].shape[2]
            if shapes.decoder.left != kernel - 1 or shapes.decoder.others:
                raise UnsupportedError(
                    "{directory}: its decoder hears {kernel} tokens ahead and has "
                    "{others} layers that do not attend; none expected",
                    directory=directory,
                    kernel=kernel - 1 - shapes.decoder.left,
                    others=shapes.decoder.others,
                    published=_PUBLISHED,
                    hint="Take {published}",
                )
            if shapes.encoder.classes != len(vocabulary):
                raise KeyError(f"{shapes.encoder.classes} outputs, {len(vocabulary)} tokens")
            return cls(
                checkpoint, shapes, normalizer, vocabulary, precision=precision, threads=threads
            )

    def session(self, chunking: Chunking | None = None) -> OnlineSession:
        return OnlineSession(self, chunking or Chunking())


class OnlineSession:
    """One stream of sound. Its memory does not grow with the stream."""

    def __init__(self, model: OnlineParaformer, chunking: Chunking) -> None:
        self._model = model
        self._chunking = chunking
        self.stride = chunking.frames * _FRAME
        """Samples of a chunk."""
        self.reset()

    def reset(self) -> None:
        """Forget everything: the next sound is a new stream's."""
        shapes = self._model.shapes
        width, inputs = shapes.encoder.width, shapes.encoder.inputs
        self._samples: Samples = np.empty(0, np.float32)
        self._stacker = _Stacker(self._model.normalizer)
        self._position = 0
        self._ahead: Array = np.zeros((self._chunking.ahead, inputs), np.float32)
        self._sum = np.float32(0)
        self._part: Array = np.zeros(width, np.float32)
        self._encoder_kept = np.zeros((shapes.encoder.blocks, 0, 2 * width), np.float32)
        decoder = shapes.decoder
        self._decoder_kept = np.zeros((decoder.attending, 0, 2 * width), np.float32)
        self._decoder_inputs = np.zeros((decoder.attending, decoder.left, width), np.float32)

    def feed(self, samples: Samples, *, final: bool = False) -> list[str]:
        """Take the next samples (any number) and return the tokens that they complete. After
        ``final`` the session begins anew."""
        self._samples = np.concatenate((self._samples, samples), dtype=np.float32)
        tokens: list[str] = []
        while len(self._samples) >= self.stride:
            chunk, self._samples = self._samples[: self.stride], self._samples[self.stride :]
            tokens += self._chunk(self._stacker.feed(chunk), final=False)
        if final:
            # Less than a frame is not heard: the last chunk is what was ahead.
            rest = None
            if len(self._samples) >= _FRAME:
                rest = self._stacker.feed(self._samples, final=True)
            tokens += self._chunk(rest, final=True)
            self.reset()
        return tokens

    def text(self, tokens: Sequence[str]) -> str:
        """``tokens`` as they are written."""
        return text_of(join(tokens))

    def _chunk(self, features: Features | None, *, final: bool) -> list[str]:
        hidden = self._encode(features)
        embedded = self._integrate(hidden, final=final)
        if not len(embedded):
            return []
        scores, kept, inputs = self._model.decoder(
            hidden[None], embedded[None], self._decoder_kept, self._decoder_inputs
        )
        look_back = self._chunking.decoder_look_back * self._chunking.frames
        self._decoder_kept = _last(self._decoder_kept, kept, look_back)
        self._decoder_inputs = _last(self._decoder_inputs, inputs, self._decoder_inputs.shape[1])
        best = scores[0].argmax(axis=1)
        return [self._model.vocabulary[n] for n in best if n not in (BLANK, START, END)]

    def _encode(self, features: Features | None) -> Array:
        """Hidden states [T, width] of the frames that were ahead and of the new ones."""
        frames = self._ahead
        if features is not None:
            width = np.float32(self._model.shapes.encoder.width**0.5)
            fresh = features * width
            fresh += positions(*fresh.shape, start=self._position)
            self._position += len(fresh)
            frames = np.concatenate((self._ahead, fresh))
            self._ahead = frames[len(frames) - self._chunking.ahead :]
        hidden, kept = self._model.encoder(frames[None], self._encoder_kept)
        said = kept[:, : max(0, kept.shape[1] - self._chunking.ahead)]
        look_back = self._chunking.encoder_look_back * self._chunking.frames
        self._encoder_kept = _last(self._encoder_kept, said, look_back)
        states: Array = hidden[0].copy()
        return states

    def _integrate(self, hidden: Array, *, final: bool) -> Array:
        """Embeddings [N, width] of the tokens that end in ``hidden``; a token that does not end goes
        on in the next chunk. FunASR's ``CifPredictorV2.forward_chunk``."""
        alphas = self._model.predictor(hidden[None])[0].copy()
        if final:
            alphas = np.append(alphas, np.float32(self._model.shapes.predictor.tail))
            hidden = np.concatenate((hidden, np.zeros_like(hidden[:1])))
        else:
            alphas[self._chunking.frames :] = 0
        one = np.float32(1)
        found = []
        for alpha, state in zip(alphas, hidden, strict=True):
            if alpha + self._sum < one:
                self._sum += alpha
                self._part = self._part + alpha * state
            else:
                found.append(self._part + (one - self._sum) * state)
                self._sum = self._sum + alpha - one
                self._part = self._sum * state
        return np.stack(found) if found else np.empty((0, hidden.shape[1]), np.float32)


class OnlineRecognizer:
    """Whole segments, each as if it were spoken live; it knows no times of words. See ``Recognizer``
    in ``types.py``."""

    languages = LANGUAGES
    tasks = frozenset({"transcribe"})
    takes_hotwords = False
    tells_times = False

    def __init__(self, name: str, model: OnlineParaformer, precision: str) -> None:
        self.name = name
        self.precision = precision
        self.model = model

    def recognize(
        self,
        segments: Sequence[Segment],
        options: Sequence[RecognitionOptions],  # noqa: ARG002 - it has none that matter
    ) -> list[Recognized]:
        """One answer a segment, in order."""
        return [self._answer(segment) for segment in segments]

    def _answer(self, segment: Segment) -> Recognized:
        tokens = self.model.session().feed(segment.samples, final=True)
        pieces = join(tokens)
        text = text_of(pieces)
        return Recognized(
            text=text,
            start=segment.start,
            end=segment.end,
            language=language_of(text),
            raw=" ".join(piece.text for piece in words_of(pieces)),
        )


def _last(kept: Array, new: Array, count: int) -> Array:
    """The last ``count`` of what was kept and what is new, along the second axis."""
    whole = np.concatenate((kept, new), axis=1)
    return np.ascontiguousarray(whole[:, max(0, whole.shape[1] - count) :])


class _Stacker:
    """The filter bank of a stream, stacked and normalised as for a file; FunASR's
    ``WavFrontendOnline`` without dither."""

    def __init__(self, normalizer: Normalizer) -> None:
        self._normalizer = normalizer
        self._samples: Samples = np.empty(0, np.float32)
        self._frames: Features = np.empty((0, MEL_BINS), np.float32)
        self._begun = False

    def feed(self, samples: Samples, *, final: bool = False) -> Features:
        """The stacked frames that are complete; with ``final`` the last frame stands in for those
        that would follow."""
        self._samples = np.concatenate((self._samples, samples))
        new = fbank(self._samples)
        self._samples = self._samples[frame_count(len(self._samples)) * FRAME_SHIFT :]
        if not self._begun and len(new):
            self._begun = True
            new = np.concatenate((np.repeat(new[:1], _BEFORE, axis=0), new))
        frames = np.concatenate((self._frames, new))
        if final:
            count = -(-(len(frames) - _BEFORE) // STACK_STEP)
            missing = max(0, (count - 1) * STACK_STEP + STACK_WIDTH - len(frames))
            frames = np.concatenate((frames, np.repeat(frames[-1:], missing, axis=0)))
        else:
            count = max(0, (len(frames) - STACK_WIDTH) // STACK_STEP + 1)
        self._frames = frames[count * STACK_STEP :]
        starts = np.arange(count)[:, None] * STACK_STEP
        stacked: Features = frames[starts + np.arange(STACK_WIDTH)]
        return self._normalizer(stacked.reshape(count, STACK_WIDTH * MEL_BINS))
