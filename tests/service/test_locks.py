"""Locks by name: order, release, and what a cancelled waiter leaves."""

from __future__ import annotations

import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from fspoolfs.service.locks import KeyedLocks


async def test_free_keys_are_taken_without_yielding() -> None:
    locks = KeyedLocks()
    ran = []

    async def other() -> None:
        ran.append("other")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        lease = await locks.acquire("b", "a", "b")
        assert ran == []
        assert locks.held("a")
        assert locks.held("b")
        lease.release()
        assert not locks.held("a")
        assert not locks.held("b")


async def test_a_key_is_handed_on_in_order_of_arrival() -> None:
    locks, order = KeyedLocks(), []

    async def wait(name: str) -> None:
        lease = await locks.acquire("key")
        order.append(name)
        lease.release()

    first = await locks.acquire("key")
    async with trio.open_nursery() as nursery:
        for name in ("one", "two", "three"):
            nursery.start_soon(wait, name)
            await wait_all_tasks_blocked()
        assert order == []
        first.release()
    assert order == ["one", "two", "three"]
    assert not locks.held("key")


async def test_a_lease_released_twice_takes_nothing_from_the_next_holder() -> None:
    locks = KeyedLocks()
    first = await locks.acquire("key")
    first.release()
    await locks.acquire("key")
    first.release()
    assert locks.held("key")


async def test_a_cancelled_waiter_gives_back_what_it_had_and_leaves_the_queue() -> None:
    locks = KeyedLocks()
    held = await locks.acquire("b")
    with trio.move_on_after(0):
        await locks.acquire("a", "b")
    assert not locks.held("a")
    held.release()
    assert not locks.held("b")


async def test_a_waiter_cancelled_in_the_moment_of_its_turn_hands_the_key_on() -> None:
    locks, got = KeyedLocks(), []
    held = await locks.acquire("key")

    async def wait() -> None:
        (await locks.acquire("key")).release()
        got.append("key")

    scope = trio.CancelScope()

    async def doomed() -> None:
        with scope:
            await locks.acquire("key")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(doomed)
        await wait_all_tasks_blocked()
        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        scope.cancel()
        held.release()
    assert got == ["key"]
    assert not locks.held("key")


async def test_two_who_want_the_same_keys_in_another_order_do_not_block_each_other() -> None:
    locks = KeyedLocks()

    async def hold(*keys: str) -> None:
        for _ in range(20):
            lease = await locks.acquire(*keys)
            await trio.lowlevel.checkpoint()
            lease.release()

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hold, "a", "b")
            nursery.start_soon(hold, "b", "a")
            nursery.start_soon(hold, "b", "c", "a")
    assert not any(map(locks.held, "abc"))


@given(st.lists(st.tuples(st.sets(st.sampled_from("abc"), min_size=1), st.booleans()), max_size=12))
def test_no_two_hold_a_key_and_none_is_left_held(wishes: list[tuple[set[str], bool]]) -> None:
    async def main() -> None:
        locks = KeyedLocks()
        held: list[set[str]] = []

        async def want(keys: set[str], patient: bool) -> None:
            with trio.move_on_after(trio.current_time() if patient else 0):
                lease = await locks.acquire(*keys)
                assert not keys & {key for one in held for key in one}
                held.append(keys)
                with trio.CancelScope(shield=True):
                    await trio.lowlevel.checkpoint()
                held.remove(keys)
                lease.release()

        async with trio.open_nursery() as nursery:
            for keys, patient in wishes:
                nursery.start_soon(want, keys, patient)
        assert not any(map(locks.held, "abc"))

    trio.run(main)
