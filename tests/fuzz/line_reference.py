"""The slow, obvious version of the framing of lines, with small limits so that short inputs exceed them.

Owns the reader of a whole input, a byte at a time. Refuses to share code with the framing.
"""

from __future__ import annotations

from typing import Any

from bridge_worker.protocol.framing import Fault, Message
from tests.fuzz import strict_json

MAX_BYTES = 60
MAX_VALUES = 12
_BOM = b"\xef\xbb\xbf"
Event = tuple[str, Any]


def slow_lines(data: bytes) -> list[Event]:
    """(value, its JSON) or (fault, its kind) of each line that is not blank."""
    lines = data.split(b"\n")
    lines[0] = lines[0].removeprefix(_BOM)
    events = (slow_line(line.removesuffix(b"\r")) for line in lines)
    return [event for event in events if event is not None]


def slow_line(line: bytes) -> Event | None:
    if len(line) > MAX_BYTES:
        return ("fault", "invalid_message")
    if not line.strip():
        return None
    if len(line) > MAX_VALUES and slow_values(line) > MAX_VALUES:
        return ("fault", "invalid_message")
    try:
        value = strict_json.decode(line)
    except (ValueError, RecursionError):
        return ("fault", "parse_error")
    return ("value", value)


def slow_values(line: bytes) -> int:
    """Commas and brackets outside strings, a byte at a time; an escaped quote or backslash is neither, wherever it is."""
    count, in_string, escaped = 0, False, False
    for byte in line:
        is_escaped, escaped = escaped and byte in b'\\"', False
        if is_escaped:
            continue
        if byte == ord("\\"):
            escaped = True
        elif byte == ord('"'):
            in_string = not in_string
        elif not in_string and byte in b",[{":
            count += 1
    return count


def described(event: Message | Fault) -> Event:
    return ("value", event.value) if isinstance(event, Message) else ("fault", event.error.kind)
