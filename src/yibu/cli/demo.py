"""``yibu demo``: from a bare machine to a model that answers, checked before your eyes."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from yibu import sockets
from yibu.cli import output
from yibu.cli.connect import Access, access
from yibu.cli.exits import DONE, FAILED
from yibu.cli.launch import NodeLaunch
from yibu.cli.session import NodeSession
from yibu.cli.smoke import Check, attempt, run_checks
from yibu.config import Config
from yibu.config import file as config_file
from yibu.errors import YibuError
from yibu.management.context import Context, open_environments
from yibu.management.entries import choose
from yibu.messages import tr

_FILE = "demo.yaml"
_MAX_TOKENS = 48
"""Tokens of an answer: enough to read, and soon there on a busy machine."""
_SENTENCE = "The quick brown fox jumps over the lazy dog."


def run_demo(context: Context, *, once: bool, port: int | None) -> int:
    """Deploy the demo's models, check them, and stay up until Ctrl-C unless ``once``."""
    began = time.monotonic()
    with NodeLaunch(context) as node:
        config = _config(context, port, node_runs=node.runs_already)
        models = choose([], config, context.directory).models
        session = NodeSession(context, config, node)
        code = FAILED
        with _making_voice(context) as voice, session.running(models) as node_watch:
            deployed = time.monotonic() - began
            names = [model.name for model in models]
            code = _check(context, names, deployed, voice)
            if not once:
                _say_how_to_go_on(access(context), names[0])
                node_watch.ended.wait()
                node_watch.check()
        return code


@contextmanager
def _making_voice(context: Context) -> Iterator[Future[Path]]:
    """The interpreter of the synthesiser, whose environment is made while the models come up."""
    cancel = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        try:
            yield pool.submit(open_environments(context).ensure, "demo-voice", cancel=cancel)
        finally:
            cancel.set()


def _check(context: Context, models: Sequence[str], deployed: float, voice: Future[Path]) -> int:
    reach = access(context)
    passed = True
    running = {model["name"]: model for model in context.client.call("ps")["models"]}
    for check in _checks(reach, [running[name] for name in models], deployed, voice):
        output.data(check.line())  # each as it comes: the first answer is what is waited for
        passed = passed and check.passed
    return DONE if passed else FAILED


def _checks(
    reach: Access, models: Sequence[dict[str, Any]], deployed: float, voice: Future[Path]
) -> Iterator[Check]:
    yield Check(
        tr("all"), tr("deployed"), True, deployed, tr("downloaded, verified, launched, ready")
    )
    for model in models:
        name = model["name"]
        yield from run_checks(reach.api, model, reach.capabilities[name], max_tokens=_MAX_TOKENS)
        if "transcriptions" in reach.capabilities[name]:
            yield attempt(name, tr("speech understood"), partial(_hear, reach, name, voice))


def _hear(reach: Access, model: str, voice: Future[Path]) -> str:
    """Have a synthesiser speak a sentence, and the model transcribe it."""
    with TemporaryDirectory(prefix="yibu-demo-") as directory:
        clip = Path(directory) / "spoken.wav"
        command = [str(voice.result()), "-P", "-m", "yibu.launchers.speak", _SENTENCE, str(clip)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise YibuError("The synthesiser failed: {stderr}", stderr=done.stderr.strip()[-300:])
        heard = json.loads(reach.api.upload("/v1/audio/transcriptions", clip, {"model": model}))
    if _words(heard["text"]) != _words(_SENTENCE):
        raise YibuError(
            "Spoken was {sentence!r}, and heard {heard!r}.", sentence=_SENTENCE, heard=heard["text"]
        )
    return str(heard["text"])


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.lower())


def _config(context: Context, port: int | None, *, node_runs: bool) -> Config:
    """The demo's own file; its port gives way to a free one when it is taken."""
    text = resources.files("yibu.cli").joinpath(_FILE).read_bytes()
    schema = config_file.parse(text, _FILE, env=context.env)
    config = config_file.resolve(schema, None, env=context.env, flags={"port": port})
    wanted = config.gateway.port
    # A node that runs already has its address.
    ours = not node_runs and config.origins.get("gateway.port") == "file"
    if ours and sockets.port_fault(wanted) is not None:
        output.say("Port {wanted} is taken, so the demo uses a free one.", wanted=wanted)
        config = dataclasses.replace(config, gateway=dataclasses.replace(config.gateway, port=0))
    return config


def _say_how_to_go_on(reach: Access, model: str) -> None:
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "Hello!"}]})
    output.talk(
        "\n"
        + tr(
            "It serves {url}/v1 (documentation: {url}/docs). Try:\n\n  curl "
            "{url}/v1/chat/completions -H 'Content-Type: application/json' -d '{body}'\n  yibu run "
            "{model} 'What is a volcano?'\n\nCtrl-C stops it.",
            url=reach.url,
            body=body,
            model=model,
        )
    )
