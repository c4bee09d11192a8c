"""What LiteLLM does with references in a schema, and what the bridge refuses in its place."""

from __future__ import annotations

from typing import Any

import pytest

from bridge_worker.backends.litellm.patches import table
from bridge_worker.errors import BridgeError

Json = dict[str, Any]
TREE: Json = {"$defs": {"T": {"properties": {"child": {"$ref": "#/$defs/T"}}}}, "properties": {"root": {"$ref": "#/$defs/T"}}}
FLAT: Json = {"$defs": {"T": {"type": "string"}}, "properties": {"root": {"$ref": "#/$defs/T"}}}


@pytest.mark.rule("BND-2")
def test_a_recursive_reference_is_refused_where_litellm_would_inline_it() -> None:
    table.install()
    from litellm.llms.oci.common_utils import resolve_oci_schema_refs
    from litellm.llms.vertex_ai.common_utils import build_vertex_schema

    with pytest.raises(BridgeError, match="recursive") as refused:
        build_vertex_schema({"type": "object", **TREE})
    assert refused.value.kind == "rejected_by_provider"
    with pytest.raises(BridgeError, match="recursive"):
        resolve_oci_schema_refs(TREE)


@pytest.mark.rule("BND-2")
def test_another_reference_is_inlined_as_before() -> None:
    table.install()
    from litellm.litellm_core_utils.prompt_templates.common_utils import unpack_defs
    from litellm.llms.oci.common_utils import resolve_oci_schema_refs

    schema = {"type": "object", "properties": dict(FLAT["properties"])}
    unpack_defs(schema, FLAT["$defs"])
    assert schema["properties"]["root"] == {"type": "string"}
    assert resolve_oci_schema_refs(FLAT)["properties"]["root"] == {"type": "string"}


@pytest.mark.rule("BND-2")
@pytest.mark.parametrize("schema", [{"properties": {"$ref": {"type": "string"}}}, {"$ref": "#/$defs/T"}])
def test_what_litellm_would_break_on_is_refused(schema: Json) -> None:
    table.install()
    from litellm.litellm_core_utils.prompt_templates.common_utils import unpack_defs

    with pytest.raises(BridgeError) as refused:
        unpack_defs(schema, {"T": "no object"})
    assert refused.value.kind == "rejected_by_provider"
