"""``yibu bench``: language models under load, speech models over recordings."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Annotated, Literal

import typer

from yibu.cli import output
from yibu.cli.exits import DONE, FAILED
from yibu.cli.options import JsonOption, argument, option
from yibu.errors import UsageError
from yibu.management.context import Context
from yibu.messages import tr

_SLO = "500ms"
_FORMS: dict[str, Literal["svg", "html"]] = {".svg": "svg", ".html": "html", ".htm": "html"}

ConcurrencyOption = Annotated[
    int | None,
    option("So many chats at once (1); with --sweep the most that are tried.", min=1, max=1024),
]
RateOption = Annotated[
    float | None, option("So many requests a second, by a Poisson process.", min=0.001)
]
DurationOption = Annotated[str | None, option("End after 30s, 2m (of a sweep: each of its runs).")]
SloOption = Annotated[
    str | None,
    typer.Option(
        help=tr(
            "The time to the first token that 95 of 100 keep to ({slo}); exit 1 if not.", slo=_SLO
        )
    ),
]
TargetOption = Annotated[
    Path | None, option("Charts: FILE.svg, or FILE.html with tables.", "-o", "--output")
]
PrecisionsOption = Annotated[
    str | None, option("Speech: fp32,bf16,int8; the first is what others are held to.")
]


def register(app: typer.Typer) -> None:
    app.command()(bench)


def bench(
    model: Annotated[str, argument("A running model; for speech also a source or a path.")],
    files: Annotated[list[Path] | None, argument("Speech: your own recordings.")] = None,
    sweep: Annotated[bool, option("Ever more chats, until --slo is not kept.", "--sweep")] = False,
    concurrency: ConcurrencyOption = None,
    rate: RateOption = None,
    prompt_tokens: Annotated[int, option("Tokens of each prompt.", min=1)] = 256,
    output_tokens: Annotated[int, option("Tokens of each answer.", min=1)] = 128,
    requests: Annotated[int | None, option("End after so many requests.", min=1)] = None,
    duration: DurationOption = None,
    slo: SloOption = None,
    url: Annotated[str | None, option("Another server that speaks OpenAI's API.")] = None,
    key_file: Annotated[Path | None, option("A file with its key.")] = None,
    seed: Annotated[int, option("Of the prompts and arrivals.")] = 0,
    target: TargetOption = None,
    precisions: PrecisionsOption = None,
    language: Annotated[str | None, option("Speech: zh, en, …; found by itself.")] = None,
    as_json: JsonOption = False,
) -> int:
    """Measure how fast a model answers: time to the first token, time a token, throughput.

    With recordings: a speech model's precisions on them, their speed, memory, and where texts differ.
    """
    if files:
        return _speech(model, files, precisions, language, as_json=as_json)
    from yibu.cli.bench import language as chats
    from yibu.cli.written import require_directory

    if rate is not None and (sweep or concurrency is not None):
        raise UsageError("--rate is a load of its own: without --sweep and --concurrency.")
    form = _FORMS.get(target.suffix.lower()) if target is not None else None
    if target is not None and form is None:
        raise UsageError(
            "{target} is no chart.", target=target, hint="-o FILE.svg, or -o FILE.html"
        )
    if target is not None:
        require_directory(target)
    limit = slo or (_SLO if sweep else None)
    wanted = chats.BenchOptions(
        rate=rate,
        concurrency=concurrency,
        sweep=sweep,
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        requests=requests,
        seconds=chats.parse_seconds(duration, "--duration") if duration else None,
        slo=chats.parse_seconds(limit, "--slo") if limit else None,
        seed=seed,
    )
    report = chats.run(chats.find_target(Context.here(), model, url, key_file), wanted)
    if as_json:
        output.data_json(report.data())
    else:
        chats.show(report)
    if target is not None and form is not None:
        chats.save(report, target, form)
    return DONE if report.kept else FAILED


def _speech(
    model: str, files: list[Path], precisions: str | None, language: str | None, *, as_json: bool
) -> int:
    from yibu.cli.bench.speech import bench_command

    for file in files:
        if not file.is_file():
            raise UsageError("There is no file {file}.", file=file)
    command = bench_command(Context.here(), model)
    given = {"--precisions": precisions, "--language": language}
    options = [word for flag, value in given.items() if value for word in (flag, value)]
    options += ["--json"] if as_json else []
    return subprocess.run([*command, *options, *map(str, files)], check=False).returncode
