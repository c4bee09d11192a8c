"""Finds the recorded exchange of a request: the n-th for the n-th same request, then the last.

Owns the counts of this process, and the error of a request that was not recorded. Refuses to know what is done with an exchange.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from bridge_worker.cassettes.cassette import Cassette, Place
from bridge_worker.cassettes.masking import Redact
from bridge_worker.cassettes.matching import Matching, differences, distance
from bridge_worker.core.exchange import tapes
from bridge_worker.errors import BridgeError
from bridge_worker.protocol.framing import encode

_MAX_CANDIDATES = 200  # requests that are compared with one that is not there
_MAX_SHOWN_BYTES = 64 * 1024  # of the nearest request, in the error


def _check(entry: Mapping[str, Any]) -> None:
    """Raises ValueError for an exchange without an outcome, such as one that was made by hand."""
    wire = entry.get("wire")
    outcome = (wire.get("result") or (wire.get("error") or {}).get("data")) if isinstance(wire, dict) else None
    if not isinstance(outcome, dict):
        raise ValueError("no result and no error")


class Player:
    def __init__(self, cassette: Cassette, matching: Matching, redact: Redact) -> None:
        self.cassette = cassette
        self._matching = matching
        self._redact = redact
        self._counts: Counter[str] = Counter()
        self._places: dict[str, list[Place]] = {}
        for _, hash, place in cassette.index.exchanges:
            key = hash if matching.is_exact else matching.recorded_key(cassette.request(place))
            self._places.setdefault(key, []).append(place)

    def find(self, request: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """The exchange for ``request``, or None. Notes it as the one that serves the running request."""
        for key in self._matching.keys(request, self._redact):
            if (places := self._places.get(key)) is not None:
                break
        else:
            return None
        count = self._counts[key]
        self._counts[key] += 1
        place = places[min(count, len(places) - 1)]
        try:
            entry = self.cassette.entry(place)
            _check(entry)
        except ValueError:
            problem = f"the exchange at byte {place.offset} of the cassette can't be read; run omni-bridge cassette show"
            raise BridgeError("cassette_miss", problem) from None
        if (recorded := tapes.get()) is not None:
            recorded.replayed = place
        return entry

    def miss(self, request: Mapping[str, Any]) -> BridgeError:
        """The error for a request that was not recorded, with the nearest that was."""
        method, model = request["method"], request["params"].get("model")
        found = self._nearest(request)
        if found is None:
            message = f"the cassette has no {method} request; record one with --record, or start with --replay-miss record"
            return BridgeError("cassette_miss", message, model=model, extra={"nearest": None})
        position, nearest = found
        differ = differences(self._matching.reduced(request), self._matching.reduced(nearest))
        shown = nearest if len(encode(nearest)) <= _MAX_SHOWN_BYTES else None
        differing = ", ".join(differ[:3]) + (" and others" if differ[3:] else "")
        message = f"the cassette does not have this request; the nearest, exchange {position}, differs in {differing}"
        extra: dict[str, object] = {"nearest": {"exchange": position, "differs": differ, "request": shown}}
        return BridgeError("cassette_miss", message, model=model, extra=extra)

    def _nearest(self, request: Mapping[str, Any]) -> tuple[int, Mapping[str, Any]] | None:
        """(position from 1, request)"""
        wanted = self._matching.reduced(request)
        rows = [
            (at, place) for at, (method, _, place) in enumerate(self.cassette.index.exchanges, 1) if method == request["method"]
        ]
        best: tuple[float, int, Mapping[str, Any]] | None = None
        for at, place in rows[-_MAX_CANDIDATES:]:
            recorded = self.cassette.request(place)
            away = distance(wanted, self._matching.reduced(recorded))
            if best is None or away < best[0]:
                best = (away, at, recorded)
        return None if best is None else best[1:]
