"""Accounts and tasks in memory, with a clock that the test moves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine, Mapping
from typing import Any

import pytest

from bridge_worker import invariants
from bridge_worker.budgets import store as store_module
from bridge_worker.budgets import tasks as tasks_module
from bridge_worker.budgets.limits import NOTHING, Account, Amount, Hold, Standing, read_budgets
from bridge_worker.budgets.remote_store import Call, RemoteStore, StoreService
from bridge_worker.budgets.spending import Spending, total_tokens
from bridge_worker.budgets.store import MemoryStore
from bridge_worker.budgets.tasks import MemoryTasks, RemoteTasks, TaskService, limits_of, refusal

DAY = 86_400
BUDGETS = read_budgets(
    [{"path": "day", "max_tokens": 100, "window": "1d"}, {"path": "ever", "max_usd": 1}, {"path": "*", "max_tokens": 900}]
)


class Clock:
    now = 10.5 * DAY

    def __call__(self) -> float:
        return self.now


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


def accounts(path: str) -> tuple[Account, ...]:
    return tuple(one for one in BUDGETS.accounts(path) if one.limit.pattern != ("*",))


def reserve(store: MemoryStore, id: str, path: str, amount: Amount) -> Hold | Standing:
    result: Hold | Standing = run(store.reserve(id, accounts(path), amount, 1000))
    return result


@pytest.mark.rule("BUD-9")
def test_a_window_begins_at_midnight_and_a_request_counts_in_the_window_in_which_it_was_reserved() -> None:
    clock = Clock()
    store = MemoryStore(clock)
    hold = reserve(store, "a", "day", Amount(0, 100))
    assert isinstance(hold, Hold)
    full = reserve(store, "b", "day", Amount(0, 1))
    assert isinstance(full, Standing)
    assert (full.reserved, full.used, full.resets_ms) == (Amount(0, 100), NOTHING, DAY // 2 * 1000)
    clock.now = 11 * DAY - 0.25
    (last,) = run(store.standings(accounts("day")))
    assert (last.reserved.tokens, last.resets_ms) == (100, 250)
    clock.now = 11 * DAY
    (new,) = run(store.standings(accounts("day")))
    assert (new.reserved, new.resets_ms) == (NOTHING, DAY * 1000)
    run(store.settle(hold, Amount(0, 100)))
    assert run(store.standings(accounts("day")))[0].used == NOTHING
    assert isinstance(reserve(store, "c", "day", Amount(0, 100)), Hold)


@pytest.mark.rule("BUD-4", "BUD-5", "INV-2")
def test_a_hold_counts_once_however_often_it_is_settled() -> None:
    invariants.reset()
    store = MemoryStore(Clock())
    hold = reserve(store, "a", "ever", Amount(600_000_000, 5))
    assert isinstance(hold, Hold)
    assert isinstance(reserve(store, "b", "ever", Amount(400_000_001, 0)), Standing)
    run(store.settle(hold, Amount(500_000_000, 4)))
    assert not invariants.violations()
    run(store.settle(hold, Amount(500_000_000, 4)))
    assert invariants.violations() == {"money": 1}
    (standing,) = run(store.standings(accounts("ever")))
    assert (standing.used, standing.reserved, standing.resets_ms) == (Amount(500_000_000, 4), NOTHING, None)
    invariants.reset()
    negative = reserve(store, "c", "ever", NOTHING)
    assert isinstance(negative, Hold)
    run(store.settle(negative, Amount(0, -1)))
    assert invariants.violations() == {"money": 1}
    invariants.reset()


@pytest.mark.rule("BUD-9")
def test_accounts_of_past_windows_are_forgotten_and_others_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "_SWEEP", 3)
    clock = Clock()
    store = MemoryStore(clock)
    for path in ("day", "ever"):
        hold = reserve(store, path, path, Amount(1, 1))
        assert isinstance(hold, Hold)
        run(store.settle(hold, Amount(1, 1)))
    clock.now = 11 * DAY
    wild = BUDGETS.accounts("x")
    assert isinstance(run(store.reserve("x", wild, Amount(0, 1), 1000)), Hold)
    assert sorted(store._books) == ["ever:ever", "x:ever"]
    assert store._sweep_at == 4
    assert isinstance(run(store.reserve("y", BUDGETS.accounts("y"), Amount(0, 1), 1000)), Hold)
    assert len(store._books) == 3


@pytest.mark.rule("TSK-1", "TSK-2", "TSK-3")
def test_a_task_counts_what_is_spent_and_reserved_and_keeps_its_first_limits() -> None:
    tasks = MemoryTasks()
    limits = {"max_usd": 1.0, "max_tokens": 100, "max_requests": 3}
    assert run(tasks.reserve("h1", "t", limits, 0.5, 60)) == {}
    assert run(tasks.reserve("h2", "t", {}, 0.5, 41))["refused"] == "exceeded"
    assert run(tasks.reserve("h2", "t", {}, 0.500000001, 40))["refused"] == "exceeded"
    assert run(tasks.reserve("h2", "t", {}, 0.5, 40)) == {}
    row = run(tasks.get("t"))
    assert (row["reserved_usd"], row["reserved_tokens"], row["reserved_requests"]) == (1.0, 100, 2)
    run(tasks.settle("h1", "t", 0.25, 30, 1))
    run(tasks.settle("h1", "t", 0.25, 30, 1))  # once is all
    row = run(tasks.get("t"))
    assert (row["spent_usd"], row["spent_tokens"], row["spent_requests"], row["reserved_requests"]) == (0.25, 30, 1, 1)
    differs = run(tasks.reserve("h3", "t", {"max_tokens": 99}, 0, 0))
    assert (differs["refused"], differs["member"]) == ("differs", "max_tokens")
    assert run(tasks.reserve("h3", "t", {}, None, 0))["refused"] == "unknown"
    assert run(tasks.reserve("h3", "t", {}, 0, None))["refused"] == "unknown"
    assert run(tasks.reserve("h3", "t", {}, 0, 0)) == {}
    assert run(tasks.reserve("h4", "t", {}, 0, 0))["refused"] == "exceeded"


@pytest.mark.rule("TSK-2", "TSK-4")
def test_limits_are_raised_never_lowered_and_the_first_ones_stay_valid_in_requests() -> None:
    tasks = MemoryTasks()
    first = {"max_tokens": 10}
    run(tasks.reserve("h", "t", first, None, 5))
    assert run(tasks.raise_limits("other", {"max_tokens": 20})) is None
    assert run(tasks.raise_limits("t", {"max_tokens": 9}))["refused"] == "lower"
    assert run(tasks.raise_limits("t", {"max_usd": 9}))["member"] == "max_usd"
    assert run(tasks.raise_limits("t", {"max_tokens": 10}))["max_tokens"] == 10
    assert run(tasks.raise_limits("t", {"max_tokens": 20}))["max_tokens"] == 20
    assert run(tasks.reserve("h2", "t", first, None, 5)) == {}
    assert run(tasks.reserve("h3", "t", {"max_tokens": 20}, None, 5)) == {}


@pytest.mark.rule("TSK-1")
def test_the_task_that_was_used_least_recently_and_has_no_request_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks_module, "MAX_TASKS", 3)
    tasks = MemoryTasks()
    for id in ("busy", "old", "used"):
        run(tasks.reserve(id, id, {}, None, None))
    for id in ("old", "used"):
        run(tasks.settle(id, id, 0, 0, 1))
    run(tasks.reserve("again", "old", {}, None, None))
    run(tasks.settle("again", "old", 0, 0, 1))
    run(tasks.reserve("h", "new", {}, None, None))
    assert [id for id in ("busy", "old", "used", "new") if run(tasks.get(id)) is None] == ["used"]


@pytest.mark.rule("TSK-5")
def test_what_a_lost_engine_had_reserved_of_a_task_is_spent() -> None:
    service = TaskService()

    def call(engine: int, name: str, **members: Any) -> Any:
        return run(service.serve(engine, {"name": f"task/{name}", **members}))

    for engine, hold in ((1, "a"), (1, "b"), (2, "c")):
        assert call(engine, "reserve", hold=hold, id="t", limits={}, usd=0.25, tokens=4) == {}
    call(1, "settle", hold="a", id="t", usd=0.125, tokens=1, requests=1)
    run(service.engine_lost(1))
    run(service.engine_lost(1))
    row = call(2, "get", id="t")
    assert (row["spent_usd"], row["spent_tokens"], row["spent_requests"], row["reserved_requests"]) == (0.375, 5, 2, 1)
    with pytest.raises(ValueError, match="unknown call"):
        call(1, "sing")


def over_json(service: StoreService | TaskService, engine: int = 1) -> Call:
    async def call(name: str, members: Mapping[str, object]) -> Any:
        return json.loads(json.dumps(await service.serve(engine, json.loads(json.dumps({"name": name, **members})))))

    return call


@pytest.mark.rule("TSK-1", "TSK-4")
def test_an_engine_reaches_the_tasks_of_the_server_process() -> None:
    service = TaskService()
    tasks = RemoteTasks(over_json(service))
    assert run(tasks.get("t")) is None
    assert run(tasks.raise_limits("t", {"max_tokens": 9})) is None
    assert run(tasks.reserve("h", "t", {"max_tokens": 5, "max_usd": 2}, 0.5, 4)) == {}
    assert run(tasks.reserve("i", "t", {}, 0.5, 4))["refused"] == "exceeded"
    assert run(tasks.raise_limits("t", {"max_tokens": 9}))["max_tokens"] == 9
    run(tasks.settle("h", "t", 0.25, 3, 1))
    assert service._holds == {1: {}}  # what is settled is not kept
    run(tasks.settle("h", "unknown", 0.25, 3, 1))
    assert run(tasks.get("t")) == {
        "id": "t",
        "max_usd": 2,
        "max_tokens": 9,
        "max_requests": None,
        "spent_usd": 0.25,
        "spent_tokens": 3,
        "spent_requests": 1,
        "reserved_usd": 0.0,
        "reserved_tokens": 0,
        "reserved_requests": 0,
    }
    assert run(tasks.reserve("j", "t", {}, 0.5, 6)) == {}
    run(service.engine_lost(2))
    assert run(tasks.get("t"))["reserved_tokens"] == 6
    run(service.engine_lost(1))
    assert (row := run(tasks.get("t")))["spent_tokens"] == 9
    assert (row["spent_requests"], row["spent_usd"], row["reserved_requests"]) == (2, 0.75, 0)


@pytest.mark.rule("BUD-4")
def test_an_engine_reaches_the_accounts_of_the_server_process() -> None:
    service = StoreService()
    store, other = (RemoteStore(over_json(service, engine)) for engine in (1, 2))
    limited = accounts("ever")
    hold = run(store.reserve("a", limited, Amount(600_000_000, 5), 1000))
    assert isinstance(hold, Hold)
    assert (hold.id, hold.accounts, hold.amount) == ("a", limited, Amount(600_000_000, 5))
    refused = run(other.reserve("b", limited, Amount(600_000_000, 5), 1000))
    assert isinstance(refused, Standing)
    assert (refused.account, refused.used, refused.reserved, refused.resets_ms) == (
        limited[0],
        NOTHING,
        Amount(600_000_000, 5),
        None,
    )
    run(store.settle(hold, Amount(100_000_000, 2)))
    assert service._holds == {1: {}}  # what is settled is not kept
    run(other.reserve("b", limited, Amount(600_000_000, 5), 1000))
    run(service.engine_lost(1))
    (standing,) = run(store.standings(limited))
    assert (standing.used, standing.reserved) == (Amount(100_000_000, 2), Amount(600_000_000, 5))
    run(service.engine_lost(2))
    (standing,) = run(store.standings(limited))
    assert (standing.used, standing.reserved) == (Amount(700_000_000, 7), NOTHING)
    with pytest.raises(ValueError, match="unknown call 'sing'"):
        run(over_json(service)("sing", {}))


@pytest.mark.rule("TSK-2", "TSK-3")
def test_each_refusal_of_a_task_has_its_error() -> None:
    assert limits_of({"id": "t", "max_usd": 0.5, "max_tokens": None}) == {"max_usd": 0.5}
    tasks = MemoryTasks()
    run(tasks.reserve("h", "t", {"max_usd": 0.5, "max_tokens": 9}, 0.25, 4))
    run(tasks.settle("h", "t", 0.25, 4, 1))
    differs = refusal(run(tasks.reserve("i", "t", {"max_tokens": 8}, 0, 0)), 0, 0, "m")
    assert (differs.kind, differs.message.split(";")[0]) == (
        "invalid_request",
        "task.max_tokens differs from that of the task t (9)",
    )
    unknown = refusal(run(tasks.reserve("i", "t", {}, 0, None)), 0, None, "m")
    assert (unknown.kind, unknown.model, unknown.message.split(" has ")[0]) == ("budget_exceeded", "m", "m")
    exceeded = refusal(run(tasks.reserve("i", "t", {}, 0.5, 4)), 0.5, 4, "m")
    assert (exceeded.kind, exceeded.model) == ("budget_exceeded", "m")
    assert "0.25 USD, 4 tokens and 1 requests are spent, this request may use 0.5 USD and 4 tokens" in exceeded.message
    assert exceeded.extra["task"] == {**run(tasks.get("t")), "estimate_usd": 0.5, "estimate_tokens": 4}
    without = refusal({"refused": "exceeded", "task": run(tasks.get("t"))}, None, None, "m")
    assert "this request may use 0 USD and 0 tokens" in without.message


@pytest.mark.rule("TSK-3")
def test_only_the_limits_of_a_task_need_an_estimate() -> None:
    tasks = MemoryTasks()
    run(tasks.reserve("a", "usd", {"max_usd": 1}, 0.5, None))
    run(tasks.reserve("b", "tokens", {"max_tokens": 9}, None, 4))
    run(tasks.reserve("c", "requests", {"max_requests": 2}, None, None))
    rows = [run(tasks.get(id)) for id in ("usd", "tokens", "requests")]
    assert [(row["reserved_usd"], row["reserved_tokens"], row["reserved_requests"]) for row in rows] == [
        (0.5, 0, 1),
        (0.0, 4, 1),
        (0.0, 0, 1),
    ]
    assert run(tasks.reserve("d", "requests", {}, None, None)) == {}
    assert run(tasks.reserve("e", "requests", {}, None, None))["refused"] == "exceeded"


@pytest.mark.rule("BUD-4", "TSK-3")
@pytest.mark.parametrize("of_task", [False, True])
def test_a_reservation_that_is_cancelled_while_it_is_made_is_released(of_task: bool) -> None:
    class Slow(MemoryStore):
        async def reserve(self, *args: Any) -> Any:
            await asyncio.sleep(0)
            return await super().reserve(*args)

    class SlowTasks(MemoryTasks):
        async def reserve(self, *args: Any) -> Any:
            await asyncio.sleep(0)
            return await super().reserve(*args)

    async def cancel() -> tuple[Any, Any]:
        store, tasks = Slow(Clock()), SlowTasks()
        spending = Spending(lambda: BUDGETS, store, tasks)
        work = spending.reserve_task("h", "t", {}, None, 7) if of_task else spending.reserve(accounts("ever"), Amount(9, 9), 1000)
        reserving = asyncio.ensure_future(work)
        await asyncio.sleep(0)
        reserving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reserving
        for _ in range(5):
            await asyncio.sleep(0)
        assert not spending._settling
        return (await store.standings(accounts("ever")))[0], await tasks.get("t")

    standing, row = run(cancel())
    assert (standing.reserved, standing.used) == (NOTHING, NOTHING)
    if of_task:
        assert (row["reserved_requests"], row["spent_requests"], row["spent_tokens"], row["spent_usd"]) == (0, 0, 0, 0)


@pytest.mark.rule("BUD-5")
@pytest.mark.parametrize(
    ("total", "input", "output", "counted"),
    [
        (None, None, None, None),
        (None, None, 7, None),
        (None, 3, None, 3),
        (None, 3, 4, 7),
        (9, 3, 4, 9),
        (5, 3, 4, 7),
        (5, None, None, 5),
    ],
)
def test_tokens_are_the_larger_of_the_total_and_its_parts(
    total: int | None, input: int | None, output: int | None, counted: int | None
) -> None:
    assert total_tokens({"total_tokens": total, "input_tokens": input, "output_tokens": output}) == counted
