"""Punctuation for text without: FunASR's ``CTTransformer`` (``models/ct_transformer/model.py``).

A network of the same kind as Paraformer's encoder says for each word which mark follows it. It sees 20
words at a time, with those since the last sentence's end before them; what it says of words before an
end is final. FunASR does so over a whole text; here the words may come little by little, and the
pieces of text that are final are given as soon as they are.
"""

from __future__ import annotations

import re
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
import openvino as ov
from openvino import opset13 as ops

from yibu.errors import EngineStartError, UnsupportedError
from yibu.messages import tr
from yibu.speech.checkpoints.config import of_one_model, read_config, section
from yibu.speech.checkpoints.pytorch import read_checkpoint
from yibu.speech.models.compiled import Compiler
from yibu.speech.models.grouping import encoder_input
from yibu.speech.models.hotwords import UNKNOWN
from yibu.speech.models.network import NetworkBuilder
from yibu.speech.models.onnx_encoder import (
    FLOAT_FILE,
    check_inputs,
    graph_file,
    runtime_session,
)
from yibu.speech.models.sanm_shape import EncoderShape
from yibu.speech.models.vocabulary import Vocabulary

_AT_ONCE = 20
_LONGEST = 200
"""Words without a sentence's end, after which a comma is made one."""
_HINT = tr("Take iic/punc_ct-transformer_cn-en-common-vocab471067-large")
_NONE = "_"
_ENDS = ("。", "？")
_ASCII = {"，": ",", "。": ".", "？": "?"}
_ENGLISH = re.compile(r"^[a-zA-Z']+$")

Split = Callable[[str], list[str]]


class Punctuator:
    """A loaded model. Sessions may run on several threads."""

    def __init__(
        self,
        marks: Callable[[Sequence[int]], list[int]],
        vocabulary: Sequence[str],
        names: Sequence[str],
        sentence_end: int,
        split: Split,
    ) -> None:
        self._compute = marks
        self._numbers = {word: n for n, word in enumerate(vocabulary)}
        self._unknown = self._numbers[UNKNOWN]
        self.names = tuple(names)
        self.sentence_end = sentence_end
        self.split = split
        """The words of a text, as the model knows them."""

    @classmethod
    def load(cls, directory: Path, *, threads: int) -> Punctuator:
        """Raises ``VerificationError`` for missing or damaged files, ``UnsupportedError`` for a
        directory of another model."""
        config = read_config(directory)
        onnx = not (directory / "model.pt").exists() and any(directory.glob("model*.onnx"))
        kinds = (config.get("model"), config.get("encoder"))
        if kinds != ("CTTransformer", "SANMEncoder") and not (onnx and kinds[0] is None):
            raise UnsupportedError(
                "{directory}: model {model!r} with encoder {encoder!r}; CTTransformer with "
                "SANMEncoder expected",
                directory=directory,
                model=config.get("model"),
                encoder=config.get("encoder"),
                hint=_HINT,
            )
        conf = section(config, "model_conf", directory)
        vocabulary = Vocabulary.read_tokens(directory / "tokens.json").pieces
        with of_one_model(directory):
            network: _Network | _OnnxNetwork
            if onnx:
                network = _OnnxNetwork(directory, threads=threads)
            else:
                network = _Network(directory, threads=threads)
            names = [str(name) for name in conf["punc_list"]]
            if UNKNOWN not in vocabulary or network.words not in (None, len(vocabulary)):
                raise KeyError(f"{network.words} words, {len(vocabulary)} in tokens.json")
        own = directory / "jieba_usr_dict"
        split = _by_dictionary(own) if own.exists() else split_words
        return cls(network, vocabulary, names, int(conf.get("sentence_end_id", 3)), split)

    def session(self) -> PunctuationSession:
        return PunctuationSession(self)

    def text(self, text: str) -> str:
        """``text`` with punctuation, as FunASR's ``AutoModel`` gives it."""
        session = self.session()
        return "".join(session.feed(self.split(text)) + session.finish())

    def marks(self, words: Sequence[str]) -> list[int]:
        """The number of the mark after each word."""
        return self._compute([self._numbers.get(word, self._unknown) for word in words])


class PunctuationSession:
    """The text of one recording. Its memory does not grow with the text."""

    def __init__(self, punctuator: Punctuator) -> None:
        self._punctuator = punctuator
        self._waiting: list[str] = []
        """Words not yet looked at."""
        self._open: list[str] = []
        """Words of a sentence whose end was not found."""

    def feed(self, words: Iterable[str]) -> list[str]:
        """Take the next words; the pieces of text that are final now: one a word, with its mark."""
        self._waiting += words
        pieces: list[str] = []
        while len(self._waiting) > _AT_ONCE:
            pieces += self._next(self._waiting[:_AT_ONCE], last=False)
            del self._waiting[:_AT_ONCE]
        return pieces

    def finish(self) -> list[str]:
        """No more words: the pieces that are left. The last one ends a sentence."""
        if not self._waiting:
            return []
        pieces = self._next(self._waiting, last=True)
        self._waiting = []
        pieces[-1] = _ended(pieces[-1])
        return pieces

    def _next(self, words: Sequence[str], *, last: bool) -> list[str]:
        words = [*self._open, *words]
        marks = self._punctuator.marks(words)
        end = len(words)
        if not last:
            end = self._end(marks)
            self._open = words[end:]
        names = self._punctuator.names
        return _written(words[:end], [names[mark] for mark in marks[:end]])

    def _end(self, marks: list[int]) -> int:
        """How many words are final: up to the last sentence's end that the model found."""
        names = self._punctuator.names
        inner = range(len(marks) - 2, 1, -1)
        for n in inner:
            if names[marks[n]] in _ENDS:
                return n + 1
        comma = next((n for n in inner if names[marks[n]] == "，"), None)
        if comma is None or len(marks) <= _LONGEST:
            return 0
        marks[comma] = self._punctuator.sentence_end
        return comma + 1


