"""Each provider's key and requests go to the provider's own hosts: the recorded table is the one that was reviewed."""

from __future__ import annotations

import difflib
import re

import pytest

from bridge_worker.providers.facts import DEFAULT_LOCAL_SERVICES, SERVICE_OF
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
    """These rows can't be accepted, whatever the reviewed table has."""
    owners = {r"api\.openai\.com": {"openai", "text-completion-openai"}, r"(.*\.)?(huggingface\.co|hf\.co)": {"huggingface"}}
    for provider, row in table.items():
        for host in (host for hosts in row.values() for host in hosts):
            assert "not by the proxy" not in host, (provider, host)
            for pattern, own in owners.items():
                assert not re.fullmatch(pattern, host) or provider in own, (provider, host)
            local = SERVICE_OF.get(provider, provider) in DEFAULT_LOCAL_SERVICES
            assert local == host.startswith("http://"), (provider, host)


def test_the_recording_sees_what_is_sent(table: Table) -> None:
    """A recording of nothing would equal an empty table."""
    assert table["anthropic"]["chat"] == ["api.anthropic.com"]
    assert table["cohere"]["rerank"] == ["api.cohere.com"]
    assert table["ollama"]["embed"] == ["http://localhost:11434"]
    assert len(table) > 100
    assert sum(bool(row["chat"]) for row in table.values()) > 70
