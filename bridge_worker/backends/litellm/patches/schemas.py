"""Patches that refuse a schema which LiteLLM would inline without end, or into references that lead nowhere.

Owns the two functions of LiteLLM that replace ``$ref`` by its definition (PRIVATE): `unpack_defs` and OCI's own. They leave a
recursive reference as it is and drop its definition, so that the provider refuses what it can't read. Refuses to know providers.
"""

from __future__ import annotations

import copy
from typing import Any

from bridge_worker.backends.litellm.patches.patch import Patch
from bridge_worker.errors import BridgeError
from bridge_worker.security.schema_size import SchemaTooLarge, is_recursive

_TESTS = "tests/upstream_contract/test_schemas.py"
_TREE = {"T": {"type": "object", "properties": {"child": {"$ref": "#/$defs/T"}}}}
_RECURSIVE = {"type": "object", "$defs": _TREE, "properties": {"root": {"$ref": "#/$defs/T"}}}


def _checked_unpack(original: Any) -> Any:
    def unpack_defs(schema: dict[str, Any], defs: dict[str, Any], max_inlined_bytes: int | None = None) -> None:
        _check(schema, defs)
        try:
            original(schema, defs, max_inlined_bytes=max_inlined_bytes)
        except (AttributeError, TypeError) as error:  # a "$ref" that is no string, a definition that is no object
            raise _refused("it has a $ref that is no string, or a definition that is no object") from error

    return unpack_defs


def _unpack_leaves_a_reference(original: Any) -> bool:
    schema, definitions = copy.deepcopy({"properties": _RECURSIVE["properties"]}), copy.deepcopy(_TREE)
    original(schema, definitions)
    return "$ref" in repr(schema)


def _checked_resolve(original: Any) -> Any:
    def resolve_oci_schema_refs(schema: Any) -> Any:
        _check(schema, {})
        return original(schema)

    return resolve_oci_schema_refs


def _resolve_loses_a_definition(original: Any) -> bool:
    resolved = repr(original(copy.deepcopy(_RECURSIVE)))
    return "$ref" in resolved or "$defs" not in resolved


def _check(schema: object, definitions: dict[str, Any]) -> None:
    try:
        recursive = is_recursive(schema, definitions)
    except SchemaTooLarge as error:
        raise _refused(str(error)) from None
    if recursive:
        raise _refused("it has a recursive $ref, and this provider takes no references; write the levels that are needed")


def _refused(reason: str) -> BridgeError:
    return BridgeError("rejected_by_provider", f"a schema of this request can't be sent to this provider: {reason}")


PATCHES = (
    Patch(
        name="recursive schemas",
        wrong="a recursive schema is sent with references that lead nowhere, or is inlined without end",
        evidence=f"{_TESTS}::test_a_recursive_reference_is_refused_where_litellm_would_inline_it",
        places=("litellm.litellm_core_utils.prompt_templates.common_utils:unpack_defs",),
        takes=("schema", "defs", "max_inlined_bytes"),
        make=_checked_unpack,
        has_fault=_unpack_leaves_a_reference,
    ),
    Patch(
        name="recursive schemas of OCI",
        wrong="a recursive schema is sent to OCI with references that lead nowhere, or is inlined without end",
        evidence=f"{_TESTS}::test_a_recursive_reference_is_refused_where_litellm_would_inline_it",
        places=("litellm.llms.oci.common_utils:resolve_oci_schema_refs",),
        takes=("schema",),
        make=_checked_resolve,
        has_fault=_resolve_loses_a_definition,
        waits=True,
    ),
)
