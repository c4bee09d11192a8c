"""The trace's recorder without a worker: lines, content limits, file checks and the bounded queue."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bridge_worker.security.redaction import Redactor
from bridge_worker.trace import lines, recorder
from bridge_worker.trace.content_filter import with_content, without_content
from bridge_worker.trace.recorder import Recorder, TraceError, open_trace
from tests.support.memory_server import MemoryPipe
from tests.support.worker import WAIT_SECONDS, Json, wait_until


def read(file: Path) -> list[Json]:
    """The lines of a trace, each of them JSON."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n")[:-1]]


@pytest.mark.rule("TRC-1")
def test_a_line_beyond_any_limit_costs_its_length_and_no_memory() -> None:
    cut = lines.Lines()
    piece = b"x" * 1_000_000
    for _ in range(20):
        assert list(cut.feed(piece)) == []
        assert len(cut._held) <= lines.MAX_LINE_BYTES
    assert list(cut.feed(b"\r\n{}\r\n")) == [(None, 20_000_002), (b"{}", 4)]
    assert list(cut.end()) == []


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_lines_are_the_same_in_whatever_pieces_they_come(size: int) -> None:
    data = b'\xef\xbb\xbf{"a":1}\r\n\n[2]\nlast'
    cut = lines.Lines()
    found = [line for start in range(0, len(data), size) for line in cut.feed(data[start : start + size])]
    assert [*found, *cut.end()] == [(b'{"a":1}', 12), (b"", 1), (b"[2]", 4), (b"last", 4)]


def test_a_text_without_content_or_end_is_cut() -> None:
    assert with_content({"a": ["x" * 70_000]})["a"][0].endswith("x[4464 more characters]")
    deep: Any = "deep"
    for _ in range(200):
        deep = {"content": [deep]}
    for shown in (with_content(deep), without_content(deep, str)):
        assert "deep" not in json.dumps(shown)
    assert without_content({"embeddings": [[0.1]], "n": 0.5, "content": None}, str) == {
        "embeddings": "[1 items]",
        "n": 0.5,
        "content": None,
    }


def unwritable(folder: Path) -> str:
    return str(folder / "missing" / "trace.jsonl")


def a_folder(folder: Path) -> str:
    return str(folder)


def another_file(folder: Path) -> str:
    file = folder / "config.yaml"
    file.write_text("model_list: []\n")
    return str(file)


def a_pipe(folder: Path) -> str:
    os.mkfifo(folder / "pipe")
    return str(folder / "pipe")


@pytest.mark.rule("TRC-4")
@pytest.mark.parametrize("path", [unwritable, a_folder, another_file, a_pipe, lambda _: "/dev/full", lambda _: "a\0b"])
def test_what_can_be_no_trace_is_one_line_and_exit_code_2(tmp_path: Path, path: Callable[[Path], str]) -> None:
    with pytest.raises(TraceError, match="--trace"):
        open_trace(path(tmp_path))


# ---- in nobody's way -----------------------------------------------------------------------------------------------------------


@pytest.mark.rule("TRC-5")
def test_what_finds_no_place_is_counted_in_the_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "_MAX_QUEUED_BYTES", 100)
    file = tmp_path / "trace.jsonl"
    slow = Slow(open_trace(str(file)))
    for data in (b'{"a":1}\n', b"x" * 200 + b"\n", b'{"lost":1}\n{"lo', b'st":2}\n{"torn'):
        slow.put("in", data)
    slow.going.set()
    wait_until(lambda: slow._queued == 0, "there is room again")
    slow.put("in", b'":3}\n{"b":2}\n')
    slow.put("out", b'{"c":3}\n')
    slow.close()
    recorded = [line.get("message") or line.get("lost") or "fault" for line in read(file)[1:-1]]
    assert recorded == [{"a": 1}, "fault", {"messages": 3, "bytes": 28}, {"b": 2}, {"c": 3}]


class Slow(Recorder):
    """Takes nothing from its queue until it is ``going``."""

    def __init__(self, fd: int) -> None:
        self.going = threading.Event()
        super().__init__(fd, str, content=True)

    def _wait(self) -> bool:
        self.going.wait(WAIT_SECONDS)
        return super()._wait()


def test_the_traced_pipe_passes_everything_on(tmp_path: Path) -> None:
    async def use() -> None:
        pipe = MemoryPipe()
        one = Recorder(open_trace(str(tmp_path / "trace")), Redactor({}).redact, content=True)
        traced = one.traced(pipe)
        pipe.feed(b"hello\n")
        assert await traced.read() == b"hello\n"
        traced.write(b'{"a":1}\n')
        assert traced.queued() == pipe.queued()
        await traced.drained(10**6)
        one.close()

    asyncio.run(use())
