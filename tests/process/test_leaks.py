"""The short form of benchmarks/leaks.py."""

from __future__ import annotations

import pytest

from benchmarks.leaks import CANCELLED, FAILING, WAVE, leaks, worker_and_upstream


@pytest.mark.rule("INV-1")
def test_nothing_is_left_after_failed_and_cancelled_chats_and_refused_reloads() -> None:
    with worker_and_upstream() as parts:
        rows = list(leaks(*parts, WAVE))
    assert len(rows) == len(FAILING) + len(CANCELLED) + 1
    assert {row.kind: row.left() for row in rows if row.left()} == {}
    growth = {row.kind: row.after.kib - row.before.kib for row in rows}
    assert sum(growth.values()) < 16 * 1024, growth
