"""Reads the gateway's sections for LiteLLM: deployments, Router, settings of its module, credentials.

Owns which members of a section are supported, and their reading. Refuses to know LiteLLM itself (`backends/litellm/gateway_config`
applies the result) and the bridge's own section.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bridge_worker.config import gateway_keys, unusable
from bridge_worker.config.diagnostics import Report, suggestion
from bridge_worker.config.env_references import Missing, Resolver
from bridge_worker.config.gateway_checks import Checks, Groups, as_number
from bridge_worker.config.yaml_document import Document

Credentials = Mapping[str, dict[str, Any]]  # values by credential_name

_ROUTER_TIMEOUT_SECONDS = 600.0  # the Router's own default is 6,000


@dataclass(frozen=True, slots=True)
class Gateway:
    """``router`` has the keyword arguments of LiteLLM's Router, or None without a model list: any model is then served by its
    LiteLLM name. ``litellm`` has settings of LiteLLM's module, ``places`` the file and line of each deployment, and ``open_hosts``
    the private hosts that URLs of callers may name. ``completion_model`` serves each chat, whatever model it requests.
    ``folder`` is the file's folder, with the operator's own code; ``settings_at`` has the position of each of litellm_settings.
    """

    router: dict[str, Any] | None = None
    litellm: dict[str, Any] = field(default_factory=dict)
    credentials: list[dict[str, Any]] = field(default_factory=list)
    callback_settings: dict[str, Any] = field(default_factory=dict)
    places: tuple[str, ...] = ()
    open_hosts: frozenset[str] = frozenset()
    completion_model: str | None = None
    folder: str = ""
    settings_at: Mapping[str, str] = field(default_factory=dict)

    @property
    def needs_completion(self) -> bool:
        """Whether chats need LiteLLM's own completion: for a callback, a cache, a budget, or a setting that works in it."""
        names = (*gateway_keys.CALLBACKS, *gateway_keys.OF_COMPLETION, "cache", "max_budget")
        return any(self.litellm.get(name) for name in names)


def read_gateway(document: Document, report: Report, resolver: Resolver) -> Gateway:
    reading = _Reading(document, report, resolver)
    reading.checks.names()
    litellm = reading.litellm()
    general = reading.general()
    credentials = reading.credentials()
    values = {credential["credential_name"]: credential["credential_values"] for credential in credentials}
    router, places = reading.router(litellm, general, values)
    litellm |= {name: value for name, value in general.items() if name in gateway_keys.GENERAL_LITELLM}
    hosts = reading.open_hosts(litellm)
    callbacks = reading.resolved_section("callback_settings")
    at = {name: document.at("litellm_settings", name) for name in litellm}
    folder = os.path.dirname(os.path.abspath(document.path))
    return Gateway(router, litellm, credentials, callbacks, places, hosts, general.get(gateway_keys.COMPLETION_MODEL), folder, at)


