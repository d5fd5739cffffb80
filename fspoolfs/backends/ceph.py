"""Items as directories of CephFS: limits by its quotas, usage by its recursive statistics, its snapshots.

Quotas are advisory: clients keep them, each for what it writes itself, and hear of what others have
written about a second later. What this host's credentials do not allow (`ceph fs authorize`: p for
quotas, s for snapshots) is found out when the pool starts, and told. docs/ceph.md tells people more.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import ClassVar
from uuid import uuid4

from fspoolfs.backends import layout
from fspoolfs.backends.ceph_snapshots import STUB, Snapshots
from fspoolfs.backends.filesystem import FEATURES
from fspoolfs.backends.generic import GenericFileSystem
from fspoolfs.backends.root import RootDirectory
from fspoolfs.errors import UnsupportedError
from fspoolfs.model.definitions import ItemDefinition
from fspoolfs.model.infos import Feature, UsageInfo
from fspoolfs.progress import Progress
from fspoolfs.system import ceph, syncing
from fspoolfs.system.paths import HostRoot

_REFUSED = frozenset((errno.EACCES, errno.EPERM))
_LATE = "counted about a second late"
_ADVISORY = (
    "advisory: each client keeps to it by itself, a few MiB late while it writes, and hears about a second "
    "later of what others write"
)


@dataclass(frozen=True, slots=True)
class Allowed:
    """Why this host may not set limits, or take snapshots; empty where it may."""

    no_quota: str = ""
    no_snapshots: str = ""


class CephFileSystem(GenericFileSystem):
    """What every pool on CephFS has; snapshots are copies."""

    name: ClassVar[str] = "ceph"

    def __init__(self, root: HostRoot, allowed: Allowed) -> None:
        super().__init__(root)
        self._host = root
        self._allowed = allowed
        self._snapshots = Snapshots(root)

    # What it can do.

    def features(self) -> Sequence[Feature]:
        no_quota = self._allowed.no_quota
        reasons = {
            "quota": no_quota,
            "files": no_quota,
            "resize": no_quota,
            "reflink": "files of CephFS cannot share blocks; a clone copies them",
        }
        notes = {
            "quota": _ADVISORY,
            "files": _ADVISORY,
            "usage": _LATE,
            "snapshot": f"copies the whole item, since {self._allowed.no_snapshots}",
            "clone": "copies the item",
            **self._notes(),
        }
        return tuple(
            Feature(name=name, reason=reasons[name])
            if reasons.get(name)
            else Feature(name=name, note=notes.get(name, ""))
            for name in FEATURES
        )

    def _notes(self) -> Mapping[str, str]:
        return {}

    def check(self, definition: ItemDefinition) -> None:
        no_quota = self._allowed.no_quota
        if no_quota and (definition.capacity is not None or definition.files is not None):
            raise UnsupportedError(
                f"item {definition.name}: its limits cannot be set, since {no_quota}; leave <capacity> and "
                "<files> out, or let this host set quotas"
            )

    # Items.

    def _enforce(self, path: str, definition: ItemDefinition) -> None:
        self._limit(path, definition, new=False)

    def _limit_new(self, path: str, definition: ItemDefinition) -> None:
        self._limit(path, definition, new=True)

    def _limit(self, path: str, definition: ItemDefinition, *, new: bool) -> None:
        """A `new` directory has no limits: the servers need not be asked for each of them."""
        wanted = ((ceph.MAX_BYTES, definition.capacity), (ceph.MAX_FILES, definition.files))
        with self._opened(path) as fd:
            for name, limit in wanted:
                if limit != (None if new else ceph.number(fd, name) or None):
                    try:
                        ceph.limit(fd, name, limit)
                    except OSError as error:
                        if error.errno not in _REFUSED:
                            raise
                        raise UnsupportedError(
                            f"item {definition.name}: {self._root.location(path)} cannot be limited: this "
                            "host's credentials do not allow quotas there (capability p)"
                        ) from error

    def move(self, source: str, target: str) -> None:
        super().move(source, target)
        self._snapshots.moved(target)

    def remove(self, path: str, progress: Progress) -> None:
        with suppress(FileNotFoundError):
            self._snapshots.remove(path, progress)

    # Snapshots and clones.

    def place(self, path: str) -> str:
        """Where what the snapshot at `path` holds can be read, below the root."""
        return self._snapshots.place(path)

    def snapshot(self, path: str, target: str, progress: Progress) -> None:
        super().snapshot(path, target, progress)
        self._sync(target, progress)

    def clone(self, source: str, target: str, definition: ItemDefinition, progress: Progress) -> None:
        super().clone(self.place(source), target, definition, progress)
        self._sync(target, progress)

    def measure(self, path: str, progress: Progress) -> UsageInfo:
        return super().measure(self.place(path), progress)

    def _sync(self, path: str, progress: Progress) -> None:
        """Make a copy durable: what syncfs(2) would do, ceph-fuse is never asked for."""
        with self._opened(path) as fd:
            syncing.sync_tree(fd, progress)

    # Usage.

    def usage(self, path: str) -> UsageInfo:
        with self._opened(path) as fd:
            return _usage(fd)

    def usages(self, paths: Sequence[str]) -> Mapping[str, UsageInfo]:
        found = {}
        for path in paths:
            with suppress(FileNotFoundError, NotADirectoryError):
                found[path] = self.usage(path)
        return found

    @contextmanager
    def _opened(self, path: str) -> Iterator[int]:
        fd = self._host.open_directory(path)
        try:
            yield fd
        finally:
            os.close(fd)


class CephSnapshotFileSystem(CephFileSystem):
    """Where this host may take snapshots: they are CephFS's own, at once and read-only."""

    instant_snapshots: ClassVar[bool] = True

    def _notes(self) -> Mapping[str, str]:
        return {
            "snapshot": "at once, read-only; CephFS keeps at most 100 of one item",
            "clone": "copies the item, as it was at one moment",
        }

    def snapshot(self, path: str, target: str, progress: Progress) -> None:
        progress.advance(0)
        self._snapshots.take(path, target)

    def clone(self, source: str, target: str, definition: ItemDefinition, progress: Progress) -> None:
        if self._snapshots.at(source) is not None:
            super().clone(source, target, definition, progress)
            return
        # Of one moment: the snapshot's stub never leaves staging, where an interruption leaves what goes.
        moment = layout.staging(uuid4())
        self._snapshots.take(source, moment)
        try:
            super().clone(moment, target, definition, progress)
        finally:
            self.remove(moment, Progress())


