"""GGUF repositories: which files make one quantization of the model, and which one is meant.

Pure: it looks at the names and sizes of a listing. Names follow llama.cpp's convention
(``NAME-QUANT.gguf``, ``NAME-QUANT-00001-of-00003.gguf``, ``QUANT/NAME-….gguf``), which Ollama, LM Studio
and ``llama-server -hf`` read the same way.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from yibu.errors import HubNotFoundError
from yibu.messages import tr

_LABEL = (
    r"(?:UD-)?(?:I?Q[1-9](?:_[A-Z0-9]+)*|TQ[12]_0|MXFP4(?:_MOE)?|NVFP4|BF16|FP?16|FP?32)(?:_R\d)?"
)
_LABELS = re.compile(rf"(?:^|[-._/])({_LABEL})(?=$|[-._/])", re.IGNORECASE)
_WHOLE_LABEL = re.compile(_LABEL, re.IGNORECASE)
_SHARD = re.compile(r"(?P<stem>.+)-(?P<part>\d{5})-of-(?P<parts>\d{5})(?P<ending>\.\w+)")
_PREFERRED = (
    "Q4_K_M", "UD-Q4_K_XL", "Q4_K_L", "Q4_K_S", "IQ4_NL", "IQ4_XS", "Q4_0", "Q4_1", "MXFP4",
    "MXFP4_MOE", "NVFP4", "Q5_K_M", "UD-Q5_K_XL", "Q5_K_S", "Q5_0", "Q5_1", "Q6_K", "UD-Q6_K_XL", "Q8_0",
    "UD-Q8_K_XL", "Q3_K_L", "Q3_K_M", "UD-Q3_K_XL", "IQ3_M", "Q3_K_S", "IQ3_XS", "Q2_K_L", "Q2_K",
    "UD-Q2_K_XL", "IQ2_M", "BF16", "F16", "F32",
)  # fmt: skip
"""What is taken where nobody named one: Q4_K_M as Ollama and llama.cpp do, then those near it."""
_PROJECTOR_ORDER = ("F16", "Q8_0", "BF16", "F32")
"""Of a vision projector's precisions: half precision is what all of llama.cpp's back ends compute."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One quantization of the model: a GGUF file, or all parts of a split one."""

    name: str
    """The file's path without ``.gguf`` and part number."""
    label: str
    """``Q4_K_M``; empty where the name has none."""
    files: tuple[str, ...]
    """Paths in the repository, the first part first."""
    size: int
    """Bytes of all parts; 0 where the hub does not say."""
    missing: tuple[str, ...] = ()
    """Parts that should be there and are not listed."""

    @property
    def tag(self) -> str:
        """How a source names it: ``ORG/NAME:TAG``."""
        return self.label or self.name.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class QuantizationChoice:
    variant: Variant
    why: str
    """A clause: "it is the usual one", "the best of those that fit" …"""


Chooser = Callable[[Sequence[Variant]], QuantizationChoice]
"""Picks among several whole variants, the most usual first; may raise DoesNotFitError."""


def is_label(text: str) -> bool:
    """Whether ``text`` is a quantization's name, such as ``q4_k_m``."""
    return bool(_WHOLE_LABEL.fullmatch(text))


def is_projector(path: str) -> bool:
    """Whether a GGUF file is a vision or audio projector, which is loaded beside a model."""
    name = path.rpartition("/")[2].lower()
    return name.endswith(".gguf") and "mmproj" in name


def best_projector(paths: Iterable[str]) -> str | None:
    """The projector to load, of those that a model's files have."""

    def rank(path: str) -> tuple[int, str]:
        label = label_of(path)
        known = label in _PROJECTOR_ORDER
        return (_PROJECTOR_ORDER.index(label) if known else len(_PROJECTOR_ORDER), path)

    return min((path for path in paths if is_projector(path)), key=rank, default=None)


def label_of(path: str) -> str:
    """The quantization that a file's name, or else its folder's, tells; empty where none does."""
    folder, _, name = path.removesuffix(".gguf").rpartition("/")
    for part in (name, folder):
        if found := _LABELS.findall(part):
            label = str(found[-1]).upper()
            return {"FP16": "F16", "FP32": "F32"}.get(label, label)
    return ""


