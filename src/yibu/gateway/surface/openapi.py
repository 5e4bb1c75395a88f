"""``/openapi.json``: FastAPI writes its own routes, and the hot path's are put beside them."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from yibu.gateway.ollama.translation import TRANSLATIONS, Translation
from yibu.gateway.operations import OPERATIONS, Operation, dialect_of
from yibu.gateway.schemas import answers

DESCRIPTION = """\
One OpenAI-compatible address for the models deployed here. A model answers only the paths that its
engine can do; `/v1/models` lists each model's capabilities. Engines' own fields beyond OpenAI's
(`top_k`, `chat_template_kwargs` …) are passed through.

Tutorials, how-to guides and the rest of the documents: `yibu docs` in a terminal; `yibu docs api` is
about these paths.
"""

_SECURITY: list[dict[str, list[str]]] = [{"key": []}, {"x-api-key": []}]
_REF = "#/components/schemas/{model}"

_EXAMPLES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {
        "model": "NAME",
        "messages": [{"role": "user", "content": "你好"}],
        "max_tokens": 64,
    },
    "/v1/completions": {"model": "NAME", "prompt": "Once upon a time", "max_tokens": 32},
    "/v1/embeddings": {"model": "NAME", "input": "a sentence"},
    "/v1/responses": {"model": "NAME", "input": "Hello", "max_output_tokens": 64},
    "/v1/messages": {
        "model": "NAME",
        "max_tokens": 64,
        "messages": [{"role": "user", "content": "Hello"}],
    },
    "/v1/messages/count_tokens": {
        "model": "NAME",
        "messages": [{"role": "user", "content": "Hello"}],
    },
    "/v1/rerank": {"model": "NAME", "query": "a cat", "documents": ["a kitten", "tax law"]},
    "/v1/score": {"model": "NAME", "text_1": "a cat", "text_2": ["a kitten", "tax law"]},
    "/tokenize": {"model": "NAME", "prompt": "Hello"},
    "/detokenize": {"model": "NAME", "tokens": [1, 2, 3]},
}

_TRANSCRIPT_TYPES = ("text/plain", "application/x-subrip", "text/vtt", "text/event-stream")
"""By ``response_format`` and ``stream``."""

_STATUSES = {
    400: "A field is missing, of the wrong type or out of range; `param` names it",
    401: "The API key is missing or wrong",
    404: "No such model, and the message names those that exist; or its engine does not do this",
    413: "The body is too large",
    429: "The engine has too much to do; see Retry-After",
    502: "The engine died before it answered",
    503: "The model is not ready, or the gateway is shutting down; see Retry-After",
    504: "The engine was silent for too long",
}


def document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI 3.1 document of every public path."""
    text = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    models: list[type[BaseModel]] = [
        answers.ErrorAnswer,
        answers.RecognizeError,
    ]
    models += [translation.schema for translation in TRANSLATIONS.values()]
    models += {op.answer for op in OPERATIONS.values()}
    models += {op.schema for op in OPERATIONS.values() if op.schema is not None}
    _, definitions = models_json_schema(
        [(model, "validation") for model in sorted(models, key=lambda model: model.__name__)],
        ref_template=_REF,
    )
    components = text.setdefault("components", {})
    components.setdefault("schemas", {}).update(definitions["$defs"])
    components["securitySchemes"] = {
        "key": {"type": "http", "scheme": "bearer", "description": "A key of the gateway"},
        "x-api-key": {
            "type": "apiKey",
            "in": "header",
            "name": "x-api-key",
            "description": "The same, where Anthropic's clients put it",
        },
    }
    for path, methods in text["paths"].items():
        ollama = dialect_of(path) == "script"
        shape = answers.RecognizeError if ollama else answers.ErrorAnswer
        for method in methods.values():
            # FastAPI documents a validation error of its own shape, which never occurs here.
            method["responses"].pop("422", None)
            method["responses"]["default"] = _error(None, shape)
            if method["x-access"] == "key":
                method["security"] = _SECURITY
                method["responses"]["401"] = _error(401, shape)
    for name in ("HTTPValidationError", "ValidationError"):
        components["schemas"].pop(name, None)
    for operation in OPERATIONS.values():
        text["paths"][operation.path] = {"post": _post(operation)}
    for path, translation in TRANSLATIONS.items():
        text["paths"][path] = {"post": _translated(path, translation)}
    return text