def _usage(fd: int) -> UsageInfo:
    size, entries = ceph.number(fd, ceph.BYTES), ceph.number(fd, ceph.ENTRIES)
    return UsageInfo(allocation=size or 0, inodes=entries)


def probe(root: RootDirectory) -> CephFileSystem | None:
    """Takes directories of CephFS, by whichever client they are mounted, for whichever source."""
    if not isinstance(root, HostRoot):
        return None
    fd = root.open_directory("")
    try:
        if ceph.number(fd, ceph.BYTES) is None:
            return None
    finally:
        os.close(fd)
    allowed = _try(root)
    kind = CephFileSystem if allowed.no_snapshots else CephSnapshotFileSystem
    return kind(root, allowed)


def _refused(call: Callable[[], None]) -> str:
    """How the servers refuse a call; empty where they do not."""
    try:
        call()
    except OSError as error:
        if error.errno not in (*_REFUSED, errno.EOPNOTSUPP):
            raise
        return os.strerror(error.errno)
    return ""


def _take(fd: int) -> None:
    # What stubs are made of may be refused as well.
    os.setxattr(fd, STUB, b"")
    ceph.take(fd, "probe")
    ceph.drop(fd, "probe")


def _try(root: HostRoot) -> Allowed:
    """What this host may do, found out on a directory that is made for that."""
    name = f"probe-{secrets.token_hex(8)}"
    try:
        path = f"{layout.STAGING}/{name}"
        root.make_directory(path, mode=0o700)
    except FileNotFoundError:
        path = f".fspool-{name}"
        root.make_directory(path, mode=0o700)
    fd = root.open_directory(path)
    try:
        quota, snapshot = _refused(lambda: ceph.limit(fd, ceph.MAX_FILES, 9)), _refused(lambda: _take(fd))
    finally:
        os.close(fd)
        root.remove_directory(path)
    advice = "let an administrator repeat `ceph fs authorize` with"
    return Allowed(
        no_quota=quota
        and f"this host's credentials do not allow quotas (capability p, {quota}); {advice} rwp or rwps",
        no_snapshots=snapshot
        and f"this host's credentials do not allow snapshots (capability s, {snapshot}); {advice} rwps",
    )
