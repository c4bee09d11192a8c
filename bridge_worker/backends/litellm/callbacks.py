"""Turns on the callbacks that a gateway's config names, by LiteLLM's names for them or as the operator's own code.

Owns which of them need a package, and what is reported of one that is not served. Refuses to turn one off: LiteLLM keeps copies
of it in many lists.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from typing import Any

import litellm
from litellm.integrations.custom_logger import CustomLogger

from bridge_worker.backends.litellm import operator_code
from bridge_worker.config.diagnostics import Diagnostic, suggestion
from bridge_worker.config.gateway import Gateway
from bridge_worker.config.gateway_keys import CALLBACKS

# Callbacks that need a package which LiteLLM does not bring, by its top module. A canary test holds the names against LiteLLM's.
PACKAGES = {
    "agentops": "opentelemetry",
    "argilla": "argilla",
    "arize": "opentelemetry",
    "arize_phoenix": "opentelemetry",
    "azure_storage": "azure",
    "dynamodb": "boto3",
    "langfuse": "langfuse",
    "langfuse_otel": "opentelemetry",
    "langtrace": "opentelemetry",
    "levo": "opentelemetry",
    "logfire": "opentelemetry",
    "lunary": "lunary",
    "mlflow": "mlflow",
    "otel": "opentelemetry",
    "s3": "boto3",
    "sentry": "sentry_sdk",
    "signoz": "opentelemetry",
    "supabase": "supabase",
    "traceloop": "traceloop",
    "wandb": "wandb",
    "weave_otel": "opentelemetry",
}
# What to install for a module that is part of a package with another name.
_INSTALLS = {
    "opentelemetry": "omni-bridge[otel]",
    "azure": "azure-storage-file-datalake",
    "sentry_sdk": "sentry-sdk",
    "traceloop": "traceloop-sdk",
}
# Those of LiteLLM's older kind, of which it has no list.
OLDER = frozenset("athina dynamodb greenscale helicone lunary promptlayer s3 sentry supabase traceloop wandb".split())


def add(gateway: Gateway) -> Iterator[Diagnostic]:
    """Yields what is not served."""
    known = {*litellm._known_custom_logger_compatible_callbacks, *OLDER}  # PRIVATE: no other place lists them
    manager = litellm.logging_callback_manager
    lists: Mapping[str, Callable[[Any], None]] = {
        "callbacks": manager.add_litellm_callback,
        "success_callback": manager.add_litellm_success_callback,
        "failure_callback": manager.add_litellm_failure_callback,
    }
    for setting in CALLBACKS:
        place = gateway.settings_at.get(setting, f"litellm_settings.{setting}")
        for name in gateway.litellm.get(setting, ()):
            package = PACKAGES.get(name)
            if "." in name:
                yield from _add_code(name, setting, place, gateway.folder, lists[setting])
            elif name not in known:
                yield unserved(place, f"unknown callback {name!r}", suggestion(name, known))
            elif package and find_spec(package) is None:
                install = f"pip install {_INSTALLS.get(package, package)!r}"
                yield unserved(place, f"{name} needs the package {package}, which is not installed", install)
            else:
                lists[setting](name)


def _add_code(name: str, setting: str, place: str, folder: str, put: Callable[[Any], None]) -> Iterator[Diagnostic]:
    try:
        loaded = operator_code.load(name, folder)
    except operator_code.NotLoaded as error:
        yield unserved(place, f"{name} can't be loaded: {error}")
        return
    if isinstance(loaded, type):
        yield unserved(place, f"{name} is a class", "name an instance of it, such as proxy_handler_instance = Handler()")
    elif isinstance(loaded, CustomLogger) or callable(loaded):
        put(loaded)
    else:
        yield unserved(place, f"{name} is neither a CustomLogger nor a function")


def providers(gateway: Gateway) -> tuple[list[dict[str, Any]], list[Diagnostic]]:
    """Of `custom_provider_map`: the entries for LiteLLM, and what is not served."""
    place = gateway.settings_at.get("custom_provider_map", "litellm_settings.custom_provider_map")
    entries, wrong = [], []
    for entry in gateway.litellm.get("custom_provider_map") or []:
        try:
            handler = operator_code.load(str(entry["custom_handler"]), gateway.folder)
            entries.append({"provider": str(entry["provider"]), "custom_handler": handler})
        except (KeyError, TypeError):
            wrong.append(unserved(place, "an entry is a mapping with provider and custom_handler"))
        except operator_code.NotLoaded as error:
            wrong.append(unserved(place, f"{entry['custom_handler']} can't be loaded: {error}"))
    return entries, wrong


def unserved(place: str, problem: str, hint: str = "") -> Diagnostic:
    return Diagnostic(place, problem, hint, strict=True)