def _written(words: Sequence[str], marks: Sequence[str]) -> list[str]:
    """Spaces between words of letters, a capital where a sentence begins, and the marks."""
    pieces = []
    for n, (word, mark) in enumerate(zip(words, marks, strict=True)):
        letters = word[0].isascii()
        if letters and (n == 0 or marks[n - 1] in _ENDS):
            word = word.capitalize()  # noqa: PLW2901 - the word as it is written
        space = " " if letters and (n == 0 or words[n - 1][0].isascii()) else ""
        shown = "" if mark == _NONE else _ASCII.get(mark, mark) if letters else mark
        pieces.append(space + word + shown)
    return pieces


def _ended(piece: str) -> str:
    last = piece[-1]
    if last in "，、":
        return f"{piece[:-1]}。"
    if last == ",":
        return f"{piece[:-1]}."
    if last in "。？.?":
        return piece
    return piece + ("." if last.isascii() else "。")


def split_words(text: str) -> list[str]:
    """Words of letters, and single characters of all else."""
    return [word for part in text.split() for word in _parts(part)]


def _parts(part: str) -> Iterator[str]:
    for ascii_, run in groupby(part, str.isascii):
        if ascii_:
            yield "".join(run)
        else:
            yield from run


def _by_dictionary(path: Path) -> Split:
    """Words of letters, and Chinese cut by jieba with the model's own dictionary added to it."""
    try:
        import jieba
    except ImportError as error:
        raise EngineStartError(
            "{path} needs the package jieba, and it cannot be imported: {error}",
            path=path,
            error=error,
            hint="Make the environment anew: yibu engine install speech-onnx",
            cause="missing_package",
        ) from error
    tokenizer = jieba.Tokenizer()
    with tempfile.TemporaryDirectory() as private:  # its cache is no file that others can write
        tokenizer.tmp_dir = private
        with path.open("rb") as file:
            tokenizer.load_userdict(file)

    def split(text: str) -> list[str]:
        words: list[str] = []
        for english, run in groupby(text.split(), lambda word: bool(_ENGLISH.match(word))):
            parts = list(run)
            words += parts if english else tokenizer.cut("".join(parts), HMM=False)
        return words

    return split


class _Network:
    """The words' numbers → the number of the mark after each."""

    def __init__(self, directory: Path, *, threads: int) -> None:
        checkpoint = read_checkpoint(directory / "model.pt")
        weights = checkpoint.tensors
        # Only the rows of words that come by are ever read of this table, the largest part.
        self._embedding = weights["embed.weight"]
        self.words: int | None = self._embedding.shape[0]
        inputs = self._embedding.shape[1]
        marks, self._width = weights["decoder.weight"].shape
        shape = EncoderShape.read(
            read_config(directory), directory, inputs=inputs, width=self._width, classes=marks
        )
        compiler = Compiler(checkpoint, precision="fp32", threads=threads)
        self._graph = compiler.compile(lambda builder: _graph(builder, shape))
        self._lock = threading.Lock()
        self([0] * _AT_ONCE)
        compiler.release()

    def __call__(self, numbers: Sequence[int]) -> list[int]:
        rows = np.asarray(self._embedding[list(numbers)], dtype=np.float32)
        with self._lock:
            scores = self._graph(*encoder_input([rows], self._width))[0][0]
            best: list[int] = scores[: len(numbers)].argmax(axis=1).tolist()
        return best


class _OnnxNetwork:
    """The same, as FunASR exports it; the quantised file only where there is no other."""

    words: int | None = None
    """It does not say."""

    def __init__(self, directory: Path, *, threads: int) -> None:
        quantised = not (directory / FLOAT_FILE).exists()
        path = graph_file(directory, quantised=quantised)
        self._session = runtime_session(path, threads)
        names = (node.name for node in self._session.get_inputs())
        check_inputs(path, names, ("inputs", "text_lengths"), _HINT)

    def __call__(self, numbers: Sequence[int]) -> list[int]:
        words = np.array([numbers], np.int32)
        lengths = np.array([len(numbers)], np.int32)
        scores = self._session.run(None, {"inputs": words, "text_lengths": lengths})[0]
        best: list[int] = scores[0].argmax(axis=1).tolist()
        return best


def _graph(builder: NetworkBuilder, shape: EncoderShape) -> ov.Model:
    frames = ops.parameter([-1, -1, shape.inputs], ov.Type.f32, name="words")
    mask = ops.parameter([-1, -1], ov.Type.f32, name="mask")
    hidden = builder.encoder(frames, builder.padding(mask), shape)
    return ov.Model([ops.result(builder.linear(hidden, "decoder"))], [frames, mask], "punctuation")
