"""What goes on beside an active pool until it is stopped: purging, expiry, looks at its limits and root."""

from __future__ import annotations

import logging

import trio

from fspoolfs.backends.source import Remote
from fspoolfs.errors import FspoolError, StorageError
from fspoolfs.model.states import PoolState
from fspoolfs.service import opening
from fspoolfs.service.context import KEPT, Context
from fspoolfs.service.health import Health
from fspoolfs.service.objects import Attached, Item, Pool
from fspoolfs.service.sweeper import expire, sweep
from fspoolfs.service.trash import Trash
from fspoolfs.service.watching import Watcher

log = logging.getLogger(__name__)

#: Seconds between two looks whether an active pool's root is still there.
VERIFY_INTERVAL = 15.0


class Companion:
    """Starts and ends the background work of each active pool."""

    def __init__(
        self, context: Context, trash: Trash, watcher: Watcher, health: Health, nursery: trio.Nursery
    ) -> None:
        self._context = context
        self._health = health
        self._trash = trash
        self._watcher = watcher
        self._nursery = nursery
        self._scopes: dict[int, trio.CancelScope] = {}
        self._verifying: set[int] = set()
        context.suspect = self._suspect

    def begin(self, pool: Pool, attached: Attached) -> None:
        scope = self._scopes[pool.number] = trio.CancelScope()

        async def accompany() -> None:
            try:
                with scope:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(sweep, pool, attached, self._context)
                        nursery.start_soon(expire, pool, attached, self._trash)
                        nursery.start_soon(self._watcher.watch, pool, attached)
                        nursery.start_soon(self._health.watch, pool, attached)
                        nursery.start_soon(self._verify_regularly, pool)
            except Exception as error:
                # One pool's trouble, foreseen or not, ends neither the daemon nor the others.
                log.exception("pool %s: the work beside it ended", pool.name)
                pool.error = pool.problem = FspoolError(
                    f"pool {pool.name}: not foreseen: {error!r}; start it again"
                )
                self._context.set_state(pool, PoolState.FAILED)

        self._nursery.start_soon(accompany)

    def end(self, pool: Pool) -> None:
        """Cancel what runs; threads under way are told to stop and may take a moment."""
        scope = self._scopes.pop(pool.number, None)
        if scope is not None:
            scope.cancel()

    async def _verify_regularly(self, pool: Pool) -> None:
        while True:
            await trio.sleep(VERIFY_INTERVAL)
            await self._verify(pool)

    def _suspect(self, pool: Pool) -> None:
        if pool.number not in self._verifying:
            self._nursery.start_soon(self._verify, pool)

    async def _verify(self, pool: Pool) -> None:
        """Let the pool fail when its root is not there any more, or its journal is broken."""
        if pool.state not in KEPT or pool.attached is None or pool.number in self._verifying:
            return
        attached, definition = pool.attached, pool.definition
        remote = isinstance(attached.source, Remote)

        def look() -> FspoolError | None:
            try:
                attached.source.verify(definition, attached.root)
                if not remote:  # which is asked for it regularly, and may take its time
                    pool.space = attached.root.space()
            except FspoolError as error:
                return error
            except OSError as error:
                return StorageError.from_os(f"look at the root of pool {pool.name}", error)
            return None

        self._verifying.add(pool.number)
        try:
            # Those of the pool may all wait for a server; this one does not.
            limiter = None if remote else pool.limiter
            trouble = await trio.to_thread.run_sync(look, limiter=limiter, abandon_on_cancel=True)
        finally:
            self._verifying.discard(pool.number)
        trouble = trouble or attached.committer.broken
        if trouble is not None:
            self._context.fail(pool, attached, trouble)

    async def leave(self, pool: Pool, attached: Attached) -> None:
        """Spare the next start what this one had to parse, and close what nobody uses any more.

        One change of threads for both. Work that the committer still has is left to it.
        """
        items = list(pool.items.values())

        def work() -> None:
            if attached.committer.broken is None:
                self._save_index(pool, attached, items)
            attached.committer.close_idle()

        await trio.to_thread.run_sync(work, limiter=pool.limiter, abandon_on_cancel=True)

    def _save_index(self, pool: Pool, attached: Attached, items: list[Item]) -> None:
        try:
            opening.save_index(attached, items)
        except OSError as error:
            log.warning("pool %s: no index is left for the next start: %s", pool.name, error)

    async def _save_index_now(self, pool: Pool, attached: Attached) -> None:
        items = list(pool.items.values())
        await trio.to_thread.run_sync(
            self._save_index, pool, attached, items, limiter=pool.limiter, abandon_on_cancel=True
        )

    def save_index_soon(self, pool: Pool, attached: Attached) -> None:
        self._nursery.start_soon(self._save_index_now, pool, attached)
