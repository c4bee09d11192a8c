"""The short form of benchmarks/soak.py."""

from __future__ import annotations

from benchmarks.soak import KINDS, WAVE, growth, soak


def test_memory_and_descriptors_stay_level_over_chats_of_every_outcome() -> None:
    samples = []
    for sample, outcomes in soak(rounds=15, waves=1):
        samples.append(sample)
        each = WAVE // len(KINDS)
        assert outcomes["ok"] == 3 * each, outcomes
        assert outcomes["cancelled"] == 2 * each, outcomes
        assert outcomes["timeout"] == 2 * each, outcomes
        assert outcomes["provider_unavailable"] == each, outcomes
        assert outcomes["stream_interrupted"] == each, outcomes
        assert outcomes["bad_upstream_response"] == each, outcomes
    mib, descriptors = growth(samples)
    # 250 chats lie between the thirds: a stream that was not closed would be 100 descriptors more.
    assert descriptors <= 5, samples
    assert mib < 16, samples
