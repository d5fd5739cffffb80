"""Locks by name: one holder of a key at a time, in order of arrival, free of cost where uncontended.

Used from the event loop only. A lease is released by whoever finishes the work, which need not be
the task that acquired it: a change that outlives its request keeps its keys until it is settled.
"""

from __future__ import annotations

from collections import deque

import trio


class Lease:
    """The keys that are held; `release` gives them back and may be called twice."""

    __slots__ = ("_keys", "_locks")

    def __init__(self, locks: KeyedLocks, keys: tuple[str, ...]) -> None:
        self._locks = locks
        self._keys = keys

    def release(self) -> None:
        keys, self._keys = self._keys, ()
        for key in keys:
            self._locks.release_key(key)


class KeyedLocks:
    """Locks that exist while somebody holds or awaits them."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[trio.Event]] = {}

    async def acquire(self, *keys: str) -> Lease:
        """Wait until no one else holds any of `keys`; they are taken in sorted order.

        Does not yield to the event loop when all are free.
        """
        held: list[str] = []
        try:
            for key in sorted(set(keys)):
                await self._acquire_key(key)
                held.append(key)
        except BaseException:
            for key in held:
                self.release_key(key)
            raise
        return Lease(self, tuple(held))

    async def _acquire_key(self, key: str) -> None:
        waiting = self._waiting.get(key)
        if waiting is None:
            self._waiting[key] = deque()
            return
        turn = trio.Event()
        waiting.append(turn)
        try:
            await turn.wait()
        except BaseException:
            if turn.is_set():
                self.release_key(key)
            else:
                waiting.remove(turn)
            raise

    def release_key(self, key: str) -> None:
        """Hand `key` to the next in line."""
        waiting = self._waiting[key]
        if waiting:
            waiting.popleft().set()
        else:
            del self._waiting[key]

    def held(self, key: str) -> bool:
        return key in self._waiting
