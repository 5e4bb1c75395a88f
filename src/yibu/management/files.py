"""The node's yibu.yaml: read, checked while it is edited, compared, and replaced atomically."""

from __future__ import annotations

import difflib
import hashlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yibu.config import Config, ModelConfig
from yibu.errors import ConfigError, YibuError
from yibu.files import write_whole
from yibu.management.context import Context
from yibu.messages import joined

if TYPE_CHECKING:
    from yibu.management.difference import Difference
    from yibu.management.entries import Chosen

_log = logging.getLogger(__name__)


class ChangedMeanwhileError(YibuError):
    """The file changed since it was read."""

    cause = "changed_meanwhile"


class ConfigFile:
    """The file. Blocking. Texts are checked before they are written."""

    def __init__(self, context: Context, path: str | None) -> None:
        """``path``: the file with which the node was started, if any."""
        self.path = Path(path) if path else context.paths.state / "yibu.yaml"
        self._context = context
        self._models: tuple[bytes, tuple[ModelConfig, ...]] | None = None

    def read(self) -> dict[str, Any]:
        """Its text and digest.

        Raises:
            ConfigError: it cannot be read.
        """
        data = self._bytes()
        return {
            "path": str(self.path),
            "exists": data is not None,
            "text": (data or b"").decode("utf-8-sig", "replace"),
            "sha256": _digest(data),
        }

    def models(self) -> Sequence[ModelConfig]:
        """The file's models as they would be brought up; none where the file cannot be used."""
        try:
            data = self._bytes()
        except ConfigError:
            return ()
        if data is None:
            return ()
        if self._models is None or self._models[0] != data:
            try:
                found = self._chosen(data).models
            except YibuError as error:
                _log.info("the console shows no models of %s: %s", self.path, error)
                found = ()
            self._models = (data, found)
        return self._models[1]

    def check(self, text: str) -> dict[str, Any]:
        """Whether `yibu up` could use the text, and its faults."""
        from yibu.management.check import check_config

        try:
            _, notes = check_config(self._config(text.encode()), self._context)
        except YibuError as error:
            return {"ok": False, "faults": faults_of(error), "notes": []}
        return {"ok": True, "faults": [], "notes": list(notes)}

    def difference(self, text: str, told: Mapping[str, Any]) -> Difference:
        """What applying the text would change of what a node tells of in its ``configs``.

        Raises:
            YibuError: it cannot be used.
        """
        from yibu.management.changes import changes_of_file
        from yibu.management.check import check_options

        wanted = self._chosen(text.encode())
        check_options(wanted.models, self._context)
        return changes_of_file(wanted, told, self._context)

    def compare(self, text: str, told: Mapping[str, Any]) -> dict[str, Any]:
        """The same for people, and the difference of the texts."""
        shown = {"text": self.text_difference(text)}
        names = ("added", "changed", "removed", "unchanged", "settings")
        try:
            found = self.difference(text, told).plain()
        except YibuError as error:
            return {"ok": False, "faults": faults_of(error), **dict.fromkeys(names), **shown}
        return {"ok": True, "faults": [], **{name: found[name] for name in names}, **shown}

    def text_difference(self, text: str) -> str:
        """A unified diff from the file to the text."""
        name = self.path.name
        before = self.read()["text"].splitlines(keepends=True)
        lines = difflib.unified_diff(before, text.splitlines(keepends=True), name, name)
        return "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)

    def write(self, text: str, sha256: str) -> None:
        """Replace the file, if it still has this digest.

        Raises:
            ChangedMeanwhileError: it is another one by now.
            ConfigError: it cannot be written.
        """
        if _digest(self._bytes()) != sha256:
            raise ChangedMeanwhileError(
                "{path} was changed since it was read",
                path=self.path,
                hint="Read it again, and make the change in what it says now",
            )
        target = self.path.resolve()  # a symbolic link stays one
        try:
            write_whole(target, text)
        except OSError as error:
            raise ConfigError(
                "{target} cannot be written: {strerror}",
                target=target,
                strerror=error.strerror,
                parent=target.parent,
                hint="See whose it is: ls -l {target}; the disk: df -h {parent}",
            ) from error

    def _bytes(self) -> bytes | None:
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ConfigError(
                "The configuration file {path} cannot be read: {strerror}",
                path=self.path,
                strerror=error.strerror,
                hint="See whose it is: ls -l {path}",
            ) from error

    def _config(self, data: bytes) -> Config:
        from yibu.config import file as config_file

        env = self._context.env
        schema = config_file.parse(data, self.path.name, env=env)
        return config_file.resolve(schema, self.path, env=env)

    def _chosen(self, data: bytes) -> Chosen:
        from yibu.hub.settings import is_offline
        from yibu.management.entries import Chosen, TypedOptions, choose

        config = self._config(data)
        if not config.models:
            return Chosen(config, ())
        typed = TypedOptions(offline=is_offline(self._context.env))
        return choose([], config, self._context.directory, typed)


def faults_of(error: YibuError) -> list[dict[str, Any]]:
    """The faults of a file, with their positions where known."""
    from yibu.config.document import FaultyFileError

    if isinstance(error, FaultyFileError):
        return [{"line": f.line, "column": f.column, "message": f.text} for f in error.faults]
    message = joined(" → ", filter(None, (error.message, error.hint)))
    return [{"line": None, "column": None, "message": message}]


def _digest(data: bytes | None) -> str:
    return "" if data is None else hashlib.sha256(data).hexdigest()
