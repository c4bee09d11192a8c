"""That the names a config may have, which the front keeps in lists, are those of the installed LiteLLM."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from typing import get_args

import litellm
import pytest
from litellm.constants import ROUTER_SETTINGS_MANAGED_OUTSIDE_CONFIG
from litellm.models.credentials import CredentialItem
from litellm.types.router import RouterGeneralSettings, holds_secret_pointer

from bridge_worker.backends.litellm import gateway_config
from bridge_worker.config import env_references, gateway_keys

PACKAGE = Path(litellm.__file__).parent
PROXY = (PACKAGE / "proxy/proxy_server.py").read_text(encoding="utf-8")


def test_the_routers_settings_are_those_of_litellm() -> None:
    known = gateway_keys.ROUTER.keys() | gateway_keys.ROUTER_IGNORED
    assert known == set(litellm.Router.get_valid_args()), "correct ROUTER or ROUTER_IGNORED in bridge_worker/config/gateway_keys.py"
    assert known >= ROUTER_SETTINGS_MANAGED_OUTSIDE_CONFIG
    assert not gateway_keys.ROUTER.keys() & gateway_keys.ROUTER_IGNORED


def test_the_strategies_are_those_of_litellm() -> None:
    annotation = inspect.signature(litellm.Router.__init__).parameters["routing_strategy"].annotation
    assert set(get_args(annotation)) == gateway_keys.STRATEGIES


def module_settings() -> set[str]:
    """Public names that LiteLLM's module assigns, but for its lists of models."""
    found = set()
    for node in ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8")).body:
        targets = [node.target] if isinstance(node, ast.AnnAssign) else node.targets if isinstance(node, ast.Assign) else []
        found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return {name for name in found if name.islower() and not name.startswith("_") and not name.endswith("_models")}


def gateway_settings() -> set[str]:
    """What the gateway itself reads of litellm_settings."""
    load_config = PROXY[PROXY.index("async def load_config") : PROXY.index("GENERAL SERVER SETTINGS")]
    return set(re.findall(r'key == "(\w+)"', load_config)) | set(re.findall(r'litellm_settings(?:\.get\(|\[)"(\w+)"', PROXY))


def test_litellm_settings_are_known_whatever_becomes_of_them() -> None:
    known = gateway_keys.LITELLM | gateway_keys.LITELLM_IGNORED
    assert not (module_settings() | gateway_settings()) - known, "give each its place in bridge_worker/config/gateway_keys.py"
    assert not gateway_keys.LITELLM & gateway_keys.LITELLM_IGNORED
    gone = {name for name in gateway_keys.LITELLM - {"cache_params"} if not hasattr(litellm, name)}
    assert not gone, f"LiteLLM has no such setting any more: {gone}"
    assert gateway_keys.LITELLM_KINDS.keys() <= gateway_keys.LITELLM


def test_cooldown_time_is_read_from_router_settings_only() -> None:
    """So it is no setting of litellm_settings here either."""
    assert not hasattr(litellm, "cooldown_time")


def test_the_sections_are_those_that_the_gateway_reads() -> None:
    load = PROXY[PROXY.index("async def load_config") : PROXY.index("class ", PROXY.index("_init_non_llm_configs"))]
    read = set(re.findall(r'\bconfig\.get\("(\w+)"', load)) - {"interval_hours", "force_reload"}  # of its database
    assert not read - gateway_keys.SECTIONS - gateway_keys.SERVER_SECTIONS


def test_the_blocked_variables_are_the_gateways() -> None:
    block = re.search(r"_BLOCKED_ENV_KEYS: set\[str\] = \{(.*?)\}", PROXY, re.DOTALL)
    assert block
    assert set(re.findall(r'"(\w+)"', block[1])) == env_references.BLOCKED
    gate = (PACKAGE / "proxy/mcp_server/stdio_gate.py").read_text(encoding="utf-8")
    assert f'"{env_references._MCP_FLAG}"' in gate


def test_the_pointers_are_litellms() -> None:
    from litellm.types.router import CredentialLiteLLMParams

    assert {name for name in CredentialLiteLLMParams.model_fields if holds_secret_pointer(name)} == env_references.POINTERS


def test_the_callbacks_that_need_a_package_exist() -> None:
    known = {*litellm._known_custom_logger_compatible_callbacks, *gateway_config._OLDER_CALLBACKS}
    assert not gateway_config._PACKAGES.keys() - known


def test_what_the_router_is_made_with_exists() -> None:
    assert {"cache_responses", "router_general_settings", "ignore_invalid_deployments"} <= set(litellm.Router.get_valid_args())
    assert RouterGeneralSettings(async_only_mode=True).async_only_mode
    assert hasattr(litellm, "request_timeout_explicitly_set")
    assert CredentialItem.model_validate({"credential_name": "a", "credential_values": {"api_key": "k"}, "credential_info": {}})


@pytest.mark.parametrize("name", sorted(gateway_keys.LITELLM & {"drop_params", "request_timeout", "fallbacks", "num_retries"}))
def test_settings_of_the_module_are_what_litellm_reads(name: str) -> None:
    assert hasattr(litellm, name)
