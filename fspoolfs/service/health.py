"""Whether the storage of active pools answers: what makes a pool `stalled`, and active again.

Only sources whose storage is remote are asked, one question at a time for each pool, in a thread that
nothing else waits for: a server that hangs keeps that thread, however long, and no other. Storage that
answers again is taken up again; nothing is started or stopped here.
"""

from __future__ import annotations

import logging

import trio

from fspoolfs.backends.source import Remote
from fspoolfs.errors import FspoolError, TimeLimitError
from fspoolfs.model.states import PoolState
from fspoolfs.service.context import Context
from fspoolfs.service.objects import Attached, Pool

log = logging.getLogger(__name__)

#: Seconds between two questions, and the part of the stall time that they are at most apart.
INTERVAL = 2.0
_PART = 5


class Health:
    """Asks for as long as `watch` runs. `stall_time` is in seconds."""

    def __init__(self, context: Context, *, stall_time: float) -> None:
        self._context = context
        self._stall_time = stall_time
        self._interval = min(INTERVAL, stall_time / _PART)
        context.quiet_time = self._interval * 1.5

    async def watch(self, pool: Pool, attached: Attached) -> None:
        """Until cancelled; ends at once where the storage is this host's own."""
        if not isinstance(attached.source, Remote):
            return
        attached.heard = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._ask, pool, attached, attached.source)
            while True:
                # Not before it can have been silent for that long: many pools would wake all the time.
                await trio.sleep(max(self._stall_time - self._context.silence(attached), self._interval / 2))
                self._judge(pool, attached)

    async def _ask(self, pool: Pool, attached: Attached, source: Remote) -> None:
        alone = trio.CapacityLimiter(1)
        while True:
            definition = pool.definition
            try:
                await trio.to_thread.run_sync(
                    source.ping, definition, attached.root, limiter=alone, abandon_on_cancel=True
                )
            except OSError as error:
                log.debug("pool %s: its storage does not answer: %s", pool.name, error)
                self._context.suspect(pool)
            except FspoolError as error:
                self._context.fail(pool, attached, error)
            else:
                attached.heard = trio.current_time()
                self._judge(pool, attached)
            await trio.sleep(self._interval)

    def _judge(self, pool: Pool, attached: Attached) -> None:
        if pool.attached is not attached:
            return
        silence = self._context.silence(attached)
        if pool.state is PoolState.ACTIVE and silence >= self._stall_time:
            pool.error = pool.problem = TimeLimitError(
                f"pool {pool.name}: its server has not answered for {silence:.0f} seconds; what is "
                "asked of the "
                "pool is refused until it does, and it is active again by itself then; stop or destroy lets "
                "go what waits for it"
            )
            log.warning("%s", pool.problem)
            self._context.set_state(pool, PoolState.STALLED, reason=pool.problem.sentence)
        elif pool.state is PoolState.STALLED and silence < self._context.quiet_time:
            log.info("pool %s: its server answers again", pool.name)
            pool.problem = None
            self._context.set_state(pool, PoolState.ACTIVE)
            self._context.suspect(pool)  # what was under way may have broken its journal
            attached.reconsider.set()
