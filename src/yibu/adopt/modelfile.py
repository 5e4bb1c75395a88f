"""Ollama's Modelfile: a GGUF file, and what it is run with.

https://docs.ollama.com/modelfile has the instructions.
"""

from __future__ import annotations

import re
from typing import Any

from yibu.adopt.bash import Gap, UnknownScriptError
from yibu.adopt.findings import Adoption, Findings, gateway, name_of
from yibu.messages import tr

_INSTRUCTION = re.compile(
    r'^[ \t]*(?P<name>[A-Za-z]+)[ \t]+(?:"""(?P<block>.*?)"""|(?P<line>[^\n]*))',
    re.MULTILINE | re.DOTALL,
)
_KNOWN = frozenset(
    {"FROM", "PARAMETER", "TEMPLATE", "SYSTEM", "ADAPTER", "LICENSE", "MESSAGE", "REQUIRES"}
)
_OPTIONS = {
    "num_ctx": "context", "num_thread": "threads", "num_gpu": "gpu_layers", "num_batch": "batch",
    "num_predict": "n_predict", "temperature": "temp", "top_k": "top_k", "top_p": "top_p",
    "min_p": "min_p", "seed": "seed", "repeat_penalty": "repeat_penalty",
    "repeat_last_n": "repeat_last_n",
}  # fmt: skip
"""Parameters → options of llama.cpp's."""
_LEFT_OUT = {
    "SYSTEM": tr("clients send their own system message"),
    "TEMPLATE": tr("the chat template of the model's own file is used"),
    "MESSAGE": tr("clients send the conversation"),
}
_PORT = 11434


def read_modelfile(text: str) -> Adoption | None:
    """Read a Modelfile; None where the text is none.

    Raises:
        UnknownScriptError: its model is one of Ollama's library, or it has an adapter.
    """
    bare = "\n".join(line if not line.lstrip().startswith("#") else "" for line in text.split("\n"))
    found = [
        (one["name"].upper(), (one["block"] or one["line"] or "").strip(), one.start("name"))
        for one in _INSTRUCTION.finditer(bare)
    ]
    names = {name for name, _, _ in found}
    if "FROM" not in names or not names <= _KNOWN or found[0][0] != "FROM" or " " in found[0][1]:
        return None
    findings, options = Findings(), dict[str, Any]()
    source = ""
    for name, value, at in found:
        gap = Gap(bare.count("\n", 0, at) + 1, f"{name} {value}")
        if name == "FROM":
            source = _source(value, gap)
        elif name == "ADAPTER":
            raise UnknownScriptError(
                gap, tr("names an adapter"), tr("Serve it by name: options: {lora: {NAME: PATH}}.")
            )
        elif name == "PARAMETER":
            parameter, _, given = value.partition(" ")
            if parameter in _OPTIONS:
                options[_OPTIONS[parameter]] = _number(given.strip())
            else:
                findings.warn(
                    tr(
                        "{parameter} is left out: clients say it with each request",
                        parameter=parameter,
                    )
                )
        elif name in _LEFT_OUT:
            findings.warn(tr("{name} is left out: {reason}", name=name, reason=_LEFT_OUT[name]))
    model = {"name": name_of(source), "source": source, "engine": "llama.cpp"}
    findings.models.append(model | ({"options": options} if options else {}))
    findings.addresses.append((None, None))
    document = {"gateway": gateway(findings, "127.0.0.1", _PORT), "models": findings.models}
    return Adoption(document, (), tuple(findings.warnings), host="127.0.0.1")


def _source(value: str, gap: Gap) -> str:
    if value.startswith(("hf.co/", "huggingface.co/")):
        return "hf:" + value.partition("/")[2]
    if value.startswith(("/", "~", "./", "../")) or value.lower().endswith(".gguf"):
        return value if value.startswith(("/", "~", ".")) else f"./{value}"
    raise UnknownScriptError(
        gap,
        tr("names a model of Ollama's library, whose files are not known here"),
        tr(
            "Name a GGUF in its place, such as hf.co/ORG/NAME-GGUF:Q4_K_M: yibu catalogue has some."
        ),
    )


def _number(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue  # a word
    return text
