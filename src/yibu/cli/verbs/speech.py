"""``yibu transcribe``: speech files to text, several at once."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from yibu.cli import output
from yibu.cli.exits import DONE, FAILED
from yibu.cli.options import argument, option
from yibu.errors import OverloadedError, UsageError, YibuError
from yibu.files import write_whole
from yibu.management.context import Context

if TYPE_CHECKING:
    from concurrent.futures import Future

    from yibu.cli.api import Api

_ENDINGS = {"text": ".txt", "json": ".json", "verbose_json": ".json", "srt": ".srt", "vtt": ".vtt"}

Format = Literal["text", "json", "verbose_json", "srt", "vtt"]


def register(app: typer.Typer) -> None:
    app.command()(transcribe)


def transcribe(
    files: Annotated[
        list[Path] | None, argument("Audio or video files of any format; with --live, - is stdin.")
    ] = None,
    model: Annotated[
        str | None, option("A running speech model; the only one when left out.")
    ] = None,
    language: Annotated[str | None, option("zh, en, …; found by itself.")] = None,
    output_format: Annotated[Format, option("What to write.", "--format")] = "text",
    directory: Annotated[
        Path | None, option("One file each into this directory.", "-o", "--output")
    ] = None,
    jobs: Annotated[int, option("Files at once.", "-j", "--jobs", min=1, max=64)] = 4,
    live: Annotated[
        bool, option("While it is spoken: from the microphone, or from stdin with -.")
    ] = False,
    device: Annotated[str | None, option("With --live: which microphone.")] = None,
    rate: Annotated[
        int, option("With --live -: Hz of raw 16-bit samples.", min=8000, max=48000)
    ] = 16_000,
) -> int:
    """Turn speech into text: to stdout, or into a directory with -o."""
    from yibu.cli.connect import access, speech_model

    context = Context.here()
    if live:
        _live(context, files, model, language, output_format, directory, device, rate)
        return DONE
    if not files:
        raise UsageError(
            "There is nothing to transcribe.",
            hint="yibu transcribe FILE…, or --live for the microphone, or --live - for a pipe",
        )
    _check(files, directory, output_format)
    api = access(context).api
    fields = {"model": model or speech_model(context), "response_format": output_format}
    if language:
        fields["language"] = language
    if directory:
        directory.mkdir(parents=True, exist_ok=True)
    failed = 0
    for file, answer in _answers(api, files, fields, jobs):
        if isinstance(answer, YibuError):
            output.say("{name}: {text}", name=file, text=answer.message)
            failed += 1
        else:
            _write(file, answer, directory, output_format, named=len(set(files)) > 1)
    return FAILED if failed else DONE


def _live(
    context: Context,
    files: Sequence[Path] | None,
    model: str | None,
    language: str | None,
    output_format: Format,
    directory: Path | None,
    device: str | None,
    rate: int,
) -> None:
    """Transcribe live audio. Raises UsageError for options that do not go with --live."""
    from yibu.cli.connect import access, speech_model
    from yibu.cli.live import transcribe_live

    names = [str(file) for file in files or ()]
    if names not in ([], ["-"]) or directory is not None:
        raise UsageError(
            "--live takes the microphone, or - for stdin; no files, and no -o.",
            hint="ffmpeg -re -i FILE -f wav - | yibu transcribe --live -",
        )
    if output_format not in ("text", "srt", "json"):
        raise UsageError(
            "--live writes text, srt or json, not {output_format}.", output_format=output_format
        )
    if names and device is not None:
        raise UsageError("--device is a microphone; - is stdin. Leave one of them out.")
    transcribe_live(
        access(context),
        model or speech_model(context),
        from_pipe=bool(names),
        device=device,
        language=language,
        rate=rate,
        output_format=output_format,
    )


def _check(files: Sequence[Path], directory: Path | None, output_format: Format) -> None:
    """Raises UsageError for files that are not there, or that cannot be written as asked."""
    for file in files:
        if not file.is_file():
            raise UsageError("There is no file {file}.", file=file)
    if directory is not None:
        _check_targets(files, directory, output_format)
    elif len(set(files)) > 1 and output_format in ("srt", "vtt"):
        raise UsageError(
            "{output_format} of several files is no {output_format}.",
            output_format=output_format,
            hint="-o DIRECTORY writes one file each",
        )


def _answers(
    api: Api, files: Sequence[Path], fields: Mapping[str, str], jobs: int
) -> Iterator[tuple[Path, bytes | YibuError]]:
    """Each file with its answer, in the order in which they were named."""
    from concurrent.futures import ThreadPoolExecutor, as_completed

    def send(file: Path) -> bytes | YibuError:
        while True:
            try:
                return api.upload("/v1/audio/transcriptions", file, fields)
            except OverloadedError as error:  # it works on others' files: they end
                time.sleep(min(60.0, max(1.0, error.retry_after or 1.0)))
            except YibuError as error:
                return error

    with ThreadPoolExecutor(jobs) as pool, _counting(len(files)) as count:
        futures = {pool.submit(send, file): file for file in files}
        waiting: dict[Path, Future[bytes | YibuError]] = {f: done for done, f in futures.items()}
        order = list(dict.fromkeys(files))
        for future in as_completed(futures):
            count()
            waiting[futures[future]] = future
            while order and waiting[order[0]].done():
                file = order.pop(0)
                yield file, waiting[file].result()


def _write(
    file: Path, answer: bytes, directory: Path | None, output_format: str, *, named: bool
) -> None:
    import json

    if directory is None:
        text = answer.decode("utf-8", "replace").strip("\n")
        if named and output_format == "text":
            text = f"{file}: {text}"
        elif named:
            text = json.dumps({"file": str(file), **json.loads(answer)}, ensure_ascii=False)
        output.data(text)
        return
    target = _target(file, directory, output_format)
    write_whole(target, answer, 0o644)
    output.talk(f"{file} → {target}")


def _target(file: Path, directory: Path, output_format: str) -> Path:
    return directory / f"{file.stem}{_ENDINGS[output_format]}"


def _check_targets(files: Sequence[Path], directory: Path, output_format: str) -> None:
    """Refuse early that one answer overwrites another."""
    taken: dict[Path, Path] = {}
    for file in files:
        target = _target(file, directory, output_format)
        other = taken.setdefault(target, file)
        if other != file:
            raise UsageError(
                "{other} and {file} would both be written to {target}.",
                other=other,
                file=file,
                target=target,
                hint="Transcribe them by two commands, each with a directory of its own",
            )


@contextmanager
def _counting(total: int) -> Iterator[Callable[[], None]]:
    """A function to call for each finished file: a progress bar, on a terminal and for several files."""
    if total < 2 or not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("transcribing", total=total)
        yield lambda: progress.advance(task)
