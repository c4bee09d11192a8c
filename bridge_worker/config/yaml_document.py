"""The YAML of a config: its files, one tree of them, and where each member of that tree was written.

Owns reading, `include` (merged as the gateway does: lists are joined, anything else is replaced) and what can be wrong with YAML.
Refuses to know what any member means. Imports PyYAML, so it is imported only when there is a file.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from bridge_worker.config.diagnostics import ConfigError, Diagnostic, Report

_INCLUDE = "include"
_MAX_DEPTH = 100  # the gateway resolves references to this depth; deeper is an alias that holds itself


class Document:
    """``tree`` is the merged config; ``files`` are those that it was read from, the given one first."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.files: list[str] = []
        self.tree: dict[str, Any] = {}
        # By id() of each mapping and list of the tree; the container itself is kept so that no other one gets its id.
        self._marks: dict[int, tuple[object, dict[object, tuple[str, int]]]] = {}

    def at(self, *steps: object) -> str:
        """A place as a person finds it: file, line, and the path of members."""
        container: object = self.tree
        place = (self.path, 0)
        for step in steps:
            _, marks = self._marks.get(id(container), (None, {}))
            place = marks.get(step, place)
            try:
                container = container[step]  # type: ignore[index]
            except (KeyError, IndexError, TypeError):
                break
        file, line = place
        return ": ".join(filter(None, (f"{file}:{line}" if line else file, member(*steps))))

    def source(self, *steps: object) -> str:
        """The place without the path of members."""
        return self.at(*steps).removesuffix(f": {member(*steps)}")

    def mark(self, container: object, key: object, file: str, line: int) -> None:
        self._marks.setdefault(id(container), (container, {}))[1][key] = (file, line)

    def take_marks(self, container: object, key: object, of: object, of_key: object) -> None:
        marks = self._marks.get(id(of), (None, {}))[1]
        if of_key in marks:
            self.mark(container, key, *marks[of_key])


def member(*steps: object) -> str:
    """("model_list", 2, "model_name") -> "model_list[2].model_name"."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).lstrip(".")


def read_document(path: str, report: Report) -> Document:
    """The file and what it includes. Raises ConfigError when there is nothing to go on with."""
    document = Document(path)
    try:
        document.tree = _read(path, document, report)
    except _Unreadable as error:
        raise ConfigError(Diagnostic("", str(error), "check --config or OMNI_BRIDGE_CONFIG" if error.missing else "")) from None
    document.files.append(path)
    _include_all(document, report)
    if _height(document.tree, {}) > _MAX_DEPTH:
        raise ConfigError(Diagnostic(path, f"nested deeper than {_MAX_DEPTH}", "does an alias hold itself?"))
    return document


def _include_all(document: Document, report: Report) -> None:
    """Breadth first, each file once, as the gateway does. What can't be read is a mistake, and the rest is read all the same."""
    loaded = {os.path.abspath(document.path)}
    pending = _entries(document, document.tree, document.path, report)
    while pending:
        place, entry, declared_in = pending.pop(0)
        location = _locate(entry, declared_in, document.path, place, report)
        if os.path.abspath(location) in loaded:
            report.note(place, f"{entry} was read already, so it is not read again")
            continue
        loaded.add(os.path.abspath(location))
        try:
            included = _read(location, document, report)
        except _Unreadable as error:
            report.wrong(place, str(error))
            continue
        document.files.append(location)
        pending += _entries(document, included, location, report)
        document.tree = _merged(document, document.tree, included)


def _entries(document: Document, tree: dict[str, Any], file: str, report: Report) -> list[tuple[str, str, str]]:
    """(place, what is included, by which file)."""
    if _INCLUDE not in tree:
        return []
    _, marks = document._marks.get(id(tree), (None, {}))
    place = f"{file}:{marks.get(_INCLUDE, ('', 1))[1]}: {_INCLUDE}"
    entries = tree.pop(_INCLUDE)
    if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
        report.wrong(place, "must be a list of files")
        return []
    return [(place, entry, file) for entry in entries]


