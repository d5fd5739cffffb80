"""The composition root: wires the parts, mounts, serves until a signal or an unmount, and ends."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator

import pyfuse3
import trio

from fspoolfs import __version__, mountpoint
from fspoolfs.backends import layout
from fspoolfs.backends.cgroups import KernelGroups
from fspoolfs.backends.registry import Registry, default_registry, simulated_registry
from fspoolfs.backends.simulated_cgroups import SimulatedGroups
from fspoolfs.backends.simulator import SimulatedHost
from fspoolfs.config import Config
from fspoolfs.errors import FspoolError
from fspoolfs.ops.guard import Guard
from fspoolfs.ops.notify import Notifier
from fspoolfs.ops.operations import Operations
from fspoolfs.service.facade import Service
from fspoolfs.service.usage import NoUses
from fspoolfs.supervision import Supervision
from fspoolfs.system import deadman, descriptors, mounts
from fspoolfs.system.idmapping import MappedMounts
from fspoolfs.system.namespaces import MountWatch
from fspoolfs.system.service_manager import ServiceManager
from fspoolfs.system.showing import ReadOnlyMounts

log = logging.getLogger(__name__)

#: Requests handled at once. Those that wait for storage are many, those that run are one.
MAX_REQUESTS = 512
#: Objects made before Python looks for cyclic garbage: a start makes many that all stay, and the
#: default of 700 makes it look for a third of the time.
_GC_THRESHOLDS = (50_000, 20, 100)
#: Seconds that a request may take beyond the grace time of what it asked for.
_MARGIN = 5.0
#: How often Python changes between threads, in seconds: the default of 5 ms is longer than most
#: requests take from beginning to end.
_SWITCH_INTERVAL = 0.0005


def run(config: Config, ready: Callable[[], None]) -> None:
    """Serve until ended; `ready` is called when the tree is usable. Raises what keeps it from that.

    The caller holds the lock of the state directory and has prepared the mount point.
    """
    # Modes are always said in full; a mask would have to be undone with another system call each.
    os.umask(0)
    descriptors.raise_limit()
    sys.setswitchinterval(_SWITCH_INTERVAL)
    gc.set_threshold(*_GC_THRESHOLDS)
    try:
        trio.run(_serve, config, ServiceManager.from_environment(), ready)
    except BaseExceptionGroup as group:
        # Nurseries wrap the one refusal that there is; what is not foreseen stays as it came.
        refusals, others = group.split(FspoolError)
        if refusals is None or others is not None:
            raise
        raise next(_leaves(refusals)) from group


def _leaves(group: BaseExceptionGroup[FspoolError]) -> Iterator[FspoolError]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


async def _serve(config: Config, manager: ServiceManager, ready: Callable[[], None]) -> None:
    async with trio.open_nursery() as nursery:
        service = _make_service(config, nursery)
        # From the first to the last, so that a long end is not taken for a hung daemon.
        nursery.start_soon(Supervision(manager, service.pools, service.events).run)
        await service.start()
        guard = Guard(service.metrics, limit=config.grace + _MARGIN)
        operations = Operations(service, guard)
        notifier = Notifier(service.pools, operations.inodes, operations.open_handles)
        operations.on_connected = notifier.start
        service.events.listen(notifier.hear)

        def begun() -> None:
            manager.ready()
            ready()

        try:
            await _serve_mounted(config, operations, notifier, begun)
        finally:
            manager.stopping()
            with trio.CancelScope(shield=True):
                await service.stop()
            nursery.cancel_scope.cancel()


def _make_service(config: Config, nursery: trio.Nursery) -> Service:
    return Service(
        state=config.state_dir,
        storage=config.storage_dir,
        registry=_make_registry(config),
        finder=NoUses()
        if config.sim
        else MountWatch(
            (str(config.state_dir / "snapshots"), layout.SNAPSHOTS), own=str(config.state_dir / "idmapped")
        ),
        mounter=None if config.sim or os.geteuid() != 0 else ReadOnlyMounts(),
        mapper=None if config.sim or os.geteuid() != 0 else MappedMounts(),
        groups=SimulatedGroups() if config.sim else KernelGroups(config.cgroup_parent),
        nursery=nursery,
        grace=config.grace,
        stall_time=config.stall_time,
    )


def _make_registry(config: Config) -> Registry:
    if config.sim:
        return simulated_registry(SimulatedHost())
    return default_registry(config.storage_dir, libvirt_uri=config.libvirt_uri)


async def _serve_mounted(
    config: Config, operations: Operations, notifier: Notifier, ready: Callable[[], None]
) -> None:
    options = {f"fsname={mountpoint.SOURCE}", f"subtype={mountpoint.SUBTYPE}", *pyfuse3.default_options}
    if config.allow_other:
        options.add("allow_other")
    try:
        pyfuse3.init(operations, str(config.mountpoint), options)
    except RuntimeError as error:
        hint = ""
        if config.allow_other and os.geteuid() != 0:
            # fusermount3 says so on stderr, which a daemon in the background has not got.
            hint = "; --allow-other is for users only where /etc/fuse.conf says user_allow_other"
        raise FspoolError(f"{config.mountpoint} could not be mounted: {error}{hint}") from error
    try:
        _arm_switch(str(config.mountpoint))
        async with trio.open_nursery() as nursery:
            await nursery.start(_end_on_signal)
            log.info("fspoolfs %s serves %s, state in %s", __version__, config.mountpoint, config.state_dir)
            ready()
            await pyfuse3.main(max_tasks=MAX_REQUESTS)
            nursery.cancel_scope.cancel()
    finally:
        notifier.stop()
        pyfuse3.close(unmount=True)
        log.info("%s is unmounted", config.mountpoint)


def _arm_switch(target: str) -> None:
    """See to it that nobody waits for this process when it is dead."""
    mounted = mounts.mount_at(target)
    if mounted is None:  # somebody was quick to unmount it
        return
    try:
        deadman.arm(int(mounted.device.partition(":")[2]))
    except (OSError, FspoolError) as error:
        log.info("whoever waits for an answer when this daemon is killed may go on waiting: %s", error)


async def _end_on_signal(*, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        task_status.started()
        async for number in signals:
            log.info("%s: finishing", signal.Signals(number).name)
            pyfuse3.terminate()
