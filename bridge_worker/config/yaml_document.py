"""Reads the YAML of a config: its files, merged into one tree, and the file and line of each member.

Owns reading, `include` (merged as in the gateway: lists are joined, other values replaced) and errors in YAML. Refuses to know what
a member means. It imports PyYAML, so it is imported only when a config file is given.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from bridge_worker.config.diagnostics import ConfigError, Diagnostic, Report

_INCLUDE = "include"
_MAX_DEPTH = 100  # the gateway resolves references to this depth; a deeper tree has an alias that contains itself


class Document:
    """``tree`` is the merged config; ``files`` are the files that it was read from, the given one first."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.files: list[str] = []
        self.tree: dict[str, Any] = {}
        # By id() of each mapping and list of the tree. The container is kept, so that no other object gets the same id.
        self._marks: dict[int, tuple[object, dict[object, tuple[str, int]]]] = {}

    def at(self, *steps: object) -> str:
        """The position of a member as text: file, line, and the path of members."""
        return ": ".join(filter(None, (self.source(*steps), member(*steps))))

    def source(self, *steps: object) -> str:
        """The file and line of a member. A member that does not exist has the line of the nearest container."""
        container: object = self.tree
        file, line = self.path, 0
        for step in steps:
            _, marks = self._marks.get(id(container), (None, {}))
            file, line = marks.get(step, (file, line))
            try:
                container = container[step]  # type: ignore[index]
            except (KeyError, IndexError, TypeError):
                break
        return f"{file}:{line}" if line else file

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
    """Reads the file and its includes. Raises ConfigError if no tree can be read."""
    document = Document(path)
    try:
        document.tree = _read(path, document, report)
    except _Unreadable as error:
        raise ConfigError(error.diagnostic) from None
    document.files.append(path)
    _include_all(document, report)
    if _height(document.tree, {}) > _MAX_DEPTH:
        raise ConfigError(Diagnostic(path, f"nested deeper than {_MAX_DEPTH}", "look for an alias that contains itself"))
    return document


def _include_all(document: Document, report: Report) -> None:
    """Reads includes breadth first, each file once, as the gateway does. An unreadable file is an error; the others are read."""
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
            report.error(place, str(error.diagnostic))
            continue
        document.files.append(location)
        pending += _entries(document, included, location, report)
        document.tree = _merged(document, document.tree, included)


def _entries(document: Document, tree: dict[str, Any], file: str, report: Report) -> list[tuple[str, str, str]]:
    """(place, included file, including file) of each entry."""
    if _INCLUDE not in tree:
        return []
    _, marks = document._marks.get(id(tree), (None, {}))
    place = f"{file}:{marks.get(_INCLUDE, ('', 1))[1]}: {_INCLUDE}"
    entries = tree.pop(_INCLUDE)
    if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
        report.error(place, "must be a list of files")
        return []
    return [(place, entry, file) for entry in entries]


def _locate(entry: str, declared_in: str, root: str, place: str, report: Report) -> str:
    """Looks in the folder of the including file, then, as older gateways did, in the folder of the first file."""
    own, in_root = (os.path.join(os.path.dirname(file), entry) for file in (declared_in, root))
    if os.path.exists(own) or not os.path.exists(in_root):
        return own
    report.note(place, f"{entry} is not in the folder of this file; {in_root} is read instead")
    return in_root


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
    def __init__(self, place: str, problem: str, hint: str = "") -> None:
        self.diagnostic = Diagnostic(place, problem, hint)
        super().__init__(str(self.diagnostic))


def _read(path: str, document: Document, report: Report) -> dict[str, Any]:
    try:
        text = Path(path).read_text(encoding="utf-8")
        loader = _Loader(text, path, document, report)
        tree = loader.get_single_data()
    except OSError as error:
        hint = "check --config or OMNI_BRIDGE_CONFIG" if path == document.path else ""
        raise _Unreadable(path, f"can't be read: {error.strerror}", hint) from None
    except UnicodeDecodeError as error:
        raise _Unreadable(path, f"not UTF-8 at byte {error.start}") from None
    except (yaml.YAMLError, ValueError) as error:  # PyYAML raises ValueError for a number that Python does not read
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else path
        raise _Unreadable(place, f"not YAML: {getattr(error, 'problem', None) or 'it can not be parsed'}") from None
    except RecursionError:
        raise _Unreadable(path, "nested too deeply") from None
    if not isinstance(tree, dict):
        raise _Unreadable(path, "must be a mapping with model_list, as a LiteLLM gateway's config is")
    return tree


class _Loader(yaml.SafeLoader):
    """Records the line of each member, and reports a key that a mapping has twice. An unquoted date stays text as it is written:
    `api_version: 2024-10-21` is a version."""

    def __init__(self, text: str, path: str, document: Document, report: Report) -> None:
        super().__init__(text)
        self._path, self._document, self._report = path, document, report

    def mapping(self, node: yaml.MappingNode) -> Any:
        data: dict[object, object] = {}
        yield data
        self._report_duplicates(node)
        data.update(self.construct_mapping(node))
        for key, _ in node.value:  # includes the members merged by `<<`
            self._document.mark(data, self.construct_object(key), self._path, key.start_mark.line + 1)

    def sequence(self, node: yaml.SequenceNode) -> Any:
        data: list[object] = []
        yield data
        data.extend(self.construct_sequence(node))
        for position, item in enumerate(node.value):
            self._document.mark(data, position, self._path, item.start_mark.line + 1)

    def text(self, node: yaml.ScalarNode) -> str:
        return self.construct_scalar(node)

    def _report_duplicates(self, node: yaml.MappingNode) -> None:
        first: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if key.tag == "tag:yaml.org,2002:str" and first.setdefault(key.value, line) != line:
                problem = f"is also in line {first[key.value]}; the last one counts"
                self._report.pass_over(f"{self._path}:{line}: {key.value}", problem, "keep one of them")
                first[key.value] = line


_Loader.add_constructor("tag:yaml.org,2002:map", _Loader.mapping)
_Loader.add_constructor("tag:yaml.org,2002:seq", _Loader.sequence)
_Loader.add_constructor("tag:yaml.org,2002:timestamp", _Loader.text)


def _height(value: object, known: dict[int, float]) -> float:
    """Infinite for an alias that contains itself."""
    if not isinstance(value, dict | list):
        return 0
    if id(value) not in known:
        known[id(value)] = float("inf")  # a lookup during the recursion below is from inside of this value
        members = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + max((_height(member, known) for member in members), default=0)
    return known[id(value)]