class _Reading:
    def __init__(self, document: Document, report: Report, resolver: Resolver) -> None:
        self.checks = Checks(document, report)
        self._document, self._report, self._resolver = document, report, resolver

    def resolved_section(self, name: str) -> dict[str, Any]:
        section: dict[str, Any] = self._resolver.resolved(self.checks.section(name), name)
        return section

    def litellm(self) -> dict[str, Any]:
        served: dict[str, Any] = {}
        for name, value in self.checks.section("litellm_settings").items():
            at = ("litellm_settings", name)
            if name in gateway_keys.LITELLM_IGNORED:
                self._report.ignored.append(f"litellm_settings.{name}")
            elif name not in gateway_keys.LITELLM:
                hint = suggestion(str(name), gateway_keys.LITELLM | gateway_keys.LITELLM_IGNORED)
                self.checks.pass_over("is not a setting of LiteLLM", *at, hint=hint)
            elif value is not None:
                value = self._resolver.resolved(value, *at)
                if name in gateway_keys.CALLBACKS:
                    served[name] = self._callbacks(value, *at)
                elif value is not None:
                    value = self.checks.value(value, gateway_keys.LITELLM_KINDS.get(name, "any"), *at)
                    served |= {} if value is None else {name: value}
        return served

    def _callbacks(self, value: object, *at: object) -> list[str]:
        named = []
        for position, callback in enumerate(value if isinstance(value, list) else [value]):
            if not isinstance(callback, str):
                self.checks.error("must be the name of a callback", *at, position)
            elif callback in gateway_keys.CALLBACKS_OF_A_SERVER:
                self._report.ignored.append(f"litellm_settings.{at[-1]}.{callback} (for a server)")
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
            if name in gateway_keys.GENERAL_LITELLM or name in gateway_keys.GENERAL_ROUTER or name == gateway_keys.COMPLETION_MODEL:
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
        self, litellm: Mapping[str, Any], general: Mapping[str, Any], credentials: Credentials
    ) -> tuple[dict[str, Any] | None, tuple[str, ...]]:
        settings = self._router_settings()
        if "model_list" not in self._document.tree:
            if "omni_bridge" not in self._document.tree or self.checks.section("router_settings"):
                self.checks.error("model_list is missing", hint="models of a gateway's database are not read")
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
        served: dict[str, Any] = {}
        for name, value in self.checks.section("router_settings").items():
            at = ("router_settings", name)
            if name in gateway_keys.ROUTER_MISPLACED:
                self.checks.error("belongs in general_settings, as in the gateway", *at)
            elif name in gateway_keys.ROUTER_IGNORED:
                self._report.ignored.append(f"router_settings.{name}")
            elif name not in gateway_keys.ROUTER:
                self.checks.pass_over("is not a setting of LiteLLM's Router", *at, hint=suggestion(str(name), gateway_keys.ROUTER))
            elif value is not None and (value := self._resolver.resolved(value, *at)) is not None:
                value = self.checks.value(value, gateway_keys.ROUTER[name], *at)
                served |= {} if value is None else {name: value}
        return served

    def _unset(self, *at: object) -> dict[str, Missing]:
        """The members there that refer to what is not there."""
        return {str(steps[-1]): missing for steps, missing in self._resolver.unset.items() if steps[:-1] == at}

    def _unset_of_credential(self, named: object) -> dict[str, Missing]:
        listed = self._document.tree.get("credential_list") or []
        positions = [place for place, one in enumerate(listed) if isinstance(one, dict) and one.get("credential_name") == named]
        return self._unset("credential_list", positions[-1], "credential_values") if positions else {}

    def _models(self, credentials: Credentials) -> tuple[list[dict[str, Any]], list[str]]:
        """The deployments, and where each is written."""
        listed = self._document.tree["model_list"] or []
        if not isinstance(listed, list):
            self.checks.error("must be a list of models", "model_list")
            return [], []
        if not listed:
            self.checks.pass_over("is empty: no model of a provider is served, as in the gateway", "model_list")
        models, places = [], []
        for position, model in enumerate(listed):
            if not self.checks.deployment(model, position):
                continue
            places.append(self._document.at("model_list", position))
            models.append(self._deployment(model, credentials, "model_list", position))
        return models, places

    def _deployment(self, model: Mapping[str, Any], credentials: Credentials, *at: object) -> dict[str, Any]:
        resolved: dict[str, Any] = self._resolver.resolved(model, *at)
        params = {name: value for name, value in resolved["litellm_params"].items() if value is not None}
        params |= {name: as_number(params[name]) for name in gateway_keys.NUMBERS & params.keys()}
        prefix = (*at, "litellm_params")
        named = params.get("litellm_credential_name")
        credential = credentials.get(named, {}) if isinstance(named, str) else {}
        why = unusable.reason(credential | params, self._unset(*prefix) | self._unset_of_credential(named))
        if named is not None and named not in credentials:
            missing = f"{str(named)!r:.100} is not in credential_list"
            why = f"litellm_credential_name: {missing}"
            self.checks.pass_over(missing, *prefix, "litellm_credential_name", hint=suggestion(str(named), credentials))
        info = dict(resolved.get("model_info") or {}) | ({unusable.MARK: why} if why else {})
        if "base_model" in params and not info.get("base_model"):  # LiteLLM looks for it in both; prices by model_info's
            info["base_model"] = params["base_model"]
        made = {name: value for name, value in resolved.items() if name != "model_info"}
        return made | {"model_name": str(model["model_name"]), "litellm_params": params} | ({"model_info": info} if info else {})
