"""The gateway's YAML file: what of it the bridge serves, and what is wrong with it, before anything is started.

Owns reading and checking. Refuses to import LiteLLM: a mistake in the file is told in a tenth of a second, on one line. What of
``litellm_settings`` and the rest applies is said once, as a warning.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bridge_worker.local_models import LocalModel, read_local_models
from bridge_worker.urls import UrlPolicy

_ENVIRONMENT = "os.environ/"
_SERVED = {"model_list", "router_settings", "omni_bridge"}
_OWN = ("provider_params", "image_policy", "local")
_ROUTER_TIMEOUT_SECONDS = 600.0  # the Router's own default is 6,000


class ConfigError(Exception):
    """One line that names the place and the remedy."""


@dataclass(frozen=True, slots=True)
class Config:
    """``router`` are the keyword arguments of LiteLLM's Router, None without a model list: any model is then served by its LiteLLM
    name. ``local`` are the models of this machine, by name.

    ``secrets`` are the values that references to the environment and keys in the file stand for; ``ignored`` its sections that
    the bridge does not serve; ``writable`` says who else may change the file, "" for nobody.
    """

    router: dict[str, Any] | None = None
    provider_params: frozenset[str] = frozenset()
    secrets: tuple[str, ...] = ()
    ignored: tuple[str, ...] = field(default=())
    image_policy: UrlPolicy = field(default_factory=UrlPolicy)
    writable: str = ""
    local: dict[str, LocalModel] = field(default_factory=dict)


def load_config(path: str | None) -> Config:
    """Raises ConfigError."""
    if not path:
        return Config()
    document = _read(path)
    bridge = _mapping(path, document, "omni_bridge")
    local = _local(path, bridge)
    router = _router(path, document) if "model_list" in document or not local else None
    if unknown := set(bridge) - set(_OWN):
        raise ConfigError(f"{path}: omni_bridge.{sorted(map(str, unknown))[0]} is not a setting; there are: {', '.join(_OWN)}")
    provider_params = bridge.get("provider_params") or []
    if not isinstance(provider_params, list) or not all(isinstance(name, str) for name in provider_params):
        raise ConfigError(f"{path}: omni_bridge.provider_params must be a list of names")
    return Config(
        router=router,
        provider_params=frozenset(provider_params),
        secrets=tuple(_secrets(router["model_list"] if router else [])),
        ignored=tuple(sorted(map(str, set(document) - _SERVED))),
        image_policy=_image_policy(path, bridge),
        writable=_writable_by_others(path),
        local=local,
    )


def _router(path: str, document: Mapping[str, Any]) -> dict[str, Any]:
    models = document.get("model_list")
    if not isinstance(models, list) or not models:
        raise ConfigError(f"{path}: model_list must be a list with at least one model")
    for position, model in enumerate(models):
        _check_deployment(f"{path}: model_list[{position}]", model)
    settings = _mapping(path, document, "router_settings")
    router: dict[str, Any] = _resolved({"timeout": _ROUTER_TIMEOUT_SECONDS} | settings | {"model_list": models}, path)
    return router


def _local(path: str, bridge: Mapping[str, Any]) -> dict[str, LocalModel]:
    try:
        return read_local_models(bridge["local"], Path(path).parent) if bridge.get("local") is not None else {}
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from None


def _image_policy(path: str, bridge: dict[str, Any]) -> UrlPolicy:
    try:
        return UrlPolicy.from_settings(bridge.get("image_policy") or {})
    except ValueError as error:
        raise ConfigError(f"{path}: omni_bridge.image_policy: {error}") from None


def _writable_by_others(path: str) -> str:
    """Who may write to the file sees every prompt and, through an api_base, every key."""
    try:
        status = Path(path).stat()
    except OSError:
        return ""
    if os.name != "posix":  # there the mode says nothing
        return ""
    if status.st_uid not in (0, os.getuid()):
        return "its owner, who is neither root nor the user of this process"
    return "everybody" if status.st_mode & 0o002 else "its group" if status.st_mode & 0o020 else ""


def _read(path: str) -> dict[str, Any]:
    import yaml  # 25 ms that a start without a config need not pay

    try:
        document = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: can't be read: {error.strerror}; check --config or OMNI_BRIDGE_CONFIG") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 at byte {error.start}") from None
    except (yaml.YAMLError, ValueError) as error:  # the second for a date that there is not
        mark = getattr(error, "problem_mark", None)
        place = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        raise ConfigError(f"{path}{place}: not YAML: {getattr(error, 'problem', None) or 'it can not be parsed'}") from None
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: must be a mapping with model_list, as a LiteLLM gateway's config is")
    return document


def _mapping(path: str, document: Mapping[str, Any], name: str) -> dict[str, Any]:
    section = document.get(name) or {}
    if not isinstance(section, dict):
        raise ConfigError(f"{path}: {name} must be a mapping")
    return section


def _check_deployment(place: str, model: object) -> None:
    if not isinstance(model, dict):
        raise ConfigError(f"{place}: must be a mapping with model_name and litellm_params")
    if not isinstance(model.get("model_name"), str):
        raise ConfigError(f"{place}: model_name is missing: the name that a caller asks for")
    if not isinstance(params := model.get("litellm_params"), dict) or not isinstance(params.get("model"), str):
        raise ConfigError(f"{place}: litellm_params.model is missing: LiteLLM's name, such as openai/gpt-4o-mini")


def _resolved(value: Any, place: str) -> Any:
    """With each ``os.environ/NAME`` replaced by the variable's value."""
    if isinstance(value, dict):
        return {name: _resolved(member, f"{place}.{name}") for name, member in value.items()}
    if isinstance(value, list):
        return [_resolved(member, f"{place}[{position}]") for position, member in enumerate(value)]
    if not isinstance(value, str) or not value.startswith(_ENVIRONMENT):
        return value
    name = value.removeprefix(_ENVIRONMENT)
    if name not in os.environ:
        raise ConfigError(f"{place}: refers to the environment variable {name}, which is not set")
    return os.environ[name]


def _secrets(models: list[dict[str, Any]]) -> Iterator[str]:
    for model in models:
        for name, value in model["litellm_params"].items():
            if isinstance(value, str) and any(word in name for word in ("key", "token", "secret", "password", "credential")):
                yield value
