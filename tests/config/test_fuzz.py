"""Any values under the configuration's own names: a Config, or one error that names its place."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from yibu.config import file as config_file
from yibu.config.schema import FileSchema, GatewaySchema, ModelSchema
from yibu.errors import ConfigError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=6)
    | st.sampled_from(["10m", "1 GiB", "${env.NO}", "*x", "127.0.0.1", "a/b", "auto", "0x1f", "1e99", "\ud800"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(max_size=4) | st.sampled_from(["name", "min", "rpm"]), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip


def entries(schema: Any) -> st.SearchStrategy[dict[str, Any]]:
    names = sorted(field.alias or name for name, field in schema.model_fields.items())
    return st.dictionaries(st.sampled_from(names), VALUES, max_size=4)


DOCUMENTS = st.fixed_dictionaries(
    {},
    optional={
        "gateway": entries(GatewaySchema) | VALUES,
        "models": st.lists(
            st.builds(dict, entries(ModelSchema), name=st.sampled_from(["a", "b"]))
            | entries(ModelSchema) | VALUES, max_size=3
        ) | VALUES,
        **{name: VALUES for name in FileSchema.model_fields if name not in ("gateway", "models")},
    },
)  # fmt: skip


@given(DOCUMENTS)
def test_any_document_is_read_or_refused_by_place(document: dict[str, Any]) -> None:
    data, refusal = json.dumps(document).encode(), None
    try:
        config_file.parse(data, "yibu.yaml", env={})
    except ConfigError as error:
        refusal = error
    assert refusal is None or "yibu.yaml" in refusal.message or refusal.hint
