"""Becoming one of the hosts that have a pool active, and what a start does in its first turn. Blocking."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from uuid import UUID

import trio

from fspoolfs.backends import layout
from fspoolfs.backends.filesystem import FileSystem
from fspoolfs.backends.root import RootDirectory, SharedDirectory
from fspoolfs.backends.source import Shared, Sharing, Source
from fspoolfs.errors import FspoolError, UnsupportedError
from fspoolfs.model.definitions import PoolDefinition
from fspoolfs.service import recovery
from fspoolfs.service.hosts.committing import SharedCommitter
from fspoolfs.service.hosts.identity import Host, this_host
from fspoolfs.service.hosts.lock import PoolLock
from fspoolfs.service.hosts.membership import Membership, Tenancy
from fspoolfs.service.hosts.presence import Presence, take_lock_away
from fspoolfs.service.hosts.sole import SoleHost
from fspoolfs.service.hosts.turns import Turns
from fspoolfs.service.journal import Journal

log = logging.getLogger(__name__)


class Ourselves:
    """Who this host is, and where the processes are noted that keep its locks; all below `state`."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self.notes = state / "keepers"

    @cached_property
    def host(self) -> Host:
        """Read, or made, when it is asked for first; blocks."""
        return this_host(self._state)


@dataclass(slots=True)
class Joined:
    """What the first turn has found and made."""

    filesystem: FileSystem
    membership: Membership
    troubles: dict[UUID, FspoolError]


def sharing_of(source: Source, definition: PoolDefinition) -> Sharing | None:
    """How other hosts can work on the pool; `None` where there can be none."""
    return source.sharing(definition) if isinstance(source, Shared) else None


def tenancy(
    definition: PoolDefinition, root: RootDirectory, sharing: Sharing, ourselves: Ourselves
) -> Tenancy:
    """This host's place among those that share the pool, or its claim to be the only one."""
    return (
        SoleHost(definition.name, root, ourselves.host, sharing.single)
        if sharing.single
        else _presence(definition.name, root, sharing, ourselves)
    )


def _presence(name: str, root: RootDirectory, sharing: Sharing, ourselves: Ourselves) -> Presence:
    return Presence(name, _lockable(name, root), ourselves.host, sharing, ourselves.notes / name)


def _lockable(name: str, root: RootDirectory) -> SharedDirectory:
    if not isinstance(root, SharedDirectory):
        raise UnsupportedError(f"pool {name}: {root.path} has no locks, which hosts need that share a pool")
    return root


def make_own(root: RootDirectory) -> None:
    """Make the directory of fspoolfs' own files, unless another host is as quick."""
    with suppress(FileExistsError):
        root.make_directory(layout.OWN, mode=0o700)


def join(
    definition: PoolDefinition,
    root: RootDirectory,
    sharing: Sharing,
    ourselves: Ourselves,
    token: trio.lowlevel.TrioToken,
    *,
    claim: Callable[[], None],
    discard: Callable[[], None],
    probe: Callable[[], FileSystem],
) -> Joined:
    """Enter the pool in a turn of its own: nobody else changes anything there meanwhile.

    `claim` makes the root the pool's, `discard` removes what interrupted writes have left. Raises
    `FspoolError` or `OSError`, and has not entered then.
    """
    name, shared = definition.name, _lockable(definition.name, root)
    make_own(root)
    lock = PoolLock(name, shared, ourselves.host)
    lock.acquire()
    try:
        claim()
        for directory in (layout.HOSTS, layout.USES):
            with suppress(FileExistsError):
                root.make_directory(directory, mode=0o700)
        presence = _presence(name, root, sharing, ourselves)
        presence.enter()
        try:
            discard()
            filesystem = probe()
            alone = not presence.others()
            journal, troubles = _recover(shared, filesystem, alone=alone)
            reader = Journal.join(shared)
            reader.abandon()
        except BaseException:
            presence.leave()
            raise
    finally:
        lock.release()
    turns = Turns(name, shared, filesystem, lock, presence, journal)
    committer = SharedCommitter(name, shared, journal, token, turns)
    return Joined(filesystem, Membership(presence, committer, reader, sharing), troubles)


def _recover(
    root: SharedDirectory, filesystem: FileSystem, *, alone: bool
) -> tuple[Journal, dict[UUID, FspoolError]]:
    """The journal, closed, and what became of items that could not be recovered whole."""
    journal = Journal.join(root)
    try:
        pending = [record for record in journal.pending if record.payload]
        if pending:
            journal.sync()
        troubles = recovery.recover(root, filesystem, pending, alone=alone)
        if journal.unstable:
            journal.stabilise(journal.last)
            journal.append(b"")
            journal.sync()
    finally:
        journal.abandon()
    return journal, troubles


def fence(definition: PoolDefinition, root: RootDirectory, tenancy: Tenancy, name: str) -> None:
    """Put another host out, because a person says that it is off; its lock on the pool goes as well."""
    gone = tenancy.fence(name)
    log.warning("pool %s: host %s (%s) was fenced", definition.name, gone.name, gone.id)
    if isinstance(tenancy, Presence):
        shared = _lockable(definition.name, root)
        held = shared.try_lock(layout.LOCK)
        if held is not None:
            held.release()
            return
        with suppress(OSError, ValueError):
            if Host.decode(root.read(layout.LOCK, limit=512)).id == gone.id:
                take_lock_away(shared)
