"""``yibu bench`` for language models: measures prompts, applies load, reports."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import uvloop

from yibu.cli import output
from yibu.cli.bench import plot
from yibu.cli.bench.client import BenchClient, Target, check
from yibu.cli.bench.load import MOST_AT_ONCE, Amount, Load, Run, within
from yibu.cli.bench.prompts import Prompts, measure
from yibu.cli.connect import access
from yibu.errors import UsageError, YibuError
from yibu.files import write_whole
from yibu.management.context import Context
from yibu.messages import tr
from yibu.units import parse_time

_REQUESTS = 32
"""Requests of a run without a duration."""


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """The command's arguments."""

    rate: float | None
    concurrency: int | None
    """Concurrent chats; of a sweep the most that are tried."""
    sweep: bool
    prompt_tokens: int
    output_tokens: int
    requests: int | None
    seconds: float | None
    slo: float | None
    """Limit for the time to the first token, in seconds, of 95 in 100 requests."""
    seed: int

    @property
    def most(self) -> int:
        """The most concurrent chats of a sweep."""
        return self.concurrency or MOST_AT_ONCE


@dataclass(slots=True)
class Report:
    """The measurements."""

    target: Target
    wanted: BenchOptions
    prompts: Prompts
    goes_on: bool
    """Whether answers have the requested length: the server takes ``ignore_eos``."""
    runs: list[Run] = field(default_factory=list)
    holds: int | None = None
    """Concurrent chats within the limit, found by a sweep."""

    @property
    def kept(self) -> bool:
        """Whether no request failed, and the limit was kept where one was given."""
        if self.holds is not None:
            return self.holds > 0
        slo = self.wanted.slo
        return all(not run.errors and (slo is None or within(run, slo)) for run in self.runs)

    def sentence(self) -> str | None:
        """The result of a sweep, as a sentence."""
        if self.holds is None or self.wanted.slo is None:
            return None
        limit = tr("{slo:g} ms to the first token", slo=self.wanted.slo * 1000)
        if self.holds == 0:
            return tr("Not even one chat keeps to {limit}.", limit=limit)
        run = next(run for run in self.runs if run.load == self.holds)
        chats = tr("one chat") if self.holds == 1 else tr("{holds} chats", holds=self.holds)
        if self.holds == self.wanted.most:
            chats = tr("at least {chats}", chats=chats)
        rate = run.data()["output_tokens_per_second"]
        each = tr(
            "{rate:.1f} tokens/s each, {total:.0f} in all", rate=rate / self.holds, total=rate
        )
        return tr(
            "This machine holds {chats} at {limit} (p95): {each}.",
            chats=chats,
            limit=limit,
            each=each,
        )

    def data(self) -> dict[str, Any]:
        return {
            "version": 1,
            "url": self.target.url,
            "model": self.target.model,
            "settings": asdict(self.wanted),
            "prompts": {"counted_by": self.prompts.how,
                        "tokens_per_word": round(self.prompts.tokens_per_word, 4)},
            "ignore_eos": self.goes_on,
            "runs": [run.data() for run in self.runs],
            "holds": self.holds,
        }  # fmt: skip


def find_target(context: Context, model: str, url: str | None, key_file: Path | None) -> Target:
    """The server: any by its URL, else this home's node.

    Raises:
        NotRunningError: no node runs.
        UsageError: it has no such model, or one that does not chat.
    """
    if url is not None:
        return Target(url, model, _key(key_file) if key_file else None)
    reach = access(context)
    able = reach.capabilities.get(model)
    if able is None:
        known = ", ".join(reach.capabilities) or tr("none")
        raise UsageError(
            "{model} is not up; these are: {known}.",
            model=model,
            known=known,
            hint="yibu up -d {model}",
        )
    if "transcriptions" in able:
        raise UsageError(
            "{model} recognizes speech: name recordings.",
            model=model,
            hint="yibu bench {model} *.wav",
        )
    if "chat" not in able:
        raise UsageError(
            "{model} does not chat; it can do: {able}.", model=model, able=", ".join(able)
        )
    return Target(reach.url, model, reach.key)


