"""Puts what serves models into one `core.ports.Backends`: the registry or a cassette, what records, and the faults of the config.

Owns the order of these layers and which cassettes are written. Refuses to load LiteLLM.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from bridge_worker.cassettes.cassette import Cassette, Place
from bridge_worker.cassettes.counters import Counters, LocalCounters
from bridge_worker.cassettes.faults import Faults, FaultyBackends
from bridge_worker.cassettes.journal import Recording
from bridge_worker.cassettes.masking import in_data_too
from bridge_worker.cassettes.matching import Matching
from bridge_worker.cassettes.model_facts import NotingModels
from bridge_worker.cassettes.player import Player
from bridge_worker.cassettes.replay import Replay
from bridge_worker.cassettes.writer import Writer, open_cassette
from bridge_worker.config.settings import Settings
from bridge_worker.core.ports import Backends
from bridge_worker.security.redaction import Redactor


class Served(NamedTuple):
    """``journal`` notes each exchange; None where nothing is recorded. ``before_count``: the faults of a token count."""

    backends: Backends
    journal: Recording | None
    before_count: Callable[[str], Awaitable[None]] | None = None


def serve_by(registry: Backends, settings: Callable[[], Settings], redactor: Redactor, counters: Counters | None) -> Served:
    """``counters`` are the server process's when this is an engine, which a fault card may end. Raises CassetteError."""
    backends, journal, _ = _with_cassettes(registry, settings(), redactor)
    faults = Faults(lambda: settings().faults, counters or LocalCounters(), in_engine=counters is not None)
    return Served(FaultyBackends(backends, faults), journal, faults.meet_count)


def _with_cassettes(registry: Backends, settings: Settings, redactor: Redactor) -> Served:
    recorded = [Writer(open_cassette(settings.record, "--record"), redactor)] if settings.record is not None else []
    if settings.replay is None:
        return Served(NotingModels(registry, recorded), Recording(new=recorded)) if recorded else Served(registry, None)
    cassette = Cassette(settings.replay, "--replay")
    appended, miss = [], None
    if settings.replay_miss == "record":
        appended = [Writer(open_cassette(settings.replay, "--replay"), redactor)]
        miss = NotingModels(registry, appended)
    player = Player(cassette, Matching(settings.match_ignore), in_data_too(redactor.redact))
    replay: Backends = Replay(player, in_real_time=settings.replay_timing == "real", miss=miss)
    if not recorded and not appended:
        return Served(replay, None)

    def copy_of(replayed: tuple[int, int]) -> bytes:
        return cassette.line(Place(*replayed)) + b"\n"

    journal = Recording(new=appended, all=recorded, copy_of=copy_of)
    return Served(NotingModels(replay, recorded) if recorded else replay, journal)
