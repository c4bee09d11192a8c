"""Reads and validates settings with pydantic-settings: flags override variables, variables override the file.

Owns the conversion of text into values and the text of an error. Refuses to know names and defaults: they are the fields of
`settings.Settings`. It imports pydantic, so it is imported only when a setting is given.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_type_hints

from pydantic import BeforeValidator, Field, PlainValidator, ValidationError, create_model
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from bridge_worker.budgets.limits import read_budgets
from bridge_worker.config.diagnostics import Report, suggestion
from bridge_worker.config.fault_cards import FaultCard, read_fault_cards
from bridge_worker.config.local_models import read_local_models
from bridge_worker.config.settings import FLAGS, PREFIX, SECTION, SETTINGS, Settings, flag, from_environment, variable
from bridge_worker.config.yaml_document import Document
from bridge_worker.errors import MemberError
from bridge_worker.security.url_policy import UrlPolicy

MAX_ENGINES = 64
FORMS = {"match_ignore": re.compile(r"(?:\w+|\*)(?:\.(?:\w+|\*))*")}  # of the names in a list
# Settings with members: (value, folder of the config) -> the setting. Each raises MemberError, or ValueError for the whole value.
READERS: Mapping[str, Callable[[Any, Path], Any]] = {
    "image_policy": lambda value, _: UrlPolicy.from_settings(value),
    "local": read_local_models,
    "budgets": lambda value, _: read_budgets(value),
    "faults": read_fault_cards,
}


def _engines(value: Any) -> int:
    if value == "auto":
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    number = int(value) if isinstance(value, str) and value.isascii() and value.isdigit() else value
    if type(number) is not int or not 0 <= number <= MAX_ENGINES:
        raise ValueError(f"must be auto or a whole number from 0 to {MAX_ENGINES}")
    return number


def validate_settings(flags: Mapping[str, str], document: Document | None, report: Report) -> tuple[Settings, dict[str, str]]:
    """The effective settings, and the source of each. If one has an error, all are the defaults."""
    section = _section(document, report)
    sources = {name: _source(name, flags, document, section) for name in SETTINGS}
    folder = Path(document.path).parent if document else Path()
    try:
        model = _model(section, set(flags), folder)(**dict[str, Any](flags))
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            name = str(detail["loc"][0])
            cause = detail.get("ctx", {}).get("error")
            member = f"{SECTION}.{name}" if sources[name].in_file else ""
            if isinstance(cause, MemberError):
                report.error(_place(sources[name].text, cause.member), cause.problem)
            else:
                report.error(_place(sources[name].text, member), _problem(name, detail["type"], detail.get("ctx", {})))
        return Settings(), {}
    settings = Settings(**{name: getattr(model, name) for name in SETTINGS})
    return settings, {name: source.text or "default" for name, source in sources.items()}


def _section(document: Document | None, report: Report) -> dict[str, Any]:
    if document is None or document.tree.get(SECTION) is None:
        return {}
    section = document.tree[SECTION]
    if not isinstance(section, dict):
        report.error(document.at(SECTION), "must be a mapping")
        return {}
    for name in section.keys() - SETTINGS.keys():
        report.error(document.at(SECTION, name), "is not a setting", suggestion(str(name), SETTINGS))
    return {name: value for name, value in section.items() if name in SETTINGS and value is not None}


class _Source(NamedTuple):
    """``text`` is a flag, a variable, or the file and line of a member; empty for a default."""

    text: str = ""
    in_file: bool = False


def _source(name: str, flags: Mapping[str, str], document: Document | None, section: Mapping[str, Any]) -> _Source:
    if name in flags:
        return _Source(flag(name))
    if name in from_environment():
        return _Source(variable(name))
    return _Source(document.source(SECTION, name), in_file=True) if document and name in section else _Source()


def _place(source: str, member: str) -> str:
    return ": ".join(filter(None, (source, member)))


def _model(section: Mapping[str, Any], flags: set[str], folder: Path) -> type[BaseSettings]:
    class File(PydanticBaseSettingsSource):
        def __call__(self) -> dict[str, Any]:
            # Without this filter pydantic-settings would merge the members of two mappings.
            overridden = flags | from_environment().keys()
            return {name: value for name, value in section.items() if name not in overridden}

        def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
            return section.get(field_name), field_name, False

    class Variables(EnvSettingsSource):
        def __call__(self) -> dict[str, Any]:
            return {name: value for name, value in super().__call__().items() if name in FLAGS and name not in flags}

    class Base(BaseSettings):
        model_config = SettingsConfigDict(
            env_prefix=PREFIX, env_ignore_empty=True, extra="forbid", allow_inf_nan=False, validate_default=False
        )

        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return init_settings, Variables(settings_cls), File(settings_cls)

    hints = get_type_hints(Settings, localns={"FaultCard": FaultCard})
    relative_to_here = flags | from_environment().keys()
    defaults = Settings()
    members: dict[str, Any] = {
        name: (_type(name, hints[name], Path() if name in relative_to_here else folder), getattr(defaults, name))
        for name in SETTINGS
    }
    return create_model("SettingsModel", __base__=Base, **members)


def _type(name: str, hint: Any, folder: Path) -> Any:
    about = SETTINGS[name].metadata
    if name == "engines":
        return Annotated[int, NoDecode, PlainValidator(_engines)]
    if name in READERS:
        return Annotated[Any, NoDecode, PlainValidator(lambda value: READERS[name](_from_json(value, name), folder))]
    if hint == frozenset[str]:
        return Annotated[frozenset[str], NoDecode, BeforeValidator(lambda value: _names(value, about["names"], FORMS.get(name)))]
    if about["choices"]:
        return Literal[about["choices"]]
    if about["least"] is not None:
        number = int if int in (hint, *get_args(hint)) else float
        return Annotated[number, BeforeValidator(_no_flag), Field(ge=about["least"])]
    return hint


def _from_json(value: Any, name: str = "") -> Any:
    """Parses the text of a flag or a variable; a value of the file is already parsed. Fault cards may be in a file."""
    if not isinstance(value, str) or (name == "faults" and not value.lstrip().startswith(("[", "{"))):
        return value
    try:
        return json.loads(value)
    except ValueError:
        raise ValueError("must be a mapping; in a flag or a variable, JSON") from None


def _names(value: Any, known: tuple[str, ...], form: re.Pattern[str] | None = None) -> Any:
    if isinstance(value, str):
        value = _from_json(value) if value.lstrip().startswith("[") else [name.strip() for name in value.split(",") if name.strip()]
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise ValueError("must be a list of names")
    if form is not None and (wrong := sorted(name for name in value if not form.fullmatch(name))):
        raise ValueError(f"{wrong[0]!r:.100} is neither ids, dates nor the path of a member, such as messages.*.name")
    if known and (unknown := sorted(set(value) - set(known))):
        raise ValueError(f"{unknown[0]!r:.100} is unknown; known: {', '.join(known)}")
    return frozenset(value)


def _no_flag(value: Any) -> Any:
    """Turns a flag into text, which is not a number; Python's True would count as 1."""
    return str(value) if isinstance(value, bool) else value


def _problem(name: str, type: str, context: Mapping[str, Any]) -> str:
    if type == "value_error":
        return str(context["error"])
    if type == "literal_error":
        return f"must be one of: {', '.join(SETTINGS[name].metadata['choices'])}"
    if type == "greater_than_equal":
        return f"must be at least {context['ge']:g}"
    if type.startswith("string"):
        return "must be a text"
    return "must be a whole number" if type.startswith("int") else "must be a number"
