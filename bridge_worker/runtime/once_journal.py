"""A file with the results of requests with an ``idempotency_key``, which survives the worker.

Owns the SQLite file: its table, its size and its age. Several workers may have the same file. Refuses to know requests.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
import time
from contextlib import closing

from bridge_worker.runtime.once import Kept, Name

KEPT_SECONDS = 24 * 3_600.0
MAX_BYTES = 256 * 1024 * 1024
_WAIT_SECONDS = 5.0  # for another worker that writes
_TABLE = """
CREATE TABLE IF NOT EXISTS omni_bridge_results (
    method TEXT, key TEXT, fingerprint TEXT, result TEXT, deltas BLOB, at REAL, size INTEGER, PRIMARY KEY (method, key)
)
"""
_log = logging.getLogger(__name__)


class JournalError(Exception):
    """The message names the file and the reason."""


class SqliteJournal:
    """Raises JournalError for a file that is not a journal, or can't be written."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = threading.Lock()
        try:
            with closing(self._open()) as connection, connection:
                connection.execute(_TABLE)
                connection.execute("DELETE FROM omni_bridge_results WHERE at < ?", (time.time() - KEPT_SECONDS,))
        except sqlite3.Error as error:
            raise JournalError(f"the journal {path} can't be used: {error}; name another file in idempotency_journal") from None

    def load(self, name: Name) -> Kept | None:
        query = "SELECT fingerprint, result, deltas, at, size FROM omni_bridge_results WHERE method = ? AND key = ? AND at >= ?"
        with self._lock:
            try:
                with closing(self._open()) as connection:
                    row = connection.execute(query, (*name, time.time() - KEPT_SECONDS)).fetchone()
            except sqlite3.Error as error:
                _log.error("the journal can't be read, so a repeated request is made again: %s", error)
                return None
        return None if row is None else Kept(row[0], json.loads(row[1]), row[2], row[3], row[4])

    def store(self, name: Name, kept: Kept) -> None:
        row = (*name, kept.fingerprint, json.dumps(kept.result), kept.deltas, kept.at, kept.size)
        with self._lock:
            try:
                with closing(self._open()) as connection, connection:
                    connection.execute("INSERT OR REPLACE INTO omni_bridge_results VALUES (?, ?, ?, ?, ?, ?, ?)", row)
                    _limit_size(connection)
            except sqlite3.Error as error:
                _log.error("the journal can't be written, so this result does not survive the worker: %s", error)

    def _open(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path, timeout=_WAIT_SECONDS)


def _limit_size(connection: sqlite3.Connection) -> None:
    """Deletes the oldest results beyond the limits."""
    connection.execute("DELETE FROM omni_bridge_results WHERE at < ?", (time.time() - KEPT_SECONDS,))
    (size,) = connection.execute("SELECT coalesce(sum(size), 0) FROM omni_bridge_results").fetchone()
    while size > MAX_BYTES:
        method, key, freed = connection.execute("SELECT method, key, size FROM omni_bridge_results ORDER BY at LIMIT 1").fetchone()
        connection.execute("DELETE FROM omni_bridge_results WHERE method = ? AND key = ?", (method, key))
        size -= freed
