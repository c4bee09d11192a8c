"""Checks a gateway's sections before LiteLLM reads them: names, types of values, and references between models.

Owns these checks. Refuses to know LiteLLM's own validation, which happens when its Router is made.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

from bridge_worker.config import gateway_keys
from bridge_worker.config.diagnostics import Report, nearest, suggestion
from bridge_worker.config.yaml_document import Document

_NUMBER = re.compile(r"-?\d{1,15}(?:\.\d{1,15})?")
_FALLBACKS = ("fallbacks", "context_window_fallbacks", "content_policy_fallbacks")


class Checks:
    """Over one document, into one report."""

    def __init__(self, document: Document, report: Report) -> None:
        self._document, self._report = document, report

    def error(self, problem: str, *steps: object, hint: str = "") -> None:
        self._report.error(self._document.at(*steps), problem, hint)

    def note(self, problem: str, *steps: object, hint: str = "") -> None:
        self._report.note(self._document.at(*steps), problem, hint)

    def pass_over(self, problem: str, *steps: object, hint: str = "") -> None:
        self._report.pass_over(self._document.at(*steps), problem, hint)

    def section(self, name: str) -> dict[str, Any]:
        """A section of the document as a mapping; empty if it is missing."""
        section = self._document.tree.get(name) or {}
        if not isinstance(section, dict):
            self.error("must be a mapping", name)
            return {}
        return section

    def names(self) -> None:
        """Checks the names of the sections."""
        for name in self._document.tree:
            if name in gateway_keys.SERVER_SECTIONS:
                self._report.ignored.append(str(name))
            elif name not in gateway_keys.SECTIONS and not str(name).startswith(("x-", "_", ".")):  # sections for YAML anchors
                hint = suggestion(str(name), gateway_keys.SECTIONS | gateway_keys.SERVER_SECTIONS)
                self.pass_over("is not a section that the gateway or a worker reads", name, hint=hint)

    def value(self, value: Any, kind: str, *steps: object) -> Any:
        """``value`` as LiteLLM needs it, or None if it is an error. A number may be a text, as a reference's value is."""
        value = as_number(value) if kind in ("whole", "number") else value
        problem, hint = _type_problem(value, kind)
        if problem:
            self.error(problem, *steps, hint=hint)
            return None
        return value

    def deployment(self, model: object, position: int) -> bool:
        at = ("model_list", position)
        if not isinstance(model, dict):
            self.error("must be a mapping with model_name and litellm_params", *at)
            return False
        params, name = model.get("litellm_params"), model.get("model_name")
        if isinstance(name, int | float) and not isinstance(name, bool):
            self.pass_over(f"is a number; it is served as {str(name)!r}", *at, "model_name", hint="put it in quotes")
        elif not isinstance(name, str) or not name:
            self.error("model_name is missing: the model's name in requests", *at)
            return False
        if not isinstance(params, dict) or not isinstance(params.get("model"), str):
            self.error("litellm_params.model is missing: LiteLLM's name, such as openai/gpt-4o-mini", *at)
        elif not isinstance(model.get("model_info") or {}, dict):
            self.error("must be a mapping", *at, "model_info")
        else:
            self._members(model, params, at)
            return True
        return False

    def _members(self, model: Mapping[str, Any], params: Mapping[str, Any], at: tuple[object, ...]) -> None:
        for name in model.keys() - gateway_keys.DEPLOYMENT:
            hint = "belongs in litellm_params" if name in gateway_keys.PARAMS else suggestion(str(name), gateway_keys.DEPLOYMENT)
            self.pass_over("has no effect here", *at, name, hint=hint)
        for name in params.keys() - gateway_keys.PARAMS:
            meant = nearest(str(name), gateway_keys.PARAMS)
            if meant is not None and len(str(name)) > 4 and _close(str(name), meant):
                self.pass_over("is passed to the provider unchanged", *at, "litellm_params", name, hint=f"did you mean {meant}?")

    def fallbacks(self, settings: Mapping[str, Any], section: str, groups: Groups) -> None:
        for name in _FALLBACKS:
            for position, entry in enumerate(_list(settings.get(name))):
                if not isinstance(entry, dict) or len(entry) != 1:
                    self.error("must be a mapping of one model_name to a list of its fallbacks", section, name, position)
                    continue
                source, targets = next(iter(entry.items()))
                if not groups.can_have_fallback(source):
                    self._missing(source, groups, section, name, position, source)
                if not isinstance(targets, list):
                    self.pass_over("is a name; it is read as a list of one", section, name, position, source, hint="put it in []")
                    entry[source] = targets = [targets]
                for target in targets:
                    self._target(target, groups, section, name, position, source)
        for position, target in enumerate(_list(settings.get("default_fallbacks"))):
            self._target(target, groups, section, "default_fallbacks", position)

    def aliases(self, settings: Mapping[str, Any], groups: Groups) -> None:
        """Takes out those that name no single model: a request for one gets ``model_not_found``, the others are served."""
        aliases = settings.get("model_group_alias") or {}
        for alias, target in list(aliases.items()):
            name = target.get("model") if isinstance(target, dict) else target
            at = ("router_settings", "model_group_alias", alias)
            if not isinstance(name, str):
                self.pass_over("is not served: an alias names one model_name, or a mapping with one as model", *at)
                del aliases[alias]
            elif name not in groups:
                self._missing(name, groups, *at)
                del aliases[alias]

    def _target(self, target: object, groups: Groups, *steps: object) -> None:
        name = target.get("model") if isinstance(target, dict) else target
        if not isinstance(name, str):
            self.error("must be a model_name, or a mapping with one as model", *steps)
        elif name not in groups:
            self._missing(name, groups, *steps)

    def _missing(self, name: object, groups: Groups, *steps: object) -> None:
        self.pass_over(f"{str(name)!r:.100} is not in model_list", *steps, hint=suggestion(str(name), groups.names))


