"""A patch for LiteLLM's second parse of its price map.

Owns where a fact about a model is looked up that LiteLLM's current map does not have. Refuses to know any fact.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from bridge_worker.backends.litellm.patches.patch import Patch


def _the_loaded_map(original: Any) -> Any:
    from litellm.litellm_core_utils import get_model_cost_map as maps

    def get_bundled_model_cost_map() -> Mapping[str, Any]:
        """As LiteLLM keeps it, untouched by what is registered later. It also has the aliases of models."""
        is_bundled = maps.get_model_cost_map_source_info()["source"] == "local"
        found: Mapping[str, Any] = maps.GetModelCostMap.loaded_model_cost_map() if is_bundled else original()
        return found

    return get_bundled_model_cost_map


PATCHES = (
    Patch(
        name="one price map",
        wrong="the price map is parsed once more at the first chat with Claude, 5 MB of text: 40 ms and 13 MiB",
        evidence="tests/upstream_contract/test_patches.py::test_the_loaded_price_map_is_the_bundled_one",
        places=("litellm.utils:get_bundled_model_cost_map",),
        takes=(),
        make=_the_loaded_map,
        has_fault=lambda original: "json.loads" in inspect.getsource(original),
    ),
)
