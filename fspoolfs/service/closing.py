"""Ends what an attached pool has going on and leaves its storage synced, for a stop or the daemon's end."""

from __future__ import annotations

import logging

import trio

from fspoolfs.errors import FspoolError, StorageError
from fspoolfs.service.companion import Companion
from fspoolfs.service.context import Context
from fspoolfs.service.hosts.membership import Tenancy
from fspoolfs.service.objects import THREADS_PER_POOL, Attached, Pool

log = logging.getLogger(__name__)

#: Seconds in which storage that answers lets files be closed.
_GIVE_UP = 1.0


async def close(
    context: Context,
    companion: Companion,
    pool: Pool,
    attached: Attached,
    *,
    force: bool,
    leaves: bool = False,
) -> None:
    """End all work on the root and leave it synced; with `leaves` this host no longer has the pool."""
    companion.end(pool)
    for item in pool.items.values():
        if item.job is not None and item.job.running:
            item.job.progress.cancel()
    # What a server does not answer is not waited for a second time.
    answered, patience = False, 0.0 if context.is_silent(pool) else context.grace
    with trio.move_on_after(patience):
        await companion.leave(pool, attached)
        try:
            await attached.committer.close()
        except StorageError as error:
            if not force:
                log.warning("pool %s: %s", pool.name, error)
        for _ in range(THREADS_PER_POOL):
            borrower = object()
            try:  # without a turn of the event loop each
                attached.limiter.acquire_on_behalf_of_nowait(borrower)
            except trio.WouldBlock:
                await attached.limiter.acquire_on_behalf_of(borrower)
        if leaves and attached.tenancy is not None:
            await trio.to_thread.run_sync(_leave, pool.name, attached.tenancy, abandon_on_cancel=True)
        answered = True
    if not answered:
        log.error("pool %s: its storage does not answer; it is let go as it is", pool.name)
        with trio.move_on_after(_GIVE_UP):
            await trio.to_thread.run_sync(_give_up, attached, abandon_on_cancel=True)
        if leaves and attached.tenancy is not None:
            await trio.to_thread.run_sync(attached.tenancy.let_go)
        return
    attached.root.close()


def _give_up(attached: Attached) -> None:
    """Threads that come back from the storage find the root and the journal closed.

    To close a file waits for its server (close(2) of a file that may have been written).
    """
    attached.root.close()
    attached.committer.abandon()


def _leave(pool: str, tenancy: Tenancy) -> None:
    """Storage that fails, or that others have put this host out of, is let go all the same."""
    try:
        tenancy.leave()
    except (OSError, FspoolError) as error:
        log.warning("pool %s: %s", pool, error)
        tenancy.let_go()