def run(target: Target, wanted: BenchOptions) -> Report:
    """Measure; shows each run as it ends.

    Raises:
        YibuError: the server does not answer, or not as it should.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run(target, wanted))


async def _run(target: Target, wanted: BenchOptions) -> Report:
    client = BenchClient(target)
    extra = await check(client, wanted.output_tokens)
    prompts = await measure(client, wanted.prompt_tokens, wanted.seed)
    load = Load(client, prompts, wanted.output_tokens, extra)
    first = await load.warm_up()
    if first.error is not None:
        raise YibuError(
            "{url} fails at a streamed chat: {error}", url=target.url, error=first.error
        )
    report = Report(target, wanted, prompts, bool(extra))
    output.say(
        "{model} at {url}: prompts of {prompt_tokens} tokens, answers of {completion_tokens}",
        model=target.model,
        url=target.url,
        prompt_tokens=first.prompt_tokens or "?",
        completion_tokens=first.completion_tokens,
    )
    amount = Amount(wanted.requests, wanted.seconds)
    if amount == Amount():
        amount = Amount(max(_REQUESTS, 4 * (wanted.concurrency or 1)))
    if wanted.sweep:
        assert wanted.slo is not None
        report.runs, report.holds = await load.sweep(
            wanted.slo, wanted.seconds, wanted.most, _show_run
        )
    elif wanted.rate is not None:
        report.runs = [await load.open(wanted.rate, amount)]
    else:
        report.runs = [await load.closed(wanted.concurrency or 1, amount)]
    return report


def show(report: Report) -> None:
    """The tables, for people."""
    rows = table(report)
    output.table(rows[1:], rows[0])
    if len(report.runs) == 1:
        output.data("")
        output.table(_percentiles(report.runs[0]), ("", "MEAN", "P50", "P90", "P95", "P99", "MAX"))
    for run_ in report.runs:
        for error, number in run_.errors.most_common(5):
            output.data(
                tr(
                    "{number} of {timings_count} requests failed: {error}",
                    number=number,
                    timings_count=len(run_.timings),
                    error=error,
                )
            )
    if (said := report.sentence()) is not None:
        output.data(f"\n{said}")
    for note in notes(report):
        output.talk(note)


def notes(report: Report) -> list[str]:
    """Notes for a reader of the numbers."""
    found = []
    if not report.goes_on:
        found.append(
            tr("the server does not take ignore_eos: answers may be shorter than asked for")
        )
    if not all(timing.counted for run_ in report.runs for timing in run_.good):
        found.append(tr("the server's streams have no usage: each event was counted as one token"))
    return found


def table(report: Report) -> list[list[str]]:
    """A row a run, below the heads."""
    head = tr("CHATS") if report.runs[0].kind == "concurrency" else tr("REQUESTS/S")
    rows = [[head, tr("REQUESTS"), tr("ERRORS"), tr("REQ/S"), tr("TOKENS/S"), tr("TTFT P50"),
             tr("TTFT P95"), tr("TOKEN P50"), tr("TOKEN P95"), tr("TOTAL P50")]]  # fmt: skip
    for run_ in report.runs:
        data = run_.data()
        first, token = data["ttft_seconds"], data["time_per_output_token_seconds"]
        rows.append(
            [
                f"{run_.load:g}",
                str(len(run_.timings)),
                str(sum(run_.errors.values())),
                f"{data['requests_per_second']:.2f}",
                f"{data['output_tokens_per_second']:.1f}",
                _ms(first, "p50"), _ms(first, "p95"), _ms(token, "p50"), _ms(token, "p95"),
                _ms(data["total_seconds"], "p50"),
            ]
        )  # fmt: skip
    return rows


def save(report: Report, path: Path, form: Literal["svg", "html"]) -> None:
    """The charts, or a page with all of it."""
    drawn = plot.svg(plot.charts(report.runs, report.wanted.slo))
    if form == "html":
        wanted = report.wanted
        asked = tr(
            "prompts of {prompt_tokens} tokens, answers of {output_tokens}, seed {seed}",
            prompt_tokens=wanted.prompt_tokens,
            output_tokens=wanted.output_tokens,
            seed=wanted.seed,
        )
        said = [f"{report.target.url}: {asked}", *notes(report)]
        if (sentence := report.sentence()) is not None:
            said.insert(0, sentence)
        drawn = plot.page(
            tr("yibu bench {model}", model=report.target.model), said, table(report), drawn
        )
    write_whole(path, drawn, 0o644)
    output.talk(f"→ {path}")


def _show_run(run_: Run) -> None:
    found = run_.ttft(95)
    shown = "-" if found is None else f"{found * 1000:.0f} ms"
    text = tr("{load:g} at once: first token within {shown} (p95)", load=run_.load, shown=shown)
    if failed := sum(run_.errors.values()):
        text = tr("{text}, {failed} failed", text=text, failed=failed)
    output.talk(text)


def _percentiles(run_: Run) -> list[list[str]]:
    data = run_.data()
    names = {
        tr("first token"): "ttft_seconds",
        tr("token"): "time_per_output_token_seconds",
        tr("between events"): "inter_token_latency_seconds",
        tr("total"): "total_seconds",
    }
    return [
        [name, *(_ms(data[key], one) for one in ("mean", "p50", "p90", "p95", "p99", "max"))]
        for name, key in names.items()
    ]


def _ms(values: dict[str, float] | None, name: str) -> str:
    if values is None:
        return "-"
    milliseconds = values[name] * 1000
    return f"{milliseconds:,.{0 if milliseconds >= 100 else 1}f} ms"


def _key(path: Path) -> str:
    try:
        key = path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            "The key's file {path} cannot be read: {error}.", path=path, error=error
        ) from error
    if not key or len(key.split()) != 1:
        raise UsageError(
            "The key's file {path} holds {split_count} words; one was expected.",
            path=path,
            split_count=len(key.split()),
        )
    return key


def parse_seconds(text: str, flag: str) -> float:
    """``500ms``, ``2s``, ``1m`` or seconds as a number.

    Raises:
        UsageError: it is none of them, or not above zero.
    """
    seconds = parse_time(text) or parse_time(f"{text}s") or 0.0
    if not 0 < seconds < 1e6:
        raise UsageError(
            "{flag} {text} is no time.", flag=flag, text=text, hint=f"{flag} 500ms, or {flag} 30s"
        )
    return seconds
