"""``yibu node``: the node's own process."""

from __future__ import annotations

import typer

from yibu.cli import output
from yibu.cli.options import JsonOption
from yibu.management.context import Context
from yibu.messages import tr


def register(app: typer.Typer) -> None:
    node = typer.Typer(no_args_is_help=True, help=tr("The node's own process."))
    node.command("upgrade")(upgrade)
    app.add_typer(node, name="node")


def upgrade(
    as_json: JsonOption = False,
) -> None:
    """Run the node with the yibu that is installed now; models go on, no connection is refused."""
    done = Context.here().client.call("upgrade", timeout=None)
    if as_json:
        output.data_json({"version": 1, **done})
        return
    before, now = done["before"], done["now"]
    output.say(
        "The node is yibu {version} (process {pid}), in the place of {version2} (process "
        "{pid2}), which still ends what it had begun to answer. Its engines go on.",
        version=now["version"],
        pid=now["pid"],
        version2=before["version"],
        pid2=before["pid"],
    )