def without_label(name: str) -> str:
    """A variant's name without its quantization: what all variants of one model have in common."""
    return _LABELS.sub("", name.rpartition("/")[2]).lower()


def missing_parts(paths: Iterable[str]) -> dict[tuple[str, str, str], list[str]]:
    """The missing files of each set of numbered parts, by its (stem, number of parts, suffix)."""
    sets: dict[tuple[str, str, str], set[int]] = {}
    for path in paths:
        if shard := _SHARD.fullmatch(path):
            key = (shard["stem"], shard["parts"], shard["ending"])
            sets.setdefault(key, set()).add(int(shard["part"]))
    return {
        (stem, parts, ending): [
            f"{stem}-{number:05}-of-{parts}{ending}"
            for number in range(1, int(parts) + 1)
            if number not in found
        ]
        for (stem, parts, ending), found in sets.items()
    }


def variants(files: Mapping[str, int]) -> list[Variant]:
    """The models among a listing's GGUF files (path → bytes), the most usual first."""
    sets: dict[tuple[str, str], list[str]] = {}
    for path in files:
        name = path.rpartition("/")[2].lower()
        if not name.endswith(".gguf") or is_projector(path) or "imatrix" in name:
            continue
        shard = _SHARD.fullmatch(path)
        key = (shard["stem"], shard["parts"]) if shard else (path.removesuffix(".gguf"), "")
        sets.setdefault(key, []).append(path)
    missing = missing_parts(files)
    found = [
        Variant(
            stem,
            label_of(stem),
            tuple(sorted(paths)),
            sum(files[path] for path in paths) if all(files[path] for path in paths) else 0,
            tuple(missing.get((stem, parts, ".gguf"), ())),
        )
        for (stem, parts), paths in sets.items()
    ]
    return sorted(found, key=_usual)


def by_tag(found: Sequence[Variant], tag: str, source: str) -> Variant:
    """The variant that a tag names: a quantization, or a file with or without ``.gguf``.

    Raises:
        HubNotFoundError: none, or several; those that there are are listed with their sizes.
    """
    wanted = tag.lower().removesuffix(".gguf")
    ways: tuple[Callable[[Variant], bool], ...] = (
        lambda variant: variant.label.lower() == wanted,
        lambda variant: variant.label.lower().removeprefix("ud-") == wanted,
        lambda variant: variant.name.rpartition("/")[2].lower() == wanted,
        lambda variant: variant.name.lower().endswith(wanted) and len(wanted) > 1,
    )
    for way in ways:
        matching = [variant for variant in found if way(variant)]
        if len(matching) == 1:
            return matching[0]
        if matching:
            names = ", ".join(path for variant in matching for path in variant.files[:1])
            raise HubNotFoundError(
                "{source} means {matching_count} files: {names}.",
                source=source,
                matching_count=len(matching),
                names=names,
                hint="Name one of them: ORG/NAME#FILE.gguf",
            )
    if not found:
        raise HubNotFoundError(
            "{source}: the repository has no GGUF files, so that {tag!r} names nothing.",
            source=source,
            tag=tag,
            hint="Leave it out, or find the model's GGUF repository (often NAME-GGUF)",
        )
    raise HubNotFoundError(
        "{source}: the repository has no quantization {tag!r}.",
        source=source,
        tag=tag,
        found=listed(found),
        hint="It has {found}",
    )


def usual(found: Sequence[Variant]) -> QuantizationChoice:
    """The first whole one, where nothing is known of the machine."""
    return QuantizationChoice(found[0], tr("the usual one"))


def listed(found: Sequence[Variant]) -> str:
    """``Q4_K_M (4.9 GB), Q8_0 (8.5 GB)``."""
    return ", ".join(
        f"{variant.tag} ({_size(variant.size)})" if variant.size else variant.tag
        for variant in found
    )


def _usual(variant: Variant) -> tuple[int, int, str]:
    rank = _PREFERRED.index(variant.label) if variant.label in _PREFERRED else len(_PREFERRED)
    return rank, variant.size, variant.name


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
