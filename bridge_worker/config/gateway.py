"""Reads the gateway's sections for LiteLLM: deployments, Router, settings of its module, credentials.

Owns which members of a section are supported, and their reading. Refuses to know LiteLLM itself (`backends/litellm/gateway_config`
applies the result) and the bridge's own section.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bridge_worker.config import gateway_keys
from bridge_worker.config.diagnostics import Report, suggestion
from bridge_worker.config.env_references import Resolver
from bridge_worker.config.gateway_checks import Checks, Groups
from bridge_worker.config.yaml_document import Document

_ROUTER_TIMEOUT_SECONDS = 600.0  # the Router's own default is 6,000


@dataclass(frozen=True, slots=True)
class Gateway:
    """``router`` has the keyword arguments of LiteLLM's Router, or None without a model list: any model is then served by its
    LiteLLM name. ``litellm`` has settings of LiteLLM's module, ``places`` the file and line of each deployment, and ``open_hosts``
    the private hosts that URLs of callers may name.
    """

    router: dict[str, Any] | None = None
    litellm: dict[str, Any] = field(default_factory=dict)
    credentials: list[dict[str, Any]] = field(default_factory=list)
    callback_settings: dict[str, Any] = field(default_factory=dict)
    places: tuple[str, ...] = ()
    open_hosts: frozenset[str] = frozenset()


def read_gateway(document: Document, report: Report, resolver: Resolver) -> Gateway:
    reading = _Reading(document, report, resolver)
    reading.checks.names()
    litellm = reading.litellm()
    general = reading.general()
    credentials = reading.credentials()
    router, places = reading.router(litellm, general, {credential["credential_name"] for credential in credentials})
    litellm |= {name: value for name, value in general.items() if name in gateway_keys.GENERAL_LITELLM}
    hosts = reading.open_hosts(litellm)
    return Gateway(router, litellm, credentials, reading.resolved_section("callback_settings"), places, hosts)


class _Reading:
    def __init__(self, document: Document, report: Report, resolver: Resolver) -> None:
        self.checks = Checks(document, report)
        self._document, self._report, self._resolver = document, report, resolver

    def resolved_section(self, name: str) -> dict[str, Any]:
        section: dict[str, Any] = self._resolver.resolved(self.checks.section(name), name)
        return section

    def litellm(self) -> dict[str, Any]:
        served = {}
        for name, value in self.checks.section("litellm_settings").items():
            at = ("litellm_settings", name)
            if name in gateway_keys.LITELLM_IGNORED:
                self._report.ignored.append(f"litellm_settings.{name}")
            elif name not in gateway_keys.LITELLM:
                hint = suggestion(str(name), gateway_keys.LITELLM | gateway_keys.LITELLM_IGNORED)
                self.checks.error("is not a setting of LiteLLM", *at, hint=hint)
            elif value is not None:
                value = self._resolver.resolved(value, *at)
                if name in gateway_keys.CALLBACKS:
                    served[name] = self._callbacks(value, *at)
                elif self.checks.kind(value, gateway_keys.LITELLM_KINDS.get(name, "any"), *at):
                    served[name] = value
        return served

    def _callbacks(self, value: object, *at: object) -> list[str]:
        named = []
        for position, callback in enumerate(value if isinstance(value, list) else [value]):
            if not isinstance(callback, str):
                self.checks.error("must be the name of a callback", *at, position)
            elif "." in callback:  # the gateway would import it from the folder of the config
                self._report.ignored.append(f"litellm_settings.{at[-1]}.{callback} (only installed code runs here)")
            else:
                named.append(callback)
        return named

    def open_hosts(self, litellm: dict[str, Any]) -> frozenset[str]:
        """Removes the settings of LiteLLM's URL check from ``litellm``: the bridge's own policy does the same check."""
        if str(litellm.pop("user_url_validation", True)).strip().lower() == "false":
            place = "litellm_settings.user_url_validation"
            self._report.note(place, "can't be switched off", "list the permitted private hosts in user_url_allowed_hosts")
        hosts = litellm.pop("user_url_allowed_hosts", [])
        return frozenset(str(host).lower() for host in hosts) if isinstance(hosts, list) else frozenset()

    def general(self) -> dict[str, Any]:
        """The supported settings. The others are for a server, or are names that the gateway ignores too."""
        served = {}
        for name, value in self.checks.section("general_settings").items():
            if name in gateway_keys.GENERAL_LITELLM or name in gateway_keys.GENERAL_ROUTER:
                if value is not None:
                    served[name] = self._resolver.resolved(value, "general_settings", name)
            else:
                self._report.ignored.append(f"general_settings.{name}")
        return served

    def credentials(self) -> list[dict[str, Any]]:
        listed = self._document.tree.get("credential_list") or []
        if not isinstance(listed, list):
            self.checks.error("must be a list", "credential_list")
            return []
        served = []
        for position, credential in enumerate(listed):
            at = ("credential_list", position)
            if not isinstance(credential, dict) or not isinstance(credential.get("credential_name"), str):
                self.checks.error("must be a mapping with credential_name and credential_values", *at)
            elif not isinstance(credential.get("credential_values"), dict):
                self.checks.error("credential_values is missing: a mapping of litellm_params", *at)
            else:
                served.append({"credential_info": {}} | self._resolver.resolved(credential, *at))
        return served

    def router(
        self, litellm: Mapping[str, Any], general: Mapping[str, Any], credentials: set[str]
    ) -> tuple[dict[str, Any] | None, tuple[str, ...]]:
        settings = self._router_settings()
        if "model_list" not in self._document.tree:
            if "omni_bridge" not in self._document.tree or self.checks.section("router_settings"):
                self.checks.error("model_list is missing: a list with at least one model")
            return None, ()
        models, places = self._models(credentials)
        groups = Groups(models, settings)
        self.checks.fallbacks(settings, "router_settings", groups)
        self.checks.fallbacks(litellm, "litellm_settings", groups)
        self.checks.aliases(settings, groups)
        passed = {
            gateway_keys.GENERAL_ROUTER[name]: value for name, value in general.items() if name in gateway_keys.GENERAL_ROUTER
        }
        default = {} if "request_timeout" in litellm else {"timeout": _ROUTER_TIMEOUT_SECONDS}
        return default | passed | settings | {"model_list": models}, tuple(places)

    def _router_settings(self) -> dict[str, Any]:
        served = {}
        for name, value in self.checks.section("router_settings").items():
            at = ("router_settings", name)
            if name in gateway_keys.ROUTER_MISPLACED:
                self.checks.error("belongs in general_settings, as in the gateway", *at)
            elif name in gateway_keys.ROUTER_IGNORED:
                self._report.ignored.append(f"router_settings.{name}")
            elif name not in gateway_keys.ROUTER:
                self.checks.error("is not a setting of LiteLLM's Router", *at, hint=suggestion(str(name), gateway_keys.ROUTER))
            elif value is not None:
                value = self._resolver.resolved(value, *at)
                if self.checks.kind(value, gateway_keys.ROUTER[name], *at):
                    served[name] = value
        return served

    def _models(self, credentials: set[str]) -> tuple[list[dict[str, Any]], list[str]]:
        """The deployments, and the file and line of each."""
        listed = self._document.tree["model_list"]
        if not isinstance(listed, list) or not listed:
            self.checks.error("must be a list with at least one model", "model_list")
            return [], []
        models, places = [], []
        for position, model in enumerate(listed):
            if not self.checks.deployment(model, position):
                continue
            places.append(self._document.at("model_list", position))
            models.append(resolved := self._resolver.resolved(model, "model_list", position))
            if resolved.get("model_info") is None:  # an empty section; LiteLLM accepts a mapping or no member
                resolved.pop("model_info", None)
            named = resolved["litellm_params"].get("litellm_credential_name")
            if named is not None and named not in credentials:
                at = ("model_list", position, "litellm_params", "litellm_credential_name")
                hint = suggestion(str(named), credentials)
                self.checks.error(f"{str(named)!r:.100} is not in credential_list", *at, hint=hint)
        return models, places
