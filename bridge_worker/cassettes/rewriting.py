"""Writes a cassette again: without secrets that are known now, or with the exchanges that a run used.

Owns the new file, which replaces the old one in one step. Refuses to change a line in place.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from bridge_worker.cassettes.cassette import Cassette
from bridge_worker.cassettes.entry import entry_line, header_line
from bridge_worker.cassettes.masking import IN_PARTS, Redact, hides_secret, in_data_too, masked_entry, masked_value
from bridge_worker.protocol.framing import encode
from bridge_worker.version import __version__


def head_lines(cassette: Cassette, redact: Redact, **members: object) -> Iterator[bytes]:
    """The header and the models."""
    yield header_line(version=__version__, **members)
    for place in cassette.index.models.values():
        yield encode(masked_value(json.loads(cassette.line(place)), redact))


def scrubbed(cassette: Cassette, redact: Redact) -> Iterator[tuple[Mapping[str, Any], bytes]]:
    """(exchange, its line masked again). A masked request has another hash."""
    redact = in_data_too(redact)
    for entry in cassette.entries():
        masked = masked_entry(entry, redact)
        if any(hides_secret(attempt["body"], redact) for attempt in entry.get("provider") or ()):
            masked |= {"provider": None, "why_no_bytes": IN_PARTS}
        yield entry, entry_line(masked)


def kept(cassette: Cassette, used: Cassette) -> Iterator[bytes]:
    """The lines of the exchanges with a request that ``used`` has, as often as it has it."""
    left = Counter(hash for _, hash, _ in used.index.exchanges)
    for _, hash, place in cassette.index.exchanges:
        if left[hash] > 0:
            left[hash] -= 1
            yield cassette.line(place) + b"\n"


def write_new(path: str, lines: Iterable[bytes]) -> int:
    """The number of lines. The file is for its user only, and is not changed when a line can't be made. Raises OSError."""
    folder = os.path.dirname(os.path.abspath(path))
    fd, name = tempfile.mkstemp(prefix=".cassette-", dir=folder)  # mode 0600
    count = 0
    try:
        with open(fd, "wb") as file:
            for line in lines:
                file.write(line)
                count += 1
        os.replace(name, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise
    return count
