"""Growth of a pool: its storage follows a larger capacity in its definition, while it is in use.

The definition is saved first. What a crash keeps from following is done by the next start; where the
storage refuses, the definition goes back to what it was. Never makes anything smaller.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

from fspoolfs.backends.registry import Registry
from fspoolfs.backends.source import Growable, Source
from fspoolfs.errors import BusyError, FspoolError, StorageError, UnsupportedError
from fspoolfs.model.definitions import PoolDefinition
from fspoolfs.model.states import PoolState
from fspoolfs.service.context import Context
from fspoolfs.service.jobs import Job
from fspoolfs.service.objects import Pool

Save = Callable[[Pool], Awaitable[None]]


def check_growable(registry: Registry, pool: Pool) -> None:
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


def refuse_shrinking(pool: Pool, wanted: PoolDefinition, size: int | None) -> None:
    """Raise `UnsupportedError` for a capacity below the `size` that the storage has."""
    if size is not None and wanted.capacity is not None and wanted.capacity < size:
        raise UnsupportedError(
            f"pool {pool.name} has a capacity of {size} bytes and cannot shrink to {wanted.capacity}: its "
            "file system is not made smaller; make another pool and move the items"
        )


def is_growth(pool: Pool, live: PoolDefinition) -> bool:
    """Whether the storage of an active pool has to follow `live`. Raises `BusyError` if it cannot now."""
    attached = pool.attached
    if pool.state is not PoolState.ACTIVE or attached is None or not isinstance(attached.source, Growable):
        return False
    growing = live.capacity not in (None, pool.definition.capacity)
    if growing and pool.job is not None and pool.job.running:
        raise BusyError(f"pool {pool.name} cannot grow now: {pool.job.verb} is under way")
    return growing


async def grow(context: Context, pool: Pool, save: Save, before: PoolDefinition) -> None:
    """Let the storage follow the pool's definition, as a job; `before` is what it was.

    Raises how that failed, or `InProgressError`.
    """
    attached, capacity = pool.active(), pool.definition.capacity
    source, definition = attached.source, pool.definition
    assert isinstance(source, Growable)
    assert capacity is not None
    job = Job("grow", f"pool {pool.name}")
    pool.job = job

    async def work(job: Job) -> None:
        try:
            await context.in_thread(
                pool,
                lambda progress: source.resize(definition, attached.root, capacity, progress),
                job.progress,
            )
        except (OSError, FspoolError) as error:
            refusal = (
                StorageError.from_os(f"grow pool {pool.name}", error) if isinstance(error, OSError) else error
            )
            pool.error = refusal
            pool.definition = replace(pool.definition, capacity=before.capacity)
            if pool.pending is not None:
                pool.pending = replace(pool.pending, capacity=before.capacity)
            await save(pool)
            raise refusal from error

    await context.run_job(pool, job, work)
