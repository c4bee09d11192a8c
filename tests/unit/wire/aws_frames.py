"""Encodes AWS event-stream frames: what `aws_event_stream` reads."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any
from zlib import crc32


def frame(headers: dict[str, str], payload: bytes = b"", raw_headers: bytes = b"") -> bytes:
    head = raw_headers
    for name, value in headers.items():
        head += bytes([len(name)]) + name.encode() + b"\7" + struct.pack(">H", len(value.encode())) + value.encode()
    prelude = struct.pack(">II", 16 + len(head) + len(payload), len(head))
    message = prelude + struct.pack(">I", crc32(prelude)) + head + payload
    return message + struct.pack(">I", crc32(message))


def event(name: str, value: Any) -> bytes:
    headers = {":event-type": name, ":content-type": "application/json", ":message-type": "event"}
    return frame(headers, value if isinstance(value, bytes) else json.dumps(value).encode())


def exception(name: str, value: Any) -> bytes:
    headers = {":exception-type": name, ":content-type": "application/json", ":message-type": "exception"}
    return frame(headers, value if isinstance(value, bytes) else json.dumps(value).encode())


def chunk(value: Any) -> bytes:
    """An event of Bedrock's invoke."""
    wrapped = base64.b64encode(json.dumps(value).encode()).decode()
    return event("chunk", {"bytes": wrapped, "p": "abcdef"})


def converse(*events: tuple[str, Any]) -> bytes:
    return b"".join(event(name, value) for name, value in events)
