"""Every case of `tests.support.cases` on the real worker, against a server that speaks the provider's format."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import WorkerFor
from tests.support.cases import FEATURES, LIMITS, TEXT, Case, Seen, assert_joined_deltas_are_the_result, cases
from tests.support.provider_formats import FORMATS, environment, line
from tests.support.upstream import End, Upstream
from tests.support.upstream_format import Request, Steps, http, stream
from tests.support.worker import Worker

CUT = 11  # bytes of a stream at a time: it cuts characters, lines, and frames anywhere


class Provider(Upstream):
    """Answers every request with the reply of the case that is playing."""

    def play(self, case: Case, *, stalls_after: int | None = None) -> None:
        """A stream that stalls sends that many frames, and then nothing; it stays open."""
        self._case, self._stalls_after = case, stalls_after

    def _reply_to(self, request: Request) -> Steps:
        feature, wire = self._case.feature, self._case.wire
        if feature.status != 200:
            return http(feature.error or wire.error(feature.status, feature.message), feature.status, feature.headers)
        if self._case.mode == "plain":
            return http(line(wire.whole(feature.completion)), headers=feature.headers)
        if self._stalls_after is not None:
            return stream([*self._case.frames()[: self._stalls_after], End.HANG], {"content-type": wire.stream_type})
        body = b"".join(self._case.frames())
        size = max(CUT, len(body) // 400)
        return stream(
            [body[at : at + size] for at in range(0, len(body), size)], {"content-type": wire.stream_type} | dict(feature.headers)
        )

    @property
    def origin(self) -> str:
        return self.base_url.removesuffix("/v1")


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with Provider() as provider:
        yield provider


@pytest.fixture(scope="module")
def worker(provider: Provider, worker_for: WorkerFor) -> Worker:
    return worker_for(env=environment(provider.origin))


def marked(case: Case) -> Any:
    unreported = case.limit and not case.limit.refused and not case.limit.dropped
    marks = [pytest.mark.xfail(reason=case.limit.why, strict=True)] if case.limit and unreported else []
    return pytest.param(case, id=case.id, marks=marks)


@pytest.mark.rule("RES-4", "RES-9", "RES-12", "RES-16", "RES-17", "RES-18", "RCP-1", "RCP-2", "RCP-4")
@pytest.mark.parametrize("case", [marked(case) for case in cases()])
def test_a_providers_request_and_response_are_exact(case: Case, provider: Provider, worker: Worker) -> None:
    provider.play(case)
    before = len(provider.requests)
    id = worker.request("chat", case.params())
    response = worker.response(id)
    requests = [request for request in provider.requests[before:] if not request.path.endswith(("/api/show", "/api/tags"))]
    result = response.get("result", {})
    sent = json.loads(requests[-1].raw) if requests else {}
    case.check(Seen(case.wire, case.mode == "streamed", result, response.get("error", {}), sent))
    if result:
        assert_joined_deltas_are_the_result(worker.deltas(id), result, case.mode)


@pytest.mark.rule("DLN-3")
@pytest.mark.parametrize("name", FORMATS)
def test_a_stalled_stream_ends_in_the_idle_deadline_and_is_closed(name: str, provider: Provider, worker: Worker) -> None:
    case = next(case for case in cases() if (case.feature.name, case.wire.name, case.mode) == ("text", name, "streamed"))
    provider.play(case, stalls_after=6)
    before = len(provider.requests)

    id = worker.request("chat", case.params() | {"deadlines": {"idle_ms": 300, "total_ms": 60_000}})
    error = worker.response(id)["error"]

    assert (error["data"]["kind"], error["data"]["deadline"]) == ("timeout", "idle_ms")
    assert [attempt["outcome"] for attempt in error["data"]["receipt"]["attempts"]] == ["timeout"]
    assert error["data"]["partial"]["content"] == "".join(note["delta"].get("content") or "" for note in worker.deltas(id))
    assert TEXT.startswith(error["data"]["partial"]["content"])
    (held,) = (request for request in provider.requests[before:] if not request.path.endswith(("/api/show", "/api/tags")))
    held.wait_closed(timeout=30)


def test_every_limit_is_of_a_case() -> None:
    known = {(case.feature.name, case.wire.name, case.mode) for case in cases()}
    listed = {(feature, wire, mode) for (feature, wire), limit in LIMITS.items() for mode in limit.modes}
    assert listed <= known
    assert len({feature.name for feature in FEATURES}) == len(FEATURES)
    assert all(name in FORMATS for feature in FEATURES for name in feature.formats)