def _post(operation: Operation) -> dict[str, Any]:
    content: dict[str, Any] = {"application/json": {"schema": _ref(operation.answer)}}
    error = answers.RecognizeError if operation.dialect == "script" else answers.ErrorAnswer
    if operation.schema is None and operation.dialect != "script":
        content |= {kind: {"schema": {"type": "string"}} for kind in _TRANSCRIPT_TYPES}
    elif operation.schema is not None and "stream" in operation.schema.model_fields:
        content["text/event-stream"] = {
            "schema": {"type": "string", "description": "With `stream: true`: one event a chunk"}
        }
    return {
        "tags": ["audio" if operation.schema is None else "text"],
        "summary": operation.noun.capitalize(),
        "operationId": "post" + operation.path.replace("/", "_").rstrip("_"),
        "x-access": operation.access,
        "security": _SECURITY,
        "requestBody": {"required": True, "content": _request(operation)},
        "responses": {
            "200": {"description": "The answer", "content": content},
            **{str(status): _error(status, error) for status in _STATUSES},
        },
    }


def _translated(path: str, translation: Translation) -> dict[str, Any]:
    lines = {"application/x-ndjson": {"schema": {"type": "string"}}}
    kinds = {} if translation.shape.startswith("embed") else lines
    return {
        "tags": ["ollama"],
        "summary": translation.summary,
        "operationId": "post" + path.replace("/", "_"),
        "x-access": translation.access,
        "security": _SECURITY,
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": _ref(translation.schema)}},
        },
        "responses": {
            "200": {
                "description": "The answer",
                "content": {"application/json": {"schema": {"type": "object"}}, **kinds},
            },
            **{str(status): _error(status, answers.RecognizeError) for status in _STATUSES},
        },
    }


def _request(operation: Operation) -> dict[str, Any]:
    if operation.schema is not None:
        media: dict[str, Any] = {"schema": _ref(operation.schema)}
        if operation.path in _EXAMPLES:
            media["example"] = _EXAMPLES[operation.path]
        return {"application/json": media}
    fields: dict[str, Any] = {
        "model": {"type": "string", "description": "Put before the file"},
        "file": {"type": "string", "format": "binary"},
        "language": {"type": "string"},
        "prompt": {"type": "string"},
        "response_format": {
            "type": "string",
            "enum": ["json", "text", "srt", "vtt", "verbose_json", "diarized_json"],
        },
        "temperature": {"type": "number"},
        "timestamp_granularities[]": {"type": "array", "items": {"enum": ["word", "segment"]}},
        "stream": {"type": "boolean"},
        "use_itn": {"type": "boolean", "description": "Punctuation and digits (SenseVoice)"},
        "hotwords": {"type": "string", "description": "Words to listen for (SeACo-Paraformer)"},
        "keywords[]": {"type": "array", "items": {"type": "string"}},
        "audio_track": {"type": "integer", "description": "Which audio track, from 0"},
        "sample_rate": {"type": "integer", "description": "Hz, of samples without a header"},
        "channels": {"type": "integer", "description": "Of samples without a header (1)"},
        "sample_format": {"type": "string", "description": "Of samples without a header (s16le)"},
    }
    required = ["file", "model"]
    if not operation.model_required:
        left_out = (
            "prompt",
            "response_format",
            "temperature",
            "timestamp_granularities[]",
            "stream",
        )
        fields = {name: field for name, field in fields.items() if name not in left_out}
        required = ["file"]
    schema = {"type": "object", "properties": fields, "required": required}
    return {"multipart/form-data": {"schema": schema}}


def _ref(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": _REF.format(model=model.__name__)}


def _error(
    status: int | None = None, shape: type[BaseModel] = answers.ErrorAnswer
) -> dict[str, Any]:
    return {
        "description": _STATUSES[status] if status else "Another error",
        "content": {"application/json": {"schema": _ref(shape)}},
    }
