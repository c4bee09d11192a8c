"""Checks the cassettes of the settings before the worker responds to anything.

Owns the errors of settings that contradict each other. Refuses to load pydantic, for which `initialize` would wait.
"""

from __future__ import annotations

import os

from bridge_worker.cassettes.cassette import Cassette
from bridge_worker.cassettes.writer import CassetteError, open_cassette
from bridge_worker.config.settings import DEFAULTS, Settings, flag

_OF_A_REPLAY = ("replay_miss", "replay_timing", "match_ignore")


def check_cassettes(settings: Settings) -> None:
    """Opens each file once, and writes the header of a new one. Raises CassetteError."""
    if settings.replay is None:
        for name in _OF_A_REPLAY:
            if getattr(settings, name) != getattr(DEFAULTS, name):
                raise CassetteError(f"{flag(name)} has no effect without a cassette; add --replay FILE, or leave it out")
    else:
        Cassette(settings.replay, "--replay").close()
        if settings.record is not None and os.path.realpath(settings.record) == os.path.realpath(settings.replay):
            raise CassetteError("--record and --replay name the same file; --replay-miss record appends to it")
        if settings.replay_miss == "record":
            os.close(open_cassette(settings.replay, "--replay"))
    if settings.record is not None:
        os.close(open_cassette(settings.record, "--record"))
