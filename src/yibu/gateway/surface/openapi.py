"""``/openapi.json``: FastAPI's own routes, and those of the hot path."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from yibu.gateway.ollama.translation import TRANSLATIONS, PathTranslation
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

_TRANSCRIPT_TYPES = ("text/plain", "application/x-subrip", "text/vtt", "text/event-stream")
"""Content types by ``response_format`` and ``stream``."""

_DESCRIBED = json.loads(Path(__file__).with_name("described.json").read_bytes())
"""Meanings of statuses, ways to send a key, examples of bodies, and the fields of audio's form."""
_STATUSES: dict[str, str] = _DESCRIBED["statuses"]


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
    components["securitySchemes"] = _DESCRIBED["security"]
    for path, methods in text["paths"].items():
        ollama = dialect_of(path) == "script"
        shape = answers.RecognizeError if ollama else answers.ErrorAnswer
        for method in methods.values():
            # FastAPI documents a validation error of its own shape, which never occurs here.
            method["responses"].pop("422", None)
            method["responses"]["default"] = _error(None, shape)
            if method["x-access"] == "key":
                method["security"] = _SECURITY
                method["responses"]["401"] = _error("401", shape)
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
            **{status: _error(status, error) for status in _STATUSES},
        },
    }


def _translated(path: str, translation: PathTranslation) -> dict[str, Any]:
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
            **{status: _error(status, answers.RecognizeError) for status in _STATUSES},
        },
    }


def _request(operation: Operation) -> dict[str, Any]:
    if operation.schema is not None:
        media: dict[str, Any] = {"schema": _ref(operation.schema)}
        if operation.path in _DESCRIBED["examples"]:
            media["example"] = _DESCRIBED["examples"][operation.path]
        return {"application/json": media}
    fields = _DESCRIBED["form"]
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
    status: str | None = None, shape: type[BaseModel] = answers.ErrorAnswer
) -> dict[str, Any]:
    return {
        "description": _STATUSES[status] if status else "Another error",
        "content": {"application/json": {"schema": _ref(shape)}},
    }