class Groups:
    """The names that the config serves: of deployments, including wildcards, and of aliases."""

    def __init__(self, models: Collection[Mapping[str, Any]], settings: Mapping[str, Any]) -> None:
        aliases = settings.get("model_group_alias")
        self._names = {str(model["model_name"]) for model in models} | set(aliases if isinstance(aliases, dict) else ())
        self._ids = {str((model.get("model_info") or {}).get("id")) for model in models}  # a deployment may be named by its id

    def __contains__(self, name: str) -> bool:
        """With a wildcard also any bare name, because the provider that LiteLLM finds for it is unknown here."""
        patterns = list(self._wildcards())
        return name in self._names or name in self._ids or any(fnmatchcase(name, one) or "/" not in name for one in patterns)

    def can_have_fallback(self, name: object) -> bool:
        """Whether a fallback for ``name`` can ever be used: LiteLLM also compares names without their provider."""
        if not isinstance(name, str):
            return False
        bare = any(known.partition("/")[2] in (name, "*") for known in self._names if "/" in known)
        return name == "*" or name in self or bare or name.partition("/")[2] in self._names

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self._names)

    def _wildcards(self) -> Iterator[str]:
        return (name for name in self._names if "*" in name)


def as_number(value: Any) -> Any:
    """``"3"`` and ``" 2.5 "`` as numbers; anything else as it is."""
    if not isinstance(value, str) or not _NUMBER.fullmatch(value.strip()):
        return value
    return float(value) if "." in value else int(value)


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _close(name: str, known: str) -> bool:
    """Whether the names differ by one letter or two swapped ones: `max_token` and `mex_tokens`, not `seed` and `speed_limit`."""
    longer, shorter = sorted((name, known), key=len, reverse=True)
    if len(longer) - len(shorter) > 1:
        return False
    same = next((at for at, (one, other) in enumerate(zip(longer, shorter, strict=False)) if one != other), len(shorter))
    return longer[same + 1 :] in (shorter[same + 1 :], shorter[same:]) or sorted(longer) == sorted(shorter)


def _type_problem(value: object, kind: str) -> tuple[str, str]:
    """(problem, hint); both empty if ``value`` is of the kind."""
    match kind:
        case "flag" if not isinstance(value, bool) and str(value).strip().lower() not in ("true", "false"):
            return "must be true or false", ""
        case "whole" if isinstance(value, bool) or not isinstance(value, int):
            return "must be a whole number", ""
        case "number" if isinstance(value, bool) or not isinstance(value, int | float):
            return "must be a number", ""
        case "text" if not isinstance(value, str):
            return "must be a text", ""
        case "list" if not isinstance(value, list):
            return "must be a list", ""
        case "mapping" if not isinstance(value, dict):
            return "must be a mapping", ""
        case "strategy" if not isinstance(value, str) or value not in gateway_keys.STRATEGIES:
            return "is not a routing strategy", suggestion(str(value), gateway_keys.STRATEGIES)
    return "", ""
