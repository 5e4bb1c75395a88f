"""SenseVoice in the ONNX layout, as FunASR exports it (``iic/SenseVoiceSmall-onnx``).

``model.onnx`` runs in OpenVINO, in fp32 or bf16; ``model_quant.onnx`` in ONNX Runtime, whose
integer operators it was made for. The quantised file scales activations by the largest of the
whole batch, so its segments go one at a time: no text may depend on its neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from yibu.errors import EngineStartError, UnsupportedError, VerificationError
from yibu.messages import tr
from yibu.speech.models.grouping import QUERIES, Classes, in_groups, padded_length
from yibu.speech.types import Features

FLOAT_FILE, QUANTISED_FILE = "model.onnx", "model_quant.onnx"
_INPUTS = ("speech", "speech_lengths", "language", "textnorm")
_HINT = tr("use FunASR's own export, iic/SenseVoiceSmall-onnx")

Run = Callable[[Mapping[str, npt.NDArray[Any]]], npt.NDArray[np.float32]]


class OnnxEncoder:
    """See ``Encoder`` in ``sensevoice.py``."""

    def __init__(self, run: Run, *, backend: str, precision: str, banned: tuple[int, ...]) -> None:
        self.backend = backend
        self.precision = precision
        self._run = run
        self._banned = list(banned)
        self.input_size = 560
        probe = self._scores([np.zeros((1, self.input_size), np.float32)], [0], [14])
        self.classes = probe.shape[2]

    @classmethod
    def load(
        cls, directory: Path, *, precision: str, threads: int, banned: tuple[int, ...]
    ) -> OnnxEncoder:
        """Load the file that ``precision`` needs; raises ``VerificationError`` where it is
        missing or damaged and ``UnsupportedError`` where it has other inputs."""
        quantised = precision == "int8"
        path = graph_file(directory, quantised=quantised)
        run = _onnxruntime(path, threads) if quantised else _openvino(path, precision, threads)
        backend = "onnxruntime" if quantised else "openvino"
        return cls(run, backend=backend, precision=precision, banned=banned)

    def encode(
        self, features: Sequence[Features], languages: Sequence[int], styles: Sequence[int]
    ) -> list[Classes]:
        return in_groups(
            self._encode,
            list(zip(features, languages, styles, strict=True)),
            lambda item: len(item[0]) + QUERIES,
            alone=self.precision == "int8",
        )

    def _encode(self, items: Sequence[tuple[Features, int, int]]) -> list[Classes]:
        features, languages, styles = zip(*items, strict=True)
        scores = self._scores(features, languages, styles)
        scores[..., self._banned] = -np.inf
        best = scores.argmax(axis=2)
        return [row[: len(own) + QUERIES] for row, own in zip(best, features, strict=True)]

    def _scores(
        self, features: Sequence[Features], languages: Sequence[int], styles: Sequence[int]
    ) -> npt.NDArray[np.float32]:
        lengths = np.array([len(item) for item in features], dtype=np.int32)
        width = padded_length(int(lengths.max()) + QUERIES) - QUERIES
        frames = np.zeros((len(features), width, self.input_size), np.float32)
        for row, own in zip(frames, features, strict=True):
            row[: len(own)] = own
        return self._run(
            {
                "speech": frames,
                "speech_lengths": lengths,
                "language": np.array(languages, dtype=np.int32),
                "textnorm": np.array(styles, dtype=np.int32),
            }
        )


def graph_file(directory: Path, *, quantised: bool) -> Path:
    """Raises ``VerificationError`` where it is missing."""
    path = directory / (QUANTISED_FILE if quantised else FLOAT_FILE)
    if not path.exists():
        needs, other = ("int8", "fp32") if quantised else ("fp32 or bf16", "int8")
        raise VerificationError(
            "{path} is missing, and precision {needs} needs it",
            path=path,
            needs=needs,
            other=other,
            hint="Download it, or set `precision: {other}`",
        )
    return path


def _openvino(path: Path, precision: str, threads: int) -> Run:
    import openvino as ov

    from yibu.speech.models.compiled import Graph, cpu_settings

    core = ov.Core()
    try:
        model = core.read_model(path)
        order = [port.get_any_name() for port in model.inputs]
        check_inputs(path, order, _INPUTS, _HINT)
        graph = Graph(model, cpu_settings(precision, threads))
    except RuntimeError as error:
        raise _unreadable(path, error) from error

    def run(inputs: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[np.float32]:
        return graph(*(inputs[name] for name in order))[0]

    return run


def _onnxruntime(path: Path, threads: int) -> Run:
    session = runtime_session(path, threads)
    check_inputs(path, (node.name for node in session.get_inputs()), _INPUTS, _HINT)

    def run(inputs: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[np.float32]:
        scores: npt.NDArray[np.float32] = session.run(None, dict(inputs))[0]
        return scores

    return run


def runtime_session(path: Path, threads: int) -> Any:
    """ONNX Runtime's session over the file ``path``; raises ``VerificationError`` where it is none."""
    try:
        import onnxruntime
    except ImportError as error:
        raise EngineStartError(
            "{path} needs onnxruntime, and it cannot be imported: {error}",
            path=path,
            error=error,
            hint="Use the environment speech-onnx, or set `precision: fp32`",
            cause="missing_package",
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Waiting threads that spin take the cores from the decoder and from each other.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's share no base class of their own; all mean this file
        raise _unreadable(path, error) from error


def check_inputs(path: Path, found: Iterable[str], expected: Collection[str], hint: str) -> None:
    """Raises ``UnsupportedError`` where the graph in ``path`` has other inputs than ``expected``."""
    names = set(found)
    if names != set(expected):
        raise UnsupportedError(
            "{path}: its inputs are {names}; {inputs} expected",
            path=path,
            names=", ".join(sorted(names)),
            inputs=", ".join(sorted(expected)),
            hint=hint,
        )


def _unreadable(path: Path, error: Exception) -> VerificationError:
    return VerificationError(
        "{path}: {st_size} bytes that are no readable ONNX model: {error}",
        path=path,
        st_size=path.stat().st_size,
        error=error,
        hint="Download the model again, and check its size against the hub's",
    )
