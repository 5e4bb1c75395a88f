"""Copies of a model's weights in other frameworks' formats, which no engine reads beside safetensors."""

from __future__ import annotations

import re
from collections.abc import Collection

from yibu.hub.quantization import missing_parts

_WHOLE = ("model.safetensors", "model.safetensors.index.json")
_OTHERS = re.compile(
    r"(pytorch_model|tf_model|flax_model|rust_model)[.-].+"
    r"|model\.(fp|bf|float)\d+(-\d{5}-of-\d{5})?\.safetensors"
    r"|model\.safetensors\.index\.(fp|bf|float)\d+\.json"
)
"""Of torch, TensorFlow, Flax and Rust, and other precisions, as transformers names them."""
_FOLDERS = ("original/", "metal/")
"""What Meta and OpenAI published before it was converted, with its own tokenizer and settings."""


def copies(paths: Collection[str]) -> set[str]:
    """Those of a repository's files that hold its weights once more; none where safetensors are not whole."""
    main = [path for path in paths if path.startswith("model-") and path.endswith(".safetensors")]
    if not any(name in paths for name in _WHOLE) or any(missing_parts(main).values()):
        return set()
    return {path for path in paths if _OTHERS.fullmatch(path) or path.startswith(_FOLDERS)}
