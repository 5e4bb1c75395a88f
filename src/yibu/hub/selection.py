"""Which files of a repository a source means, decided by the listing before anything is downloaded."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from yibu.errors import HubError, HubNotFoundError, VerificationError
from yibu.hub import quantization
from yibu.hub.copies import copies
from yibu.hub.digest import Expected
from yibu.hub.quantization import Chooser, QuantizationChoice, Variant
from yibu.hub.source import safe_member
from yibu.hub.types import Source
from yibu.messages import tr
from yibu.units import size

_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".onnx", ".msgpack", ".h5", ".ckpt")


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of a repository as its hub lists it. ``url`` is empty in a listing made offline."""

    path: str
    expected: Expected
    url: str = ""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Selection:
    """The files to download."""

    files: tuple[RemoteFile, ...]
    main: str = ""
    """The model's file; empty where all files are the model."""
    notes: tuple[str, ...] = ()

    @property
    def paths(self) -> list[str]:
        return [file.path for file in self.files]


def select(
    files: Sequence[RemoteFile],
    source: Source,
    choose: Chooser = quantization.usual,
    chosen: str = "",
    wanted: Callable[[RemoteFile], bool] = lambda _: False,
) -> Selection:
    """The files that the source means: all, one quantization, or one file with its other parts.

    Of a GGUF repository with several quantizations ``choose`` picks one, unless ``chosen`` is the
    file that an earlier pull took: what runs today does not change with tomorrow's free memory.
    Of weights that are there in several formats the safetensors alone are meant, and of their
    copies those that are ``wanted``: they are here already, or somebody gave their hashes.

    Raises:
        HubNotFoundError: the repository has no such file, or none at all.
        HubError: a listed path points outside of the repository, or stands in another's way.
        VerificationError: parts of the model are not listed.
        DoesNotFitError: as ``choose``.
    """
    by_path = _checked(files, source)
    sizes = {path: file.expected.size or 0 for path, file in by_path.items()}
    found = quantization.variants(sizes)
    if source.file is not None:
        paths = _one_file(source, source.file, sizes, found)
        return Selection(tuple(by_path[path] for path in paths), source.file)
    if source.tag is not None:
        variant = quantization.by_tag(found, source.tag, str(source))
        _require(source, variant.missing)
        return _of_variant(variant, by_path)
    others = [path for path in sizes if path.lower().endswith(_WEIGHTS)]
    if found and not others:
        return _quantized(source, by_path, found, choose, chosen)
    _require_whole(source, by_path)
    return _without_copies(source, by_path, found if others else (), wanted)


def _without_copies(
    source: Source,
    by_path: Mapping[str, RemoteFile],
    found: Sequence[Variant],
    wanted: Callable[[RemoteFile], bool],
) -> Selection:
    """A whole repository but for weights that are there once more: of other frameworks, and as ``found``
    in GGUF, which would never be read."""
    sizes = {path: file.expected.size or 0 for path, file in by_path.items()}
    notes = []
    left = {path for path in copies(sizes) if not wanted(by_path[path])}
    if left:
        largest = sorted(left, key=sizes.__getitem__, reverse=True)
        notes.append(
            tr(
                "{source}: copies of its weights are left out, {size}: {shown}; name one to have it: "
                "{source}#{path}",
                source=source,
                size=size(sum(sizes[path] for path in left)),
                shown=_shown(largest),
                path=largest[0],
            )
        )
    if found:
        left |= {path for path in sizes if path.lower().endswith(".gguf")}
        notes.append(
            tr(
                "{source}: its GGUF files are left out ({left}); name one to have it: {source}:TAG",
                source=source,
                left=quantization.listed(found),
            )
        )
    kept = tuple(file for path, file in by_path.items() if path not in left)
    return Selection(kept, notes=tuple(notes))


def _checked(files: Sequence[RemoteFile], source: Source) -> dict[str, RemoteFile]:
    by_path: dict[str, RemoteFile] = {}
    for file in files:
        if not safe_member(file.path):
            raise HubError(
                "{source} lists the file {file_path!r}, which points outside of the "
                "repository; nothing was fetched.",
                source=source,
                file_path=file.path,
                hint="Do not use this repository",
            )
        other = by_path.setdefault(file.path, file)
        if other.expected != file.expected:
            raise HubError(
                "{source} lists {file_path} twice, with different contents; nothing was fetched.",
                source=source,
                file_path=file.path,
                hint="Try again later, or name another revision",
            )
    for path in by_path:
        above = path.rpartition("/")[0]
        while above:
            if above in by_path:
                raise HubError(
                    "{source} lists {above} as a file and as the folder of {path}; "
                    "nothing was fetched.",
                    source=source,
                    above=above,
                    path=path,
                    hint="Do not use this repository",
                )
            above = above.rpartition("/")[0]
    if not by_path:
        raise HubNotFoundError("{source} holds no files.", source=source, hint="Check the spelling")
    return by_path