def _locate(entry: str, declared_in: str, root: str, place: str, report: Report) -> str:
    """Beside the file that names it; else beside the first file, as older gateways had it."""
    beside, beside_root = (os.path.join(os.path.dirname(file), entry) for file in (declared_in, root))
    if os.path.exists(beside) or not os.path.exists(beside_root):
        return beside
    report.note(place, f"{entry} is not beside this file; {beside_root} is read instead")
    return beside_root


def _merged(document: Document, base: Mapping[str, Any], included: Mapping[str, Any]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for key in (*base, *included):
        ours, theirs = base.get(key), included.get(key)
        if key in included and isinstance(ours, list) and isinstance(theirs, list):
            merged[key] = _joined(document, ours, theirs)
            document.take_marks(merged, key, base, key)
        else:
            source = included if key in included else base
            merged[key] = source[key]
            document.take_marks(merged, key, source, key)
    return merged


def _joined(document: Document, first: list[Any], second: list[Any]) -> list[Any]:
    joined = [*first, *second]
    for position in range(len(first)):
        document.take_marks(joined, position, first, position)
    for position in range(len(second)):
        document.take_marks(joined, len(first) + position, second, position)
    return joined


class _Unreadable(Exception):
    def __init__(self, message: str, *, missing: bool = False) -> None:
        super().__init__(message)
        self.missing = missing


def _read(path: str, document: Document, report: Report) -> dict[str, Any]:
    try:
        text = Path(path).read_text(encoding="utf-8")
        loader = _Loader(text, path, document, report)
        tree = loader.get_single_data()
    except OSError as error:
        raise _Unreadable(f"{path}: can't be read: {error.strerror}", missing=True) from None
    except UnicodeDecodeError as error:
        raise _Unreadable(f"{path}: not UTF-8 at byte {error.start}") from None
    except (yaml.YAMLError, ValueError) as error:  # the second for a number that Python does not read
        mark = getattr(error, "problem_mark", None)
        place = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        raise _Unreadable(f"{path}{place}: not YAML: {getattr(error, 'problem', None) or 'it can not be parsed'}") from None
    except RecursionError:
        raise _Unreadable(f"{path}: nested too deeply") from None
    if not isinstance(tree, dict):
        raise _Unreadable(f"{path}: must be a mapping with model_list, as a LiteLLM gateway's config is")
    return tree


class _Loader(yaml.SafeLoader):
    """Notes the line of each member, and reports a key that a mapping has twice. An unquoted date stays the text that it is written
    as: `api_version: 2024-10-21` is a version."""

    def __init__(self, text: str, path: str, document: Document, report: Report) -> None:
        super().__init__(text)
        self._path, self._document, self._report = path, document, report

    def mapping(self, node: yaml.MappingNode) -> Any:
        data: dict[object, object] = {}
        yield data
        self._tell_twins(node)
        data.update(self.construct_mapping(node))
        for key, _ in node.value:  # with what `<<` brought
            self._document.mark(data, self.construct_object(key), self._path, key.start_mark.line + 1)

    def sequence(self, node: yaml.SequenceNode) -> Any:
        data: list[object] = []
        yield data
        data.extend(self.construct_sequence(node))
        for position, item in enumerate(node.value):
            self._document.mark(data, position, self._path, item.start_mark.line + 1)

    def text(self, node: yaml.ScalarNode) -> str:
        return self.construct_scalar(node)

    def _tell_twins(self, node: yaml.MappingNode) -> None:
        first: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if key.tag == "tag:yaml.org,2002:str" and first.setdefault(key.value, line) != line:
                problem = f"is in line {first[key.value]} too; the last one counts"
                self._report.pass_over(f"{self._path}:{line}: {key.value}", problem, "keep one of them")
                first[key.value] = line


_Loader.add_constructor("tag:yaml.org,2002:map", _Loader.mapping)
_Loader.add_constructor("tag:yaml.org,2002:seq", _Loader.sequence)
_Loader.add_constructor("tag:yaml.org,2002:timestamp", _Loader.text)


def _height(value: object, known: dict[int, float]) -> float:
    """Infinite for an alias that holds itself."""
    if not isinstance(value, dict | list):
        return 0
    if id(value) not in known:
        known[id(value)] = float("inf")  # until it is known: whoever asks meanwhile is inside of it
        members = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + max((_height(member, known) for member in members), default=0)
    return known[id(value)]
