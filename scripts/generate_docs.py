"""Write the generated documents (PAGES) from the code; `make docs`. Tests check that they are current.

The language is the process's (`yibu.messages.use`, before this is imported). Those in Chinese are
written once every text has a translation.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from importlib import metadata
from importlib.metadata import PackageMetadata
from pathlib import Path

from packaging.requirements import Requirement
from typer.main import get_command

from yibu.cli import exits
from yibu.cli.main import app
from yibu.config.schema import published
from yibu.engines.causes import GENERIC_CAUSES
from yibu.engines.registry import engines, request_tables
from yibu.engines.requests import Rule
from yibu.messages import ENGLISH, active, filled

DOCS = Path(__file__).parents[1] / "docs"
_WIDTH = 96


def _say(english: str, chinese: str) -> str:
    return english if active() == ENGLISH else chinese


_EXITS = {
    exits.DONE: _say("done", "成功"),
    exits.FAILED: _say("it failed: the message says why", "失败，原因见输出"),
    exits.USAGE: _say(
        "wrong use: an option, a name, the configuration, settings other than the running node's",
        "用法错误：选项、名称、配置，或与运行中节点不一致的设置",
    ),
    exits.DOES_NOT_FIT: _say("a model does not fit on this machine", "这台机器放不下某个模型"),
    exits.VERIFICATION_FAILED: _say("a file is not what its hub lists", "文件与模型站列出的不一致"),
    exits.NOT_RUNNING: _say("no node runs, or not the model", "节点或模型没有运行"),
    exits.INTERRUPTED: _say("interrupted, by Ctrl-C", "被 Ctrl-C 中断"),
    exits.READER_GONE: _say(
        "whoever read standard output closed it, as in `yibu logs smol \\| head -1`; "
        "with `set -o pipefail` a script sees it",
        "标准输出的读取方已关闭，如 `yibu logs smol \\| head -1`；设置 `set -o pipefail` 后脚本才能看到",
    ),
}
_GENERATED = _say("Generated from the program by `make docs`.", "由 `make docs` 从程序生成。")
_EXITS_PAGE = _say(
    """# Exit codes

{generated} They are the same for every command.

{table}

A script can decide by them:

{example}""",
    """# 退出码

{generated}所有命令通用。

{table}

脚本可以据此判断：

{example}""",
)
_EXITS_EXAMPLE = """```bash
yibu plan smollm2 > plan.txt || case $? in
  3) echo "too large for this machine" ;;
  *) exit 1 ;;
esac
```
"""
_CAUSES_PAGE = _say(
    """# Causes of failure

Generated from the engines' tables by `make docs`.

