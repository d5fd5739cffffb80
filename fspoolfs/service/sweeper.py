"""Removes in the background what was purged, and purges what has been in the trash long enough."""

from __future__ import annotations

import logging
import time

import trio

from fspoolfs.backends import layout
from fspoolfs.errors import CancelledError, FspoolError, StorageError
from fspoolfs.progress import Progress
from fspoolfs.service.context import Context
from fspoolfs.service.hosts.exclusion import SweepExclusion
from fspoolfs.service.jobs import Job
from fspoolfs.service.objects import Attached, Pool
from fspoolfs.service.trash import Trash

log = logging.getLogger(__name__)

#: Seconds between two looks at the trash's age, and before rubbish that could not be removed is
#: tried again.
INTERVAL = 30.0


async def sweep(pool: Pool, attached: Attached, context: Context) -> None:
    """Remove what lies in the purge directory, whenever there is something; until cancelled."""
    while True:
        await attached.rubbish.wait()
        attached.rubbish = trio.Event()
        job = Job("purge", f"pool {pool.name}")
        pool.purging = job

        def remove(progress: Progress) -> bool:
            with SweepExclusion(attached) as may:
                for name in attached.root.names(layout.PURGE) if may else ():
                    attached.filesystem.remove(f"{layout.PURGE}/{name}", progress)
            return may

        mine = True
        try:
            mine = await context.in_thread(pool, remove, job.progress)
        except CancelledError:
            log.info("pool %s: purging was cancelled; it goes on with the next start", pool.name)
        except (FspoolError, OSError) as error:
            job.error = (
                error
                if isinstance(error, FspoolError)
                else StorageError.from_os(f"purge in pool {pool.name}", error)
            )
            pool.error = job.error
            log.warning("pool %s: %s", pool.name, job.error)
        finally:
            job.progress.cancel()
            job.finished.set()
        if job.error is not None or not mine:  # another host is at it, and has looked already
            await trio.sleep(INTERVAL)
            attached.rubbish.set()


async def expire(pool: Pool, attached: Attached, trash: Trash) -> None:
    """Purge every deleted item whose retention is over; until cancelled."""
    while True:
        retention = pool.definition.trash.retention
        limit = time.time() - retention
        for name in [entry.name for entry in pool.trash.values() if entry.deleted <= limit]:
            try:
                await trash.purge(pool, name)
            except FspoolError as error:
                log.warning("pool %s: %s in the trash is not purged: %s", pool.name, name, error)
        attached.reconsider = trio.Event()
        with trio.move_on_after(INTERVAL if retention > INTERVAL else max(1.0, retention / 2)):
            await attached.reconsider.wait()
