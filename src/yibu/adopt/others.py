"""Servers that yibu replaces by its own engines: FunASR's and Xinference's."""

from __future__ import annotations

import os.path
from collections.abc import Sequence
from typing import Any

from yibu.adopt import funasr, xinference
from yibu.adopt.bash import Command, Setting
from yibu.adopt.findings import Adoption, Findings, gateway, name_of


def of_speech(speech: funasr.SpeechServer) -> Adoption:
    """One recognition server."""
    return _entries([_speech_entry(speech)], speech.host, speech.port, 8000, speech.warnings)


def read_others(commands: Sequence[Command], setting: Setting) -> Adoption | None:
    """Servers of FunASR's and Xinference's; None where a script starts none of them."""
    models: list[dict[str, Any]] = []
    warnings: list[str] = []
    host, port, usual = None, None, 10095
    for command in commands:
        speech = funasr.read_command(command.argv) or _python_file(command, setting)
        launched = xinference.read_command(command.argv)
        if speech is not None:
            models.append(_speech_entry(speech))
            host, port = speech.host, speech.port
            warnings += speech.warnings
        elif launched is not None:
            usual = 9997
            if launched.model:
                models.append(dict(launched.model))
            else:
                host, port = launched.host, launched.port
    return _entries(models, host, port, usual, warnings) if models else None


def _python_file(command: Command, setting: Setting) -> funasr.SpeechServer | None:
    words = [word for word in command.argv if not word.startswith("-")]
    if len(words) < 2 or "python" not in words[0] or not words[1].endswith(".py"):
        return None
    text = setting.files.read(os.path.join(command.directory, words[1]))  # noqa: PTH118
    return funasr.read_python(text) if text else None


def _speech_entry(speech: funasr.SpeechServer) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": name_of(speech.source), "source": speech.source}
    entry["engine"] = "speech"
    if speech.gpus is not None:
        entry["gpus"] = list(speech.gpus)
    if speech.options:
        entry["options"] = dict(speech.options)
    return entry


def _entries(
    models: list[dict[str, Any]], host: str | None, port: int | None, usual: int,
    warnings: Sequence[str],
) -> Adoption:  # fmt: skip
    """An adoption of servers that yibu replaces by engines of its own."""
    found = Findings(models=models, addresses=[(host, port or usual)] * len(models))
    section = gateway(found, host or "127.0.0.1", usual)
    told = (*found.warnings, *warnings)
    return Adoption({"gateway": section, "models": models}, (), told, host=host or "127.0.0.1")