def _one_file(
    source: Source, file: str, sizes: Mapping[str, int], found: Sequence[Variant]
) -> list[str]:
    if file not in sizes:
        near = difflib.get_close_matches(file, sizes, n=3, cutoff=0.4)
        raise HubNotFoundError(
            "{source} has no file {file!r}; files that it has: {sizes_count}.",
            source=source,
            file=file,
            sizes_count=len(sizes),
            near=", ".join(near or list(sizes)[:3]),
            hint="The nearest: {near}",
        )
    variant = next((variant for variant in found if file in variant.files), None)
    if variant is not None:
        _require(source, variant.missing)
        return _with_projector(variant.files, sizes)
    for (stem, parts, ending), missing in quantization.missing_parts(sizes).items():
        set_of_file = [path for path in sizes if _is_part(path, stem, parts, ending)]
        if file in set_of_file:
            _require(source, missing)
            return sorted(set_of_file)
    return [file]


def _of_variant(
    variant: Variant, by_path: Mapping[str, RemoteFile], notes: tuple[str, ...] = ()
) -> Selection:
    paths = _with_projector(variant.files, by_path)
    return Selection(tuple(by_path[path] for path in paths), variant.files[0], notes)


def _with_projector(files: Sequence[str], paths: Mapping[str, object]) -> list[str]:
    """The paths and the projector of the same folder, or else of the repository."""
    folder = files[0].rpartition("/")[0]
    beside = [path for path in paths if path.rpartition("/")[0] == folder]
    projector = quantization.best_projector(beside) or quantization.best_projector(paths)
    return [*files, projector] if projector else list(files)


def _quantized(
    source: Source,
    by_path: Mapping[str, RemoteFile],
    found: Sequence[Variant],
    choose: Chooser,
    chosen: str,
) -> Selection:
    """A repository of GGUF files alone."""
    whole = [variant for variant in found if not variant.missing]
    if not whole:
        _require(source, found[0].missing)
    if len(found) == 1:
        projector = quantization.best_projector(by_path)
        kept = [
            file
            for path, file in by_path.items()
            if not quantization.is_projector(path) or path == projector
        ]
        return Selection(tuple(kept), found[0].files[0])
    earlier = next((variant for variant in whole if variant.files[0] == chosen), None)
    if earlier is not None:
        return _of_variant(earlier, by_path)
    choice = (
        choose(whole)
        if len(whole) > 1
        else QuantizationChoice(whole[0], tr("the only one that is complete"))
    )
    others = [variant for variant in whole if variant is not choice.variant]
    note = tr(
        "{source}: {listed} is taken, {why}",
        source=source,
        listed=quantization.listed([choice.variant]),
        why=choice.why,
    )
    if others:
        note = tr(
            "{note}; there are also {others}: name one with {source}:TAG",
            note=note,
            others=quantization.listed(others),
            source=source,
        )
    return _of_variant(choice.variant, by_path, (note,))


def _require_whole(source: Source, paths: Mapping[str, object]) -> None:
    """Refuse a listing without a complete set of weights."""
    sets = quantization.missing_parts(paths)
    broken = {key: missing for key, missing in sets.items() if missing}
    parts = {path for path in paths for key in sets if _is_part(path, *key)}
    single = any(path.endswith(_WEIGHTS) and path not in parts for path in paths)
    if broken and len(broken) == len(sets) and not single:
        _require(source, next(iter(broken.values())))


def require_indexed(
    source: Source, index: str, named: set[str], paths: Mapping[str, object]
) -> None:
    """Raises VerificationError when an index names weight files that are not listed."""
    folder = index.rpartition("/")[0]
    wanted = {f"{folder}/{name}" if folder else name for name in named}
    _require(source, sorted(wanted - set(paths)), index)


def _require(source: Source, missing: Sequence[str], index: str = "") -> None:
    """Raise VerificationError when files of the model, which ``index`` names, are not listed."""
    if not missing:
        return
    shown = _shown(missing)
    raise VerificationError(
        "{source}: the repository does not list {count} of the model's files: {shown}.",
        source=source,
        count=len(missing),
        shown=tr("{shown} (named by {index})", shown=shown, index=index) if index else shown,
        hint="Nothing was fetched. The upload is not complete: name another revision or file, or ask "
        "its author",
    )


def _is_part(path: str, stem: str, parts: str, ending: str) -> bool:
    return path.startswith(f"{stem}-") and path.endswith(f"-of-{parts}{ending}")


def _shown(paths: Sequence[str]) -> str:
    """The first of many."""
    return ", ".join(paths[:4]) + (" …" if len(paths) > 4 else "")
