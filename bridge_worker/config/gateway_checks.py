"""What can be seen of a gateway's sections before LiteLLM has read them: names, kinds of values, and who refers to whom.

Owns these checks. Refuses to know what LiteLLM makes of a value: that is found when its Router is made.
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

    def wrong(self, problem: str, *steps: object, hint: str = "") -> None:
        self._report.wrong(self._document.at(*steps), problem, hint)

    def note(self, problem: str, *steps: object, hint: str = "") -> None:
        self._report.note(self._document.at(*steps), problem, hint)

    def pass_over(self, problem: str, *steps: object, hint: str = "") -> None:
        self._report.pass_over(self._document.at(*steps), problem, hint)

    def section(self, name: str) -> dict[str, Any]:
        """A mapping of the document; empty where there is none."""
        section = self._document.tree.get(name) or {}
        if not isinstance(section, dict):
            self.wrong("must be a mapping", name)
            return {}
        return section

    def names(self) -> None:
        """Of the sections."""
        for name in self._document.tree:
            if name in gateway_keys.SERVER_SECTIONS:
                self._report.ignored.append(str(name))
            elif name not in gateway_keys.SECTIONS and not str(name).startswith(("x-", "_", ".")):  # where YAML's anchors are kept
                hint = suggestion(str(name), gateway_keys.SECTIONS | gateway_keys.SERVER_SECTIONS)
                self.pass_over("is not a section that the gateway or a worker reads", name, hint=hint)

    def value(self, value: Any, kind: str, *steps: object) -> Any:
        """``value`` as LiteLLM needs it, or None where it is an error. A number may be a text, as a reference's value is."""
        value = as_number(value) if kind in ("whole", "number") else value
        if fault := _fault(value, kind):
            self.wrong(fault, *steps)
            return None
        return value

    def deployment(self, model: object, position: int) -> bool:
        at = ("model_list", position)
        if not isinstance(model, dict):
            self.wrong("must be a mapping with model_name and litellm_params", *at)
            return False
        params, name = model.get("litellm_params"), model.get("model_name")
        if isinstance(name, int | float) and not isinstance(name, bool):
            self.pass_over(f"is a number; it is served as {str(name)!r}", *at, "model_name", hint="put it in quotes")
        elif not isinstance(name, str) or not name:
            self.wrong("model_name is missing: the name that a caller asks for", *at)
            return False
        if not isinstance(params, dict) or not isinstance(params.get("model"), str):
            self.wrong("litellm_params.model is missing: LiteLLM's name, such as openai/gpt-4o-mini", *at)
        elif not isinstance(model.get("model_info") or {}, dict):
            self.wrong("must be a mapping", *at, "model_info")
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
                self.pass_over("goes to the provider as it is", *at, "litellm_params", name, hint=f"did you mean {meant}?")

    def fallbacks(self, settings: Mapping[str, Any], section: str, groups: Groups) -> None:
        for name in _FALLBACKS:
            for position, entry in enumerate(_list(settings.get(name))):
                if not isinstance(entry, dict) or len(entry) != 1:
                    self.wrong("must be a mapping of one model_name to those that stand in for it", section, name, position)
                    continue
                asked, targets = next(iter(entry.items()))
                if not groups.may_be_asked(asked):
                    self.pass_over(groups.missing(asked), section, name, position, asked)
                if not isinstance(targets, list):
                    self.pass_over("is a name; it is taken as a list of one", section, name, position, asked, hint="put it in []")
                    entry[asked] = targets = [targets]
                for target in targets:
                    self._target(target, groups, section, name, position, asked)
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
                self.pass_over(groups.missing(name), *at)
                del aliases[alias]

    def _target(self, target: object, groups: Groups, *steps: object) -> None:
        name = target.get("model") if isinstance(target, dict) else target
        if not isinstance(name, str):
            self.wrong("must be a model_name, or a mapping with one as model", *steps)
        elif name not in groups:
            self.pass_over(groups.missing(name), *steps)


class Groups:
    """The names that the config serves: of deployments, wildcards among them, and aliases."""

    def __init__(self, models: Collection[Mapping[str, Any]], settings: Mapping[str, Any]) -> None:
        aliases = settings.get("model_group_alias")
        self._names = {str(model["model_name"]) for model in models} | set(aliases if isinstance(aliases, dict) else ())
        self._ids = {str((model.get("model_info") or {}).get("id")) for model in models}  # a deployment may be named by its id

    def __contains__(self, name: str) -> bool:
        """Also a bare name beside a wildcard: which provider LiteLLM finds for it is not known here."""
        patterns = list(self._wildcards())
        return name in self._names or name in self._ids or any(fnmatchcase(name, one) or "/" not in name for one in patterns)

    def may_be_asked(self, name: object) -> bool:
        """Whether a fallback for it can ever be used: LiteLLM compares names also without their provider."""
        if not isinstance(name, str):
            return False
        bare = any(known.partition("/")[2] in (name, "*") for known in self._names if "/" in known)
        return name == "*" or name in self or bare or name.partition("/")[2] in self._names

    def missing(self, name: object) -> str:
        return f"there is no {str(name)!r:.100} in model_list; {suggestion(str(name), self._names)}"

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
    """A letter more, less or other; `max_token` and `mex_tokens`, but not `seed` and `speed_limit`."""
    longer, shorter = sorted((name, known), key=len, reverse=True)
    if len(longer) - len(shorter) > 1:
        return False
    same = next((at for at, (one, other) in enumerate(zip(longer, shorter, strict=False)) if one != other), len(shorter))
    return longer[same + 1 :] in (shorter[same + 1 :], shorter[same:]) or sorted(longer) == sorted(shorter)


def _fault(value: object, kind: str) -> str:
    match kind:
        case "flag" if not isinstance(value, bool) and str(value).strip().lower() not in ("true", "false"):
            return "must be true or false"
        case "whole" if isinstance(value, bool) or not isinstance(value, int):
            return "must be a whole number"
        case "number" if isinstance(value, bool) or not isinstance(value, int | float):
            return "must be a number"
        case "text" if not isinstance(value, str):
            return "must be a text"
        case "list" if not isinstance(value, list):
            return "must be a list"
        case "mapping" if not isinstance(value, dict):
            return "must be a mapping"
        case "strategy" if not isinstance(value, str) or value not in gateway_keys.STRATEGIES:
            return f"there is no such strategy; {suggestion(str(value), gateway_keys.STRATEGIES)}"
    return ""
