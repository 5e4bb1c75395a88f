"""An entry's chat template: Jinja text, a file, or the name of one of llama.cpp's own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from yibu.config import ModelConfig
from yibu.engines.options import nearest
from yibu.errors import ConfigError
from yibu.messages import tr
from yibu.paths import at_home

_CHATML = "chatml"
"""The one name that llama.cpp's Jinja engine knows."""

_NAMES = frozenset(
    {"bailing", "bailing-think", "bailing2", "chatglm3", "chatglm4", "command-r", "deepseek",
     "deepseek-ocr", "deepseek2", "deepseek3", "exaone-moe", "exaone3", "exaone4", "falcon3",
     "gemma", "gigachat", "glmedge", "gpt-oss", "granite", "granite-4.0", "granite-4.1",
     "grok-2", "hunyuan-dense", "hunyuan-moe", "hunyuan-vl", "kimi-k2", "llama2", "llama2-sys",
     "llama2-sys-bos", "llama2-sys-strip", "llama3", "llama4", "megrez", "minicpm",
     "mistral-v1", "mistral-v3", "mistral-v3-tekken", "mistral-v7", "mistral-v7-tekken",
     "monarch", "openchat", "orion", "pangu-embedded", "phi3", "phi4", "rwkv-world", "seed_oss",
     "smolvlm", "solar-open", "vicuna", "vicuna-orca", "yandex", "zephyr"}
)  # fmt: skip
"""``LLM_CHAT_TEMPLATES`` of llama.cpp's src/llama-chat.cpp: used where Jinja is off. With Jinja on such
a name would itself be the text of every prompt."""


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """``text`` for llama.cpp's ``chat_template``, and its ``use_jinja``."""

    text: str
    jinja: bool = True


def chat_template(model: ModelConfig, value: str) -> ChatTemplate:
    """The template that ``options.chat_template`` means.

    Raises:
        ConfigError: it is no Jinja text, no file that can be read and no name.
    """
    if value == _CHATML or "{{" in value or "{%" in value:
        return ChatTemplate(value)
    path = Path(model.directory or ".") / at_home(value)
    if value in _NAMES and not path.is_file():
        return ChatTemplate(value, jinja=False)
    try:
        return ChatTemplate(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        names = sorted({*_NAMES, _CHATML})
        near = nearest(value, names, cutoff=0.6)
        raise ConfigError(
            "model {model!r}: options.chat_template: {path} cannot be read: {error}",
            model=model.name,
            path=path,
            error=getattr(error, "strerror", None) or error,
            hint=tr("Did you mean {near!r}?", near=near)
            if near
            else tr(
                "Name a file of Jinja, or one of llama.cpp's own templates: {names}",
                names=", ".join(names),
            ),
        ) from error
