"""What a path may spend: the section of the config, the paths, and the two stores, held to the same behaviour."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from bridge_worker.budgets.limits import Account, Amount, Budgets, Hold, Standing, check_path, nano_usd, read_budgets
from bridge_worker.budgets.redis_store import RedisStore
from bridge_worker.budgets.store import MemoryStore, Store
from bridge_worker.config.redis_settings import client_settings
from bridge_worker.errors import BridgeError
from bridge_worker.system.redis_connection import RedisLink
from tests.support.redis_server import RedisServer
from tests.support.worker import WAIT_SECONDS

LEASE = 60_000


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@asynccontextmanager
async def redis_store(server: RedisServer) -> AsyncIterator[RedisStore]:
    link = RedisLink(client_settings(server.settings))
    store = RedisStore(link)
    watching = asyncio.create_task(link.watch())
    assert await link.ready()
    yield store
    watching.cancel()
    await link.aclose()


With = Callable[[Callable[[Store], Awaitable[None]]], None]


@pytest.fixture(params=["memory", "redis"])
def with_store(request: pytest.FixtureRequest) -> With:
    """Runs a story with each of the two stores."""

    async def run(story: Callable[[Store], Awaitable[None]]) -> None:
        if request.param == "memory":
            await story(MemoryStore())
            return
        async with redis_store(request.getfixturevalue("redis")) as store:
            await story(store)

    return lambda story: asyncio.run(run(story))


def accounts(*limits: dict[str, Any], path: str | None = None) -> tuple[Account, ...]:
    """Of a path that no other test uses: the one Redis serves them all."""
    path = path or f"agent-{uuid.uuid4().hex}"
    return read_budgets([{"path": path.split("/")[0], **limit} for limit in limits]).accounts(path)


def usd(dollars: float, tokens: int = 0) -> Amount:
    return Amount(nano_usd(dollars), tokens)


async def until(happens: Callable[[], Awaitable[bool]]) -> None:
    """For what has no event: another's clock, another's process."""
    async with asyncio.timeout(WAIT_SECONDS):
        while not await happens():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def frees(store: Store, mine: tuple[Account, ...]) -> bool:
    return isinstance(await store.reserve(uuid.uuid4().hex, mine, usd(1), LEASE), Hold)


async def knows(store: Store, mine: tuple[Account, ...], used: Amount) -> bool:
    return (await store.standings(mine))[0].used == used


async def held(store: Store, mine: tuple[Account, ...], amount: Amount, lease: int = LEASE) -> Hold:
    hold = await store.reserve(uuid.uuid4().hex, mine, amount, lease)
    assert isinstance(hold, Hold), hold
    return hold


# --- the config and the paths ---------------------------------------------------------------------------------------------------


def limits_of(budgets: Budgets, path: str | None) -> list[tuple[str, float | None, int | None]]:
    return [
        (account.path, limit.max_nano_usd and limit.max_nano_usd / 1e9, limit.window)
        for account in budgets.accounts(path)
        for limit in [account.limit]
    ]


def test_a_request_counts_against_each_prefix_of_its_path_that_has_a_limit() -> None:
    budgets = read_budgets(
        [
            {"path": "/", "max_usd": 100, "window": "1d"},
            {"path": "*", "max_usd": 5, "window": "1h"},
            {"path": "agent-7", "max_usd": 20},
            {"path": "agent-7", "max_usd": 2, "window": "1m"},
            {"path": "agent-7/*", "max_usd": 1},
        ]
    )
    assert limits_of(budgets, None) == [("/", 100, 86400)]
    assert limits_of(budgets, "agent-1") == [("/", 100, 86400), ("agent-1", 5, 3600)]
    assert limits_of(budgets, "agent-1/task") == [("/", 100, 86400), ("agent-1", 5, 3600)]
    assert limits_of(budgets, "agent-7/task-12/step") == [
        ("/", 100, 86400),
        ("agent-7", 20, None),  # the most specific pattern counts, with all of its rows
        ("agent-7", 2, 60),
        ("agent-7/task-12", 1, None),
    ]
    assert limits_of(Budgets(), "agent-7") == []


@pytest.mark.parametrize(
    ("section", "wrong"),
    [
        ({"path": "a"}, "omni_bridge.budgets: must be a list"),
        (["a"], "omni_bridge.budgets[0]: must be a mapping"),
        ([{"max_usd": 1}], "omni_bridge.budgets[0].path: must be"),
        ([{"path": "a//b", "max_usd": 1}], "omni_bridge.budgets[0].path: must be"),
        ([{"path": "a*", "max_usd": 1}], "omni_bridge.budgets[0].path: must be"),
        ([{"path": "a"}], "omni_bridge.budgets[0]: needs max_usd or max_tokens"),
        ([{"path": "a", "max_usd": -1}], "omni_bridge.budgets[0].max_usd: must be"),
        ([{"path": "a", "max_usd": float("nan")}], "omni_bridge.budgets[0].max_usd: must be"),
        ([{"path": "a", "max_usd": True}], "omni_bridge.budgets[0].max_usd: must be"),
        ([{"path": "a", "max_tokens": 1.5}], "omni_bridge.budgets[0].max_tokens: must be a whole"),
        ([{"path": "a", "max_usd": 1, "window": 3600}], "omni_bridge.budgets[0].window: must be"),
        ([{"path": "a", "max_usd": 1, "window": "0h"}], "omni_bridge.budgets[0].window: must be"),
        ([{"path": "a", "max_dollars": 1}], "omni_bridge.budgets[0].max_dollars: is not a setting"),
        ([{"path": "a", "max_usd": 1}, {"path": "a", "max_tokens": 1}], "omni_bridge.budgets[1]: an earlier limit"),
    ],
)
def test_an_error_in_the_config_is_named_with_its_location(section: object, wrong: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        read_budgets(section)
    assert wrong in str(caught.value)


@pytest.mark.rule("BUD-1")
@pytest.mark.parametrize(
    "path", ["", "/", "a/", "/a", "a//b", "..", "a/../b", "a b", "*", "a/*", "ä", "a\n", "-a", "x" * 65, "/".join("a" * 9)]
)
def test_a_path_that_is_none_is_refused(path: str) -> None:
    with pytest.raises(BridgeError, match=r"metadata\.budget must be a path"):
        check_path(path, "metadata.budget")


@pytest.mark.parametrize("path", ["a", "agent-7/task-12", "A.b_c:d@e/1", "x" * 64, "/".join("abcdefgh")])
def test_a_path_is_names_between_slashes(path: str) -> None:
    check_path(path, "metadata.budget")


@pytest.mark.parametrize(("dollars", "nano"), [(0.1, 100_000_000), (7.5e-8, 75), (1e-10, 1), (0, 0), (0.3, 300_000_000)])
def test_money_is_whole_billionths_of_a_dollar_rounded_up(dollars: float, nano: int) -> None:
    assert nano_usd(dollars) == nano


# --- the stores -----------------------------------------------------------------------------------------------------------------


def test_what_is_reserved_takes_room_and_what_was_not_used_of_it_is_free_again(with_store: With) -> None:
    async def story(store: Store) -> None:
        mine = accounts({"max_usd": 1.0})
        hold = await held(store, mine, usd(0.6, 10))
        full = await store.reserve("another", mine, usd(0.5), LEASE)
        assert isinstance(full, Standing)
        assert (full.used, full.reserved, full.resets_ms) == (usd(0), usd(0.6, 10), None)
        await store.settle(hold, usd(0.1, 3))
        (standing,) = await store.standings(mine)
        assert (standing.used, standing.reserved) == (usd(0.1, 3), usd(0))
        await held(store, mine, usd(0.9))  # to the last billionth
        assert isinstance(await store.reserve("one more", mine, Amount(1, 0), LEASE), Standing)

    with_store(story)


def test_tokens_have_a_separate_limit(with_store: With) -> None:
    async def story(store: Store) -> None:
        mine = accounts({"max_tokens": 100})
        await held(store, mine, usd(50, 100))
        assert isinstance(await store.reserve("one more", mine, usd(0, 1), LEASE), Standing)
        await held(store, mine, usd(1, 0))

    with_store(story)


def test_where_one_account_is_full_nothing_is_reserved_in_the_others(with_store: With) -> None:
    async def story(store: Store) -> None:
        mine = accounts({"max_usd": 10, "window": "30d"}, {"max_usd": 1})
        full = await store.reserve("too much", mine, usd(2), LEASE)
        assert isinstance(full, Standing)
        assert full.account == mine[1]
        assert [standing.reserved for standing in await store.standings(mine)] == [usd(0), usd(0)]
        hold = await held(store, mine, usd(1))
        await store.settle(hold, usd(1))
        assert [standing.used for standing in await store.standings(mine)] == [usd(1), usd(1)]

    with_store(story)


@pytest.mark.rule("BUD-4")
def test_however_many_run_together_the_limit_is_not_passed(with_store: With) -> None:
    async def story(store: Store) -> None:
        mine = accounts({"max_usd": 1.0, "max_tokens": 1000})

        async def one(number: int) -> bool:
            hold = await store.reserve(uuid.uuid4().hex, mine, usd(0.03, 7), LEASE)
            if isinstance(hold, Standing):
                return False
            await asyncio.sleep(0)
            await store.settle(hold, usd(0.02, 7))
            return True

        done = [sum(await asyncio.gather(*map(one, range(40)))) for _ in range(3)]
        (standing,) = await store.standings(mine)
        assert standing.reserved == usd(0)
        assert standing.used == usd(0.02 * sum(done), 7 * sum(done))
        assert sum(done) >= 48, "nearly all of it can be used"
        assert standing.used.nano_usd <= nano_usd(1.0)

    with_store(story)


@pytest.mark.rule("BUD-9")
def test_a_window_ends_and_another_begins(with_store: With) -> None:
    async def story(store: Store) -> None:
        mine = accounts({"max_usd": 1, "window": "1s"})
        hold = await held(store, mine, usd(1))
        (standing,) = await store.standings(mine)
        assert standing.resets_ms is not None
        while isinstance(full := await store.reserve("more", mine, usd(1), LEASE), Standing):
            assert 0 <= (full.resets_ms or 0) <= 1000
            await asyncio.sleep((full.resets_ms or 0) / 1000 + 0.001)  # the store's clock is the one that counts
        await store.settle(hold, usd(1))  # began in the window before, and counts there
        assert [standing.used for standing in await store.standings(mine)] == [usd(0)]

    with_store(story)


def test_the_memory_of_windows_that_are_over_is_given_back() -> None:
    async def story() -> None:
        now = 0.0
        store = MemoryStore(lambda: now)
        for _ in range(5):
            now += 60
            for number in range(1000):
                mine = accounts({"max_usd": 1, "window": "1m"}, path=f"agent-{number}-{now:.0f}")
                await store.settle(await held(store, mine, usd(1)), usd(1))
        assert len(store._books) < 3000

    asyncio.run(story())


# --- in Redis -------------------------------------------------------------------------------------------------------------------


def test_two_workers_share_an_account(redis: RedisServer) -> None:
    async def story() -> None:
        mine = accounts({"max_usd": 1})
        async with redis_store(redis) as left, redis_store(redis) as right:
            hold = await held(left, mine, usd(0.7))
            assert isinstance(await right.reserve("more", mine, usd(0.7), LEASE), Standing)
            await left.settle(hold, usd(0.2))
            await right.settle(await held(right, mine, usd(0.8)), usd(0.8))
            assert [standing.used for standing in await left.standings(mine)] == [usd(1.0)]

    asyncio.run(story())


@pytest.mark.rule("BUD-10")
def test_what_a_dead_worker_reserved_is_free_when_its_lease_is_over(redis: RedisServer) -> None:
    async def story() -> None:
        mine = accounts({"max_usd": 1})
        async with redis_store(redis) as dead:
            await held(dead, mine, usd(1), lease=50)
        async with redis_store(redis) as store:
            await until(lambda: frees(store, mine))

    asyncio.run(story())


@pytest.mark.rule("BUD-11")
def test_a_worker_that_loses_redis_continues_from_its_last_state_and_reports_to_redis_afterwards(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def story() -> None:
        with RedisServer() as server:
            mine = accounts({"max_usd": 1})
            async with redis_store(server) as store, redis_store(server) as other:
                before = await held(store, mine, usd(0.2))
                await store.settle(await held(store, mine, usd(0.5)), usd(0.5))
                server.stop()
                await store.settle(before, usd(0.1))
                assert isinstance(await store.reserve("too much", mine, usd(0.6), LEASE), Standing)  # 0.5 it knows of
                alone = await held(store, mine, usd(0.3))
                await store.settle(alone, usd(0.25))
                server.start()  # empty: it keeps nothing
                await until(lambda: knows(other, mine, usd(0.35)))

    asyncio.run(story())
    lost, *_ = [record.getMessage() for record in caplog.records if record.name == "bridge_worker.system.redis_connection"]
    assert lost.startswith("Redis can't be reached")
    assert "Redis is back: cooldowns, usage, cache and budgets are shared again" in caplog.messages
    assert "correct-horse" not in caplog.text
