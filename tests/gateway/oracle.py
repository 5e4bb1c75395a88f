"""OpenAI's published schemas as an oracle: nullable rewritten, references resolved within."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

PUBLISHED = Path(__file__).parents[2].parent / "shared" / "openai" / "openapi.json"


def rewrite(node: Any) -> Any:
    """OpenAPI 3.0's ``nullable: true`` as JSON Schema says it; duplicate ``required`` removed."""
    if isinstance(node, list):
        return [rewrite(item) for item in node]
    if not isinstance(node, dict):
        return node
    out = {key: rewrite(value) for key, value in node.items() if key != "nullable"}
    if isinstance(out.get("required"), list):
        out["required"] = sorted(set(out["required"]))
    if node.get("nullable") is True:
        return {"anyOf": [out, {"type": "null"}]}
    return out


def load_schemas() -> dict[str, Any]:
    for path in (PUBLISHED, Path(__file__).with_name("openai_schemas.json")):
        if path.exists():
            return rewrite(json.loads(path.read_text())["components"]["schemas"])
    pytest.skip(f"neither {PUBLISHED} nor a copy of its schemas is here")


class Oracle:
    def __init__(self) -> None:
        self.schemas = load_schemas()

    def knows(self, name: str) -> bool:
        """The copy beside this file leaves out what is large: the Responses API alone has 240 kB."""
        return name in self.schemas

    def check(self, name: str, value: object) -> None:
        document = {
            "$ref": f"#/components/schemas/{name}",
            "components": {"schemas": self.schemas},
        }
        jsonschema.Draft202012Validator(document).validate(value)
