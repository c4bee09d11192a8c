"""Puts what serves models into one `core.ports.Backends`: the registry of backends, with the faults of the config around it.

Owns the order of the layers. Refuses to load LiteLLM.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bridge_worker.cassettes.counters import Counters, LocalCounters
from bridge_worker.cassettes.faults import Faults, FaultyBackends
from bridge_worker.config.fault_cards import FaultCard
from bridge_worker.core.ports import Backends


def with_faults(inner: Backends, cards: Callable[[], Sequence[FaultCard]], counters: Counters | None) -> Backends:
    """``counters`` are the server process's when this is an engine, which a card may end."""
    return FaultyBackends(inner, Faults(cards, counters or LocalCounters(), in_engine=counters is not None))
