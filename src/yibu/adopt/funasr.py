"""FunASR's servers: a FastAPI file around ``AutoModel``, read from its syntax tree and never run, and
FunASR's own start commands.
"""

from __future__ import annotations

import ast
import os.path
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from yibu.adopt.bash import Gap, UnknownScriptError
from yibu.adopt.marks import plain_flags
from yibu.messages import tr

_SERVED = re.compile(r"sensevoice|whisper|paraformer(?!.*(-en\b|nat-en-|-onnx\b))", re.IGNORECASE)
"""Models that yibu's speech engine recognises with; of Paraformers the Chinese ones."""
_NICKNAMES = {
    "fsmn-vad": "",
    "sensevoice": "iic/SenseVoiceSmall",
    "paraformer": "iic/speech_paraformer-large_asr_nat-zh-cn-16k-common-vocab8404-pytorch",
    "paraformer-zh": "iic/speech_seaco_paraformer_large_asr_nat-zh-cn-16k-common-vocab8404-pytorch",
    "paraformer-zh-streaming": (
        "iic/speech_paraformer-large_asr_nat-zh-cn-16k-common-vocab8404-online"
    ),
    "ct-punc": "iic/punc_ct-transformer_cn-en-common-vocab471067-large",
    "ct-punc-c": "iic/punc_ct-transformer_zh-cn-common-vocab272727-pytorch",
    "cam++": "iic/speech_campplus_sv_zh-cn_16k-common",
}
"""FunASR's short names (``funasr/download/name_maps_from_hub.py``); its VAD is found without one."""
_MAX_DEPTH = 8
_WEBSOCKET = re.compile(r"funasr[-_]wss[-_]server(-2pass|-2pass\.py|\.py)?$")


@dataclass(frozen=True, slots=True)
class SpeechServer:
    """A recognition server of FunASR's."""

    source: str
    options: Mapping[str, Any]
    gpus: tuple[int, ...] | None
    host: str | None
    port: int | None
    warnings: tuple[str, ...] = field(default=())


def read_python(text: str) -> SpeechServer | None:
    """The server that a Python file starts; None where it has no ``AutoModel``.

    Raises:
        UnknownScriptError: the model, host or port is not written out.
    """
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    values = _Constants(tree)
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    models = [call for call in calls if _name(call) in ("AutoModel", "pipeline")]
    if not models:
        return None
    served = _served_model(models, values)
    host, port = _address(calls, values)
    return SpeechServer(**served, host=host, port=port)


def read_command(argv: Sequence[str]) -> SpeechServer | None:
    """FunASR's own servers by their command line; None for any other.

    Raises:
        UnknownScriptError: it serves a model that yibu does not.
    """
    words = list(argv)
    if os.path.basename(words[0]).startswith("python"):  # noqa: PTH119 - another machine's path
        words = words[1:]
    program = os.path.basename(words[0]) if words else ""  # noqa: PTH119 - as above
    if _WEBSOCKET.match(program) is None and program not in ("funasr-server", "run_server.sh"):
        return None
    flags = plain_flags(words[1:])
    model = flags.get("asr_model") or flags.get("model_dir") or flags.get("model") or ""
    _check_served(model, Gap(1, " ".join(argv)))
    port = flags.get("port", "10095")
    warning = tr("its clients speak FunASR's websocket protocol; yibu's HTTP API takes whole files")
    return SpeechServer(
        _source(model), {}, (0,) if flags.get("ngpu") not in (None, "0") else None,
        flags.get("host"), int(port) if port.isdigit() else None, (warning,),
    )  # fmt: skip


def _served_model(models: list[ast.Call], values: _Constants) -> dict[str, Any]:
    for call in models:
        given = {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}
        node = given.get("model") or (call.args[0] if call.args else None)
        if node is None:
            continue
        model = values.text(node, "the model")
        if "vad" in model.lower() and len(models) > 1:
            continue
        _check_served(model, Gap(call.lineno, ast.unparse(call)))
        options: dict[str, Any] = {}
        warnings = []
        for option, argument in (
            ("vad", "vad_model"), ("punctuation", "punc_model"), ("speakers", "spk_model"),
        ):  # fmt: skip
            named = values.text(given[argument], f"the {argument}") if argument in given else ""
            if option == "punctuation" and named and "paraformer" not in model.lower():
                warnings.append(tr("punc_model is left out: SenseVoice writes punctuation itself"))
            elif named := _NICKNAMES.get(named, named):
                options[option] = _source(named)
        device = values.text(given["device"], "the device") if "device" in given else "cpu"
        number = re.fullmatch(r"cuda(?::(\d+))?", device)
        gpus = (int(number[1] or 0),) if number else None
        return {"source": _source(model), "options": options, "gpus": gpus,
                "warnings": tuple(warnings)}  # fmt: skip
    raise UnknownScriptError(
        Gap(models[0].lineno, ast.unparse(models[0])), tr("names no recognition model")
    )


