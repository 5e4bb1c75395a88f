"""Start scripts, read as they would run on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from yibu.errors import UsageError
from yibu.paths import at_home

if TYPE_CHECKING:
    from yibu.adopt import Adoption

_MAX_SCRIPT = 1_000_000


def adopt_text(
    text: str, name: str, values: Mapping[str, str], env: Mapping[str, str], directory: Path
) -> Adoption:
    """What a script amounts to, started in ``directory`` with these ``values`` of its variables and
    arguments; ``name`` is its file's, where it has one.

    Raises:
        UsageError: it starts no server that is known here, or only running it would tell how.
    """
    from yibu.adopt import Setting, adopt_script

    inherited = {name: env[name] for name in ("HOME", "USER", "LOGNAME") if name in env}
    variables = {**inherited, "PWD": str(directory)}
    return adopt_script(text, Setting(variables, dict(values), name, FilesHere()))


class FilesHere:
    """This machine's files, for scripts that source others or ask whether one is there."""

    def read(self, path: str) -> str | None:
        try:
            return text_file(at_home(path))
        except (OSError, UsageError):
            return None

    def kind(self, path: str) -> str | None:
        found = at_home(path)
        try:
            return "directory" if found.is_dir() else "file" if found.exists() else ""
        except OSError:
            return None


def text_file(path: Path) -> str:
    """A script's text, in UTF-8 or GB 18030.

    Raises:
        UsageError: it is neither, or too large for a script.
    """
    if not path.is_file() or path.stat().st_size > _MAX_SCRIPT:
        raise UsageError(
            "{path} is no script: a file of at most {limit} bytes was expected",
            path=path,
            limit=_MAX_SCRIPT,
        )
    data = path.read_bytes()
    for encoding in ("utf-8-sig", "gb18030"):
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            return text
    raise UsageError("{path} is no text in UTF-8 or GB 18030", path=path)