When an engine fails, yibu looks for the cause in its log. `yibu up`, `yibu ps` and the gateway's 503 show the
sentence and the advice; the key is `cause_key` in `yibu ps --json` and the label `cause` of the
[metrics](../metrics.md#models-and-replicas). A start that no row explains has the cause `unknown`, and the sentence quotes the end of the
log.
`{name}` stands for what the log says.
""",
    """# 失败原因

由 `make docs` 从各引擎的表生成。

引擎失败时，yibu 在它的日志里查找原因。`yibu up`、`yibu ps` 和网关的 503 会显示说明与建议；键是 `yibu ps --json` 里的
`cause_key`，也是[指标](../metrics.md#模型与副本)的标签 `cause`。没有匹配的启动失败，原因是 `unknown`，说明里引用日志的结尾。
`{name}` 代表日志里的内容。
""",
)


def exit_codes() -> str:
    return _EXITS_PAGE.format(generated=_GENERATED, table=_exit_table(), example=_EXITS_EXAMPLE)


def _exit_table() -> str:
    head = _say("| exit code | meaning |", "| 退出码 | 含义 |")
    rows = [f"| {code} | {meaning} |" for code, meaning in _EXITS.items()]
    return "\n".join((head, "|---|---|", *rows))


def causes() -> str:
    """What each engine's log is searched for, in the order in which it is tried."""
    parts = [_CAUSES_PAGE]
    head = _say("| key | what it says | advice |", "| 键 | 说明 | 建议 |")
    tables = {engine.name: engine.causes for engine in engines() if engine.causes}
    every = _say("Every engine", "所有引擎")
    for name, table in {**tables, every: GENERIC_CAUSES}.items():
        rows = [
            f"| `{each.key}` | {_cell(each.explanation)} | {_cell(_hint(each.hint))} |"
            for each in table
        ]
        parts.append("\n".join((f"## {name}\n", head, "|---|---|---|", *rows, "")))
    return "\n".join(parts)


def _hint(text: str) -> str:
    """A hint with what is put there for a model's name."""
    return filled(text, model="MODEL")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def cli_reference() -> str:
    """Every verb with the help that it prints itself."""
    title = _say("# Command line", "# 命令行")
    parts = [f"{title}\n\n{_GENERATED}\n\n{_exit_table()}\n"]
    for name, text in _helps():
        parts.append(f"## {name}\n\n```text\n{text}\n```\n")
    return "\n".join(parts)


def _helps() -> Iterator[tuple[str, str]]:
    root = get_command(app)
    stack = [("yibu", root, None)]
    while stack:
        name, command, parent = stack.pop(0)
        context = type(command).context_class(
            command, info_name=name.split()[-1], parent=parent, terminal_width=_WIDTH
        )
        yield name, command.get_help(context).rstrip()
        inner = getattr(command, "commands", {})
        stack.extend((f"{name} {key}", value, context) for key, value in inner.items())


def schema() -> str:
    return json.dumps(published(), ensure_ascii=False, indent=2) + "\n"


_OUTCOMES = {
    "done": _say("done by yibu", "由 yibu 实现"),
    "ignored": _say("accepted, and nobody heeds it", "接受，但不起作用"),
    "refused": "400",
}


_REQUESTS = _say(
    "# Fields of requests, by engine\n\nGenerated from the engines' tables by `make docs`.\n\n"
    "A field that stands here is not simply passed to the engine: yibu does it by other means, "
    "or it is a 400 that names it in `param`, or it may be sent and changes no answer. Published "
    "fields that do not stand here are passed, and so are all that no specification has (`top_k`, "
    "`min_p`, `chat_template_kwargs` …). A path's `[type=x]` is an object of that type, `[=x]` the "
    "value itself, `*` any that is not named. `engine: command` gets every field.\n",
    "# 各引擎的请求字段\n\n由 `make docs` 从各引擎的表生成。\n\n"
    "列在这里的字段不是直接传给引擎的：或由 yibu 用其他方式实现，或返回 400 并在 `param` 里写明，或可以发送但不影响应答。"
    "没有列出的公开字段直接传递，规范之外的字段（`top_k`、`min_p`、`chat_template_kwargs` 等）也一样。"
    "路径里的 `[type=x]` 是该类型的对象，`[=x]` 是值本身，`*` 是未点名的其他值。`engine: command` 得到全部字段。\n",
)


def requests() -> str:
    """What becomes of the fields that an engine does not simply heed, by engine and path."""
    parts = [_REQUESTS]
    for engine, table in request_tables().items():
        if "*" not in table.rules:
            parts.append(f"## {engine}\n")
            parts += [_request_rows(path, rows) for path, rows in table.rules.items()]
    return "\n".join(parts)


def _request_rows(path: str, rows: Iterable[Rule]) -> str:
    groups: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row.outcome != "passed" and row.path != "model":
            outcome = (
                _say("400, unless the model has what it needs", "400，除非模型具备所需能力")
                if row.needs
                else _OUTCOMES[row.outcome]
            )
            if row.unless_prefix:
                unless = _say(", unless it begins with `{}`", "，除非以 `{}` 开头")
                outcome += unless.format(row.unless_prefix)
            groups.setdefault((outcome, row.why), []).append(f"`{row.path}`")
    if not groups:
        return f"### {path}\n\n{_say('All fields are passed.', '所有字段都直接传递。')}\n"
    lines = [
        f"| {', '.join(names)} | {outcome} | {why} |" for (outcome, why), names in groups.items()
    ]
    head = _say(
        "| field | what becomes of it | why, and what works |",
        "| 字段 | 如何处理 | 原因，以及可行的做法 |",
    )
    return "\n".join((f"### {path}\n", head, "|---|---|---|", *lines, ""))


_LICENCES = _say(
    """# Licences of dependencies

Generated from the packages' own metadata by `make docs`. These are what `pip install yibu` brings, as
requirements/core.lock has them for Linux; what yibu itself carries, and what engines' environments are made of, is in
NOTICE. The texts come with the packages (`*.dist-info`).

| package | licence |
|---|---|
""",
    """# 依赖的许可证

由 `make docs` 从各包自己的元数据生成。这些是 `pip install yibu` 带来的包，以 requirements/core.lock 在 Linux 上的内容为准；
yibu 自带的内容和各引擎环境的组成见 NOTICE。许可证全文随包提供（`*.dist-info`）。

| 包 | 许可证 |
|---|---|
""",
)


def licences() -> str:
    """Each package of the core lock that is for this platform, with what its metadata says."""
    rows = []
    for line in (DOCS.parent / "requirements/core.lock").read_text(encoding="utf-8").splitlines():
        needed = Requirement(line)
        if needed.marker is None or needed.marker.evaluate():
            found = metadata.metadata(needed.name)
            rows.append(f"| {needed.name} | {_licence(found)} |\n")
    return _LICENCES + "".join(rows)


def _licence(found: PackageMetadata) -> str:
    classified = [
        entry.rpartition("::")[2].strip()
        for entry in found.get_all("Classifier", [])
        if entry.startswith("License ::")
    ]
    stated = found.get("License-Expression") or found.get("License") or ""
    return stated if 0 < len(stated) < 60 and stated != "UNKNOWN" else ", ".join(classified)


_IN_BOTH: dict[str, Callable[[], str]] = {
    "cli.md": cli_reference,
    "reference/exit-codes.md": exit_codes,
    "reference/causes.md": causes,
    "reference/licences.md": licences,
    "requests.md": requests,
    "yibu.schema.json": schema,
}
PAGES = _IN_BOTH if active() == ENGLISH else {f"zh/{name}": make for name, make in _IN_BOTH.items()}
_CHINESE = (
    "from yibu.messages import use; use('zh_CN'); import generate_docs; generate_docs.write()"
)


def write() -> None:
    for name, make in PAGES.items():
        (DOCS / name).write_text(make(), encoding="utf-8")


def _translated() -> bool:
    """Whether every text has a Chinese one."""
    from messages import catalogue, texts, updated

    return all(message.string for message in updated(catalogue(), texts()) if message.id)


if __name__ == "__main__":
    write()
    if _translated():
        subprocess.run([sys.executable, "-c", _CHINESE], cwd=Path(__file__).parent, check=True)
