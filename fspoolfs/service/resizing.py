"""A pool's storage follows the capacity in its definition, both ways.

Growing: the definition is saved first, and the storage of an active pool follows while it is used. What
a crash keeps from following is done by the next start; where the storage refuses, the definition goes
back to what it was. Shrinking: the storage first, then the definition, so that what a crash leaves
half done is made as large again as the definition says.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from fspoolfs.backends.registry import Registry
from fspoolfs.backends.source import Growable, Shrinkable, Source
from fspoolfs.errors import BusyError, FspoolError, InvalidError, StorageError, UnsupportedError
from fspoolfs.model.definitions import PoolDefinition
from fspoolfs.model.states import PoolState
from fspoolfs.progress import Progress
from fspoolfs.service.context import Context
from fspoolfs.service.jobs import Job
from fspoolfs.service.objects import Pool

Save = Callable[[Pool], Awaitable[None]]


def check_resizable(registry: Registry, pool: Pool) -> None:
    """Raise `UnsupportedError` for a pool whose storage has no capacity of its own."""
    source: Source = registry.source_for(pool.definition)
    if not isinstance(source, Growable):
        raise UnsupportedError(
            f"pool {pool.name} cannot change its capacity: it is that of the file system that its directory "
            "lies on"
        )


def storage_size(registry: Registry, definition: PoolDefinition) -> int | None:
    """The capacity that a pool's storage has; `None` where it has none, or it cannot be told. Blocks."""
    try:
        source: Source = registry.source_for(definition)
        return source.size(definition) if isinstance(source, Growable) else None
    except (OSError, FspoolError):
        return None  # build and start will say what is wrong with it


def is_growth(pool: Pool, live: PoolDefinition) -> bool:
    """Whether the storage of an active pool has to follow `live`. Raises `BusyError` if it cannot now."""
    attached = pool.attached
    if pool.state is not PoolState.ACTIVE or attached is None or not isinstance(attached.source, Growable):
        return False
    growing = live.capacity not in (None, pool.definition.capacity)
    if growing:
        _refuse_second_job(pool, "grow")
    return growing


async def grow(context: Context, pool: Pool, save: Save, before: PoolDefinition) -> None:
    """Let the storage follow the pool's definition, as a job; `before` is what it was.

    Raises how that failed, or `InProgressError`.
    """
    attached, capacity = pool.active(), pool.definition.capacity
    source, definition = attached.source, pool.definition
    assert isinstance(source, Growable)
    assert capacity is not None

    async def follow(job: Job) -> None:
        try:
            await _carry_out(
                context,
                pool,
                job,
                lambda progress: source.grow(definition, attached.root, capacity, progress),
            )
        except FspoolError:
            await _save_capacity(pool, save, before.capacity)
            raise

    await _run(context, pool, "grow", follow)


@dataclass(frozen=True, slots=True)
class Shrinking:
    """A definition that makes a pool smaller, and nothing else; see `plan_shrinking`."""

    source: Shrinkable
    capacity: int


def plan_shrinking(
    registry: Registry, pool: Pool, known: PoolDefinition, wanted: PoolDefinition
) -> Shrinking | None:
    """What has to be done for a capacity below that of `known`, which the storage has; else `None`.

    Raises `UnsupportedError` where the storage cannot, `InvalidError` when `wanted` changes more than
    that, `BusyError` while something else is under way. Blocks.
    """
    if wanted.capacity is None or known.capacity is None or wanted.capacity >= known.capacity:
        return None
    source: Source = registry.source_for(known)
    if not isinstance(source, Shrinkable):
        raise UnsupportedError(f"pool {pool.name} has a capacity of {known.capacity} bytes and cannot shrink")
    if replace(wanted, capacity=None) != replace(pool.pending or known, capacity=None):
        raise InvalidError(
            f"pool {pool.name}: a document that makes it smaller may change nothing else; write the new size "
            "into its capacity"
        )
    source.check_shrink(known, wanted.capacity, active=pool.state is PoolState.ACTIVE)
    _refuse_second_job(pool, "shrink")
    return Shrinking(source, wanted.capacity)


async def shrink(context: Context, pool: Pool, save: Save, planned: Shrinking) -> None:
    """Make the storage smaller, as a job, and then the definition say so."""
    definition = pool.definition
    root = pool.attached.root if pool.attached is not None else None

    async def make_smaller(job: Job) -> None:
        await _carry_out(
            context,
            pool,
            job,
            lambda progress: planned.source.shrink(definition, root, planned.capacity, progress),
        )
        await _save_capacity(pool, save, planned.capacity)

    await _run(context, pool, "shrink", make_smaller)


def _refuse_second_job(pool: Pool, verb: str) -> None:
    if pool.job is not None and pool.job.running:
        raise BusyError(f"pool {pool.name} cannot {verb} now: {pool.job.verb} is under way")


async def _run(context: Context, pool: Pool, verb: str, work: Callable[[Job], Awaitable[None]]) -> None:
    job = Job(verb, f"pool {pool.name}")
    pool.job = job
    await context.run_job(pool, job, work)


async def _carry_out(context: Context, pool: Pool, job: Job, act: Callable[[Progress], None]) -> None:
    """Let the storage `act`, and look at it. Raises `FspoolError`, which is the pool's last error then."""
    attached = pool.attached

    def act_and_look(progress: Progress) -> None:
        act(progress)
        if attached is not None:
            pool.space = attached.root.space()

    try:
        await context.in_thread(pool, act_and_look, job.progress)
    except (OSError, FspoolError) as error:
        refusal = (
            StorageError.from_os(f"{job.verb} pool {pool.name}", error)
            if isinstance(error, OSError)
            else error
        )
        pool.error = refusal
        raise refusal from error


async def _save_capacity(pool: Pool, save: Save, capacity: int | None) -> None:
    pool.definition = replace(pool.definition, capacity=capacity)
    if pool.pending is not None:
        pool.pending = replace(pool.pending, capacity=capacity)
    await save(pool)
