"""A cassette that is read: an index of its exchanges by hash, and an exchange when it is needed.

Owns the scan of the file, which parses no line that it wrote itself, and the order of exchanges of one hash. Holds offsets, never
the lines. Refuses to know what an exchange is played for.
"""

from __future__ import annotations

import json
import mmap
import os
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from bridge_worker.cassettes.canonical import canonical, hash_of
from bridge_worker.cassettes.entry import FORMAT, HEAD, HEADER
from bridge_worker.cassettes.writer import CassetteError

Entry = dict[str, Any]
_MAX_CACHED = 256
_MAX_CACHED_BYTES = 256 * 1024  # of one line
_HEAD_BYTES = 128


class Place(NamedTuple):
    """Where a line is."""

    offset: int
    length: int


@dataclass(slots=True)
class Index:
    """``exchanges`` are in the order of the file. ``unread`` counts lines that are no exchange: cut off, or of a newer format."""

    exchanges: list[tuple[str, str, Place]] = field(default_factory=list)  # (method, hash, place)
    models: dict[str, Place] = field(default_factory=dict)
    header: Entry = field(default_factory=dict)
    unread: int = 0


class Cassette:
    """The cassette at ``path``. Raises CassetteError when it can't be read."""

    def __init__(self, path: str, flag: str = "") -> None:
        self.path = path
        try:
            self._fd = os.open(path, os.O_RDONLY)
        except (OSError, ValueError) as error:
            raise CassetteError(f"{flag} {path}: {getattr(error, 'strerror', None) or error}".lstrip()) from None
        found = HEADER.match(os.pread(self._fd, 32, 0))
        if not found:
            raise CassetteError(f"{flag} {path}: the file is not a cassette; record one with --record".lstrip())
        if int(found[1]) > FORMAT:
            raise CassetteError(f"{flag} {path}: format {int(found[1])} is newer than this omni-bridge; update it".lstrip())
        self.index = self._scan()
        self._cached: OrderedDict[Place, Entry] = OrderedDict()

    def close(self) -> None:
        os.close(self._fd)

    def line(self, place: Place) -> bytes:
        return os.pread(self._fd, place.length, place.offset)

    def entry(self, place: Place) -> Entry:
        """Raises ValueError for a line that is not JSON."""
        if (known := self._cached.get(place)) is not None:
            return known
        entry: Entry = json.loads(self.line(place))
        if place.length <= _MAX_CACHED_BYTES:
            self._cached[place] = entry
            if len(self._cached) > _MAX_CACHED:
                self._cached.popitem(last=False)
        return entry

    def entries(self) -> Iterator[Entry]:
        """Those that can be read: a line may be cut off and end as a whole one does."""
        for _, _, place in self.index.exchanges:
            try:
                yield json.loads(self.line(place))
            except ValueError:
                self.index.unread += 1

    def request(self, place: Place) -> Mapping[str, Any]:
        """The canonical request of an exchange, without reading on."""
        line = self.line(place)
        head = HEAD.match(line)
        if head is None:
            return dict(json.loads(line)["request"])
        request: Mapping[str, Any] = _DECODER.raw_decode(line.decode("utf-8", "surrogatepass"), head.end())[0]
        return request

    def _scan(self) -> Index:
        index = Index()
        size = os.fstat(self._fd).st_size
        with mmap.mmap(self._fd, size, access=mmap.ACCESS_READ) as data:
            start = 0
            while start < size:
                end = data.find(b"\n", start)
                if end < 0:  # without its newline it may be cut off behind any character
                    _note_parsed(index, data[start:size], Place(start, size - start))
                    break
                self._note(index, data[start : min(start + _HEAD_BYTES, end)], Place(start, end - start), data)
                start = end + 1
        return index

    def _note(self, index: Index, head: bytes, place: Place, data: mmap.mmap) -> None:
        found = HEAD.match(head)
        end = place.offset + place.length
        if found and data[end - 2 : end] == b"}}":  # whole: the last member is an object
            index.exchanges.append((found[1].decode(), found[2].decode(), place))
        elif head.strip():
            _note_parsed(index, data[place.offset : end], place)


def _note_parsed(index: Index, line: bytes, place: Place) -> None:
    """A line in another layout: edited by hand, made by another program, or cut off."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        index.unread += 1
        return
    if not isinstance(entry, dict):
        index.unread += 1
    elif "cassette" in entry:  # a second one: two files were joined
        index.header = index.header or entry
    elif isinstance(entry.get("model"), str) and isinstance(entry.get("info"), dict):
        index.models[entry["model"]] = place
    elif _is_exchange(entry):
        index.exchanges.append((entry["exchange"], hash_of(canonical(entry["request"])), place))
    else:
        index.unread += 1


def _is_exchange(entry: Entry) -> bool:
    return isinstance(entry.get("exchange"), str) and isinstance(entry.get("request"), dict) and isinstance(entry.get("wire"), dict)


_DECODER = json.JSONDecoder()
