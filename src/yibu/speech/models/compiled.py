"""Graphs of one checkpoint, compiled for the CPU by OpenVINO, with their weights held once."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov

from yibu.speech.checkpoints.pytorch import Checkpoint
from yibu.speech.models.network import NetworkBuilder, WeightFormat
from yibu.speech.models.parked import ParkedArrays, aligned

_KERNELS = 8
"""Kernels that each layer keeps, one for each length of segment that came by: with the default,
5,000, memory grows for days, and a kernel made anew costs next to nothing."""
_SHARED_KERNELS = 16
"""The same of oneDNN's own cache, which all layers share: its default is 1,024."""
_STREAMS = 4
"""At most; each takes about 44 MiB with SenseVoice."""
_DYNAMIC_GROUP = 128
"""Activations that share a scale where int8 quantises them as it runs: larger groups are a
little faster and less exact."""

Array = npt.NDArray[np.float32]


class Graph:
    """A compiled graph. As many threads as it has streams compute at once."""

    def __init__(self, model: ov.Model, settings: dict[str, Any]) -> None:
        self._compiled = ov.Core().compile_model(model, "CPU", settings)
        self._requests = threading.local()

    def __call__(self, *inputs: npt.NDArray[Any]) -> list[Array]:
        """The outputs, in order; each is valid until this thread's next call."""
        request = getattr(self._requests, "own", None)
        if request is None:
            request = self._requests.own = self._compiled.create_infer_request()
        found = request.infer(list(inputs), share_inputs=True, share_outputs=True)
        return list(found.values())


class Compiler:
    """Compiles graphs over the tensors of ``checkpoint`` at one precision."""

    def __init__(
        self, checkpoint: Checkpoint, *, precision: str, threads: int, epsilon: float = 1e-12
    ) -> None:
        # oneDNN has no other way to be told, and reads it when the first kernel is made.
        os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] = str(_SHARED_KERNELS)
        self.weights = checkpoint.tensors
        self._checkpoint = checkpoint
        self._epsilon = epsilon
        self._settings = cpu_settings(precision, threads)
        self._form: WeightFormat = "i8" if precision == "int8" else "f32"
        # The matrices are what is quantised, at one byte an element.
        size = sum(aligned(tensor.size) for tensor in self.weights.values() if tensor.ndim == 2)
        self.parked = ParkedArrays(size) if self._form == "i8" else None

    def compile(self, build: Callable[[NetworkBuilder], ov.Model], *, exact: bool = False) -> Graph:
        """The graph that ``build`` makes; ``exact`` keeps its weights in fp32."""
        form: WeightFormat = "f32" if exact else self._form
        builder = NetworkBuilder(self.weights, form, self.parked, epsilon=self._epsilon)
        settings = self._settings
        if exact:
            settings = settings | {"INFERENCE_PRECISION_HINT": "f32"}
        graph = Graph(build(builder), settings)
        gc.collect()
        return graph

    def release(self) -> None:
        """Give back what the compiled weights were made from; call it after a first computation,
        which lays them out."""
        self._checkpoint.release()
        if self.parked is not None:
            self.parked.release()


def streams(threads: int) -> int:
    """Computations at once on so many cores. Threads that share one computation wait for each other:
    two of them took longer for a sentence than one did."""
    return max(1, min(threads, _STREAMS))


def cpu_settings(precision: str, threads: int) -> dict[str, Any]:
    return {
        "PERFORMANCE_HINT": "THROUGHPUT",
        "NUM_STREAMS": streams(threads),
        "INFERENCE_NUM_THREADS": threads,
        "ENABLE_CPU_PINNING": False,
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": _DYNAMIC_GROUP if precision == "int8" else 0,
        # Fused attention kernels keep more than 1 MiB a layer of their own, and are no faster.
        "SNIPPETS_MODE": "DISABLE",
        "CPU_RUNTIME_CACHE_CAPACITY": _KERNELS,
    }