def _check_served(model: str, gap: Gap) -> None:
    if not _SERVED.search(model):
        raise UnknownScriptError(
            gap,
            tr(
                "serves a model that yibu's speech engine does not know: it has SenseVoice, "
                "Chinese Paraformers and Whisper"
            ),
        )


def _source(model: str) -> str:
    model = _NICKNAMES.get(model.lower(), model)
    if re.fullmatch(r"[\w.-]+/[\w.-]+", model) and not model.startswith("."):
        return f"modelscope:{model}"
    return model if model.startswith(("/", "~", ".")) else f"./{model}"


def _address(calls: list[ast.Call], values: _Constants) -> tuple[str | None, int | None]:
    for call in calls:
        if _name(call) not in ("run", "launch") or "uvicorn" not in ast.unparse(call.func) + "run":
            continue
        given = {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}
        host = values.text(given["host"], "the host") if "host" in given else None
        port = values.number(given["port"], "the port") if "port" in given else None
        if host is not None or port is not None:
            return host, port
    return None, None


def _name(call: ast.Call) -> str:
    function = call.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


class _Constants:
    """Values written out in the file: literals, module variables, defaults of arguments."""

    def __init__(self, tree: ast.Module) -> None:
        self._known: dict[str, ast.expr | None] = {}
        for node in ast.walk(tree):
            for name, value in _assigned(node):
                # A name that means two things is not known.
                self._known[name] = None if name in self._known else value

    def text(self, node: ast.expr, what: str) -> str:
        value = self._value(node, 0)
        if not isinstance(value, str | int):
            raise UnknownScriptError(
                Gap(node.lineno, ast.unparse(node)),
                tr("is not written out, and {what} is taken from it", what=what),
            )
        return str(value)

    def number(self, node: ast.expr, what: str) -> int:
        text = self.text(node, what)
        if not text.isdigit():
            raise UnknownScriptError(
                Gap(node.lineno, ast.unparse(node)), tr("is no number for {what}", what=what)
            )
        return int(text)

    def _value(self, node: ast.expr | None, depth: int) -> Any:
        """The value, or None: of an expression that hangs on the machine for instance."""
        if node is None or depth > _MAX_DEPTH:
            return None
        match node:
            case ast.Constant():
                return node.value
            case ast.Name():
                return self._value(self._known.get(node.id), depth + 1)
            case ast.Attribute() if ast.unparse(node.value) in ("args", "opt", "config"):
                return self._value(self._known.get("--" + node.attr), depth + 1)
            case ast.Call():
                return self._called(node, depth + 1)
        return None

    def _called(self, node: ast.Call, depth: int) -> Any:
        name = _name(node)
        if name in ("getenv", "get") and len(node.args) == 2:
            return self._value(node.args[1], depth)  # what it is where nothing sets the variable
        parts = [self._value(argument, depth) for argument in node.args]
        if name == "join" and parts and all(isinstance(part, str) for part in parts):
            return os.path.join(*parts)  # noqa: PTH118 - another machine's path
        return parts[0] if name in ("int", "str", "Path") and len(parts) == 1 else None


def _assigned(node: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    if isinstance(node, ast.Assign) and len(node.targets) == 1:
        target = node.targets[0]
        if isinstance(target, ast.Name):
            yield target.id, node.value
    elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value:
        yield node.target.id, node.value
    elif isinstance(node, ast.Call) and _name(node) == "add_argument" and node.args:
        flag = node.args[-1]
        default = next((k.value for k in node.keywords if k.arg == "default"), None)
        if isinstance(flag, ast.Constant) and default is not None:
            yield "--" + str(flag.value).lstrip("-").replace("-", "_"), default
