"""The verb `fence`: a person says that another host is off, and what it had is free."""

from __future__ import annotations

from contextlib import closing

from fspoolfs.backends.registry import Registry
from fspoolfs.backends.source import Shared
from fspoolfs.errors import UnsupportedError
from fspoolfs.progress import Progress
from fspoolfs.service.context import Context
from fspoolfs.service.hosts import joining
from fspoolfs.service.hosts.joining import Ourselves
from fspoolfs.service.jobs import Job
from fspoolfs.service.objects import Pool


async def fence(
    context: Context, registry: Registry, pool: Pool, host: str, ourselves: Ourselves, job: Job
) -> None:
    """Whether the pool is active here or not; what is attached for it is detached again."""
    definition, attached = pool.definition, pool.attached
    source = registry.source_for(definition)
    if not isinstance(source, Shared):
        raise UnsupportedError(f"pool {pool.name} is this host's alone; there is no other one to be fenced")
    shared: Shared = source

    def work(progress: Progress) -> None:
        if attached is not None and attached.tenancy is not None:
            joining.fence(definition, attached.root, attached.tenancy, host)
            return
        with closing(source.attach(definition, progress)) as root:
            try:
                sharing = shared.sharing(definition)
                place = joining.tenancy(definition, root, sharing, ourselves)
                joining.fence(definition, root, place, host)
            finally:
                root.close()
                source.detach(definition, force=False)

    await context.in_thread(pool, work, job.progress)
