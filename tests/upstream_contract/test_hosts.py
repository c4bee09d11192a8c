"""Each provider's key and requests go to the provider's own hosts: the recorded table is the one that was reviewed."""

from __future__ import annotations

import difflib

import pytest

from tests.support import provider_hosts
from tests.support.provider_hosts import Table, record


@pytest.fixture(scope="module")
def table() -> Table:
    return record()


@pytest.mark.rule("SEC-13")
def test_each_provider_contacts_the_hosts_that_were_reviewed_and_no_other(table: Table) -> None:
    changed = list(difflib.unified_diff(provider_hosts.accepted(), provider_hosts.lines(table), "accepted", "recorded", "", "", 0))
    assert not changed, "review these rows, then run python -m tests.support.provider_hosts --accept\n" + "\n".join(changed)


@pytest.mark.rule("SEC-13", "SEC-14", "SEC-15")
def test_no_provider_contacts_openai_a_model_hub_or_this_machine_unless_it_is_that(table: Table) -> None:
    assert list(provider_hosts.forbidden(table)) == []


@pytest.mark.parametrize(
    ("provider", "host"),
    [
        ("groq", "api.openai.com"),
        ("replicate", "huggingface.co"),
        ("hosted_vllm", "http://localhost:8000"),
        ("ollama", "ollama.example"),
        ("groq", "api.groq.com:443 (not by the proxy)"),
    ],
)
def test_a_key_that_goes_astray_is_seen(provider: str, host: str) -> None:
    assert list(provider_hosts.forbidden({provider: {"chat": [host]}})) == [f"{provider} contacts {host}"]


def test_the_recording_sees_what_is_sent(table: Table) -> None:
    """A recording of nothing would equal an empty table."""
    assert table["anthropic"]["chat"] == ["api.anthropic.com"]
    assert table["cohere"]["rerank"] == ["api.cohere.com"]
    assert table["ollama"]["embed"] == ["http://localhost:11434"]
    assert len(table) > 100
    assert sum(bool(row["chat"]) for row in table.values()) > 70
