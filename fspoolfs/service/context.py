"""What all parts of the service share: events, threads, jobs, and how a change is waited for."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from fspoolfs.errors import FspoolError, InProgressError, StorageError, UnansweredError
from fspoolfs.model.states import PoolState
from fspoolfs.progress import Progress
from fspoolfs.service.changes import ItemChange
from fspoolfs.service.deadlines import Deadlines
from fspoolfs.service.events import Event, EventLog
from fspoolfs.service.group_keeper import GroupKeeper
from fspoolfs.service.group_steps import LimitedChange, Step
from fspoolfs.service.jobs import Job, JobRunner
from fspoolfs.service.mapping import Mappings
from fspoolfs.service.objects import Attached, Pool
from fspoolfs.service.usage import UseFinder

T = TypeVar("T")
log = logging.getLogger(__name__)


#: The states in which a pool has a root that can be lost.
KEPT = (PoolState.ACTIVE, PoolState.STALLED)


class Context:
    """Shared by the services. `grace` is how long a request is waited for, in seconds."""

    def __init__(
        self,
        *,
        events: EventLog,
        runner: JobRunner,
        finder: UseFinder,
        mappings: Mappings,
        groups: GroupKeeper,
        grace: float,
    ) -> None:
        self.events = events
        self.runner = runner
        self.finder = finder
        self.mappings = mappings
        self.groups = groups
        self.grace = grace
        self.deadlines = Deadlines(grace)
        #: Seconds after which remote storage that has not answered is taken for one that does not.
        self.quiet_time = math.inf
        #: Called in the event loop with a pool whose storage gave an error.
        self.suspect: Callable[[Pool], None] = lambda pool: None

    def silence(self, attached: Attached) -> float:
        """For how many seconds remote storage has not answered; 0 for this host's own."""
        return 0.0 if attached.heard is None else trio.current_time() - attached.heard

    def is_silent(self, pool: Pool) -> bool:
        """Whether waiting for what is asked of the pool's storage is in vain at present."""
        return pool.attached is not None and self.silence(pool.attached) >= self.quiet_time

    def unanswered(self, pool: Pool, goes_on: InProgressError) -> InProgressError:
        """What somebody is told whose request has not ended in the grace time."""
        if pool.attached is None or not self.is_silent(pool):
            return goes_on
        return UnansweredError(
            f"pool {pool.name}: its server has not answered for {self.silence(pool.attached):.0f} "
            "seconds; what was "
            "asked may still be done when it does, look then; stop or destroy lets go what waits for it"
        )

    def set_state(self, pool: Pool, state: PoolState, **details: str) -> None:
        """Put `pool` into `state` and tell; nothing is told where it was in it already."""
        if state is not pool.state:
            pool.state = state
            pool.changed = int(time.time())
            told: dict[str, str | int] = {"state": state.value, **details}
            self.events.publish(Event(kind="pool-state", pool=pool.name, details=told))

    def fail(self, pool: Pool, attached: Attached, trouble: FspoolError) -> None:
        """What `pool` is attached to is lost; nothing is done where it is attached to something else "
        "by now."""
        if pool.attached is attached and pool.state in KEPT:
            log.error("pool %s has failed: %s", pool.name, trouble)
            pool.error = pool.problem = trouble
            self.set_state(pool, PoolState.FAILED, reason=trouble.sentence)

    async def commit(
        self,
        pool: Pool,
        attached: Attached,
        change: ItemChange,
        *,
        step: Step | None = None,
        patient: bool = False,
    ) -> None:
        """Have `change` carried out and wait for the end, up to the grace time unless `patient`.

        `step` is what becomes of the item's control group with it.
        Raises how it failed, or `InProgressError`.
        """

        def settled(error: Exception | None) -> None:
            if isinstance(error, StorageError) or attached.committer.broken is not None:
                self.suspect(pool)

        change.watch(settled)
        change.accounts = attached.accounts
        attached.committer.submit(change if step is None else LimitedChange(change, step))
        if not patient:
            self.deadlines.add(change.let_go)
        try:
            await change.outcome()
        except InProgressError as error:
            raise self.unanswered(pool, error) from None

    async def in_thread(self, pool: Pool, work: Callable[[Progress], T], progress: Progress) -> T:
        """Run blocking `work` in one of the pool's threads; a cancelled caller abandons it."""
        return await trio.to_thread.run_sync(work, progress, limiter=pool.limiter, abandon_on_cancel=True)

    async def run_job(
        self, pool: Pool, job: Job, work: Callable[[Job], Awaitable[None]], *, item: str = ""
    ) -> None:
        """Run `work` as a job and wait up to the grace time for its end.

        Raises how it failed, or `InProgressError`. Its end is an event.
        """

        async def told(job: Job) -> None:
            try:
                await work(job)
            except Exception as error:
                self._tell(pool, job, item, "job-failed", reason=str(error))
                raise
            self._tell(pool, job, item, "job-done")

        await self.run_quietly(pool, job, told)

    async def run_quietly(self, pool: Pool, job: Job, work: Callable[[Job], Awaitable[None]]) -> None:
        """Like `run_job`, for what usually takes a moment and whose end is told otherwise."""
        self.runner.start(job, work)
        try:
            await job.outcome(self.grace)
        except InProgressError as error:
            raise self.unanswered(pool, error) from None

    def _tell(self, pool: Pool, job: Job, item: str, kind: str, **details: str) -> None:
        self.events.publish(Event(kind=kind, pool=pool.name, item=item, details={"job": job.verb, **details}))
