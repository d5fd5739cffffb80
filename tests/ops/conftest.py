"""The FUSE adapter over a simulated service, without a mount: handlers are called as the kernel would."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pyfuse3
import pytest
import trio
from pyfuse3 import FileHandleT, FileNameT, FlagT, InodeT, ModeT, RequestContext

from fspoolfs.backends.registry import simulated_registry
from fspoolfs.backends.simulated_cgroups import SimulatedGroups
from fspoolfs.backends.simulator import SimulatedHost
from fspoolfs.ops.guard import Guard
from fspoolfs.ops.operations import Operations
from fspoolfs.service.access import Caller
from fspoolfs.service.facade import Service
from fspoolfs.service.usage import NoUses

ROOT = Caller(uid=0, gid=0)

#: Of pool `tank` with an item `web`, which every test finds.
POOL = "pools/tank"
ITEM = "pools/tank/items/web"


def context(uid: int = 0, gid: int | None = None) -> RequestContext:
    """Who asks; the pid is this process's, so that its groups can be looked up."""
    who = SimpleNamespace(uid=uid, gid=uid if gid is None else gid, pid=os.getpid(), umask=0o022)
    return cast("RequestContext", who)


@dataclass
class Kernel:
    """What the kernel does with paths, on the handlers alone: no caches, no checks of modes."""

    operations: Operations
    service: Service
    host: SimulatedHost

    async def inode(self, path: str) -> InodeT:
        found = pyfuse3.ROOT_INODE
        for name in filter(None, path.split("/")):
            entry = await self.operations.lookup(found, FileNameT(name.encode()), context())
            found = entry.st_ino
        return found

    async def stat(self, path: str) -> pyfuse3.EntryAttributes:
        return await self.operations.getattr(await self.inode(path), context())

    async def exists(self, path: str) -> bool:
        try:
            await self.inode(path)
        except pyfuse3.FUSEError as error:
            if error.errno != errno.ENOENT:
                raise
            return False
        return True

    async def open(self, path: str, flags: int = os.O_RDONLY, *, uid: int = 0) -> FileHandleT:
        info = await self.operations.open(await self.inode(path), FlagT(flags), context(uid))
        assert info.direct_io, "the kernel must keep nothing of a file that changes"
        assert not info.keep_cache
        return info.fh

    async def read(self, path: str) -> bytes:
        handle = await self.open(path)
        whole = b""
        while piece := await self.operations.read(handle, len(whole), 4096):
            whole += piece
        await self.operations.flush(handle)
        await self.operations.release(handle)
        return whole

    async def write(self, path: str, data: bytes, *, uid: int = 0) -> None:
        """As a shell does it: truncate, flush, write, flush, release."""
        handle = await self.open(path, os.O_WRONLY | os.O_TRUNC, uid=uid)
        try:
            await self.operations.flush(handle)
            assert await self.operations.write(handle, 0, data) == len(data)
            await self.operations.flush(handle)
        finally:
            await self.operations.release(handle)

    async def create(self, path: str, *, uid: int = 0) -> FileHandleT:
        parent, _, name = path.rpartition("/")
        info, _ = await self.operations.create(
            await self.inode(parent), FileNameT(name.encode()), ModeT(stat.S_IFREG | 0o644),
            FlagT(os.O_WRONLY), context(uid),
        )  # fmt: skip
        return info.fh

    async def put(self, path: str, data: bytes, *, uid: int = 0) -> None:
        """A new file with `data`."""
        handle = await self.create(path, uid=uid)
        await self.operations.write(handle, 0, data)
        await self.operations.release(handle)

    async def rename(self, old: str, new: str, *, flags: int = 0, uid: int = 0) -> None:
        await self.operations.rename(
            *(await self._split(old)), *(await self._split(new)), FlagT(flags), context(uid)
        )

    async def mkdir(self, path: str, *, uid: int = 0) -> None:
        await self.operations.mkdir(*(await self._split(path)), ModeT(stat.S_IFDIR | 0o755), context(uid))

    async def rmdir(self, path: str) -> None:
        await self.operations.rmdir(*(await self._split(path)), context())

    async def unlink(self, path: str) -> None:
        await self.operations.unlink(*(await self._split(path)), context())

    async def _split(self, path: str) -> tuple[InodeT, FileNameT]:
        parent, _, name = path.rpartition("/")
        return await self.inode(parent), FileNameT(name.encode())


@dataclass
class Listed:
    """What a directory was listed as, and how large the kernel's buffer was."""

    token: Any
    names: list[str]
    room: int


@pytest.fixture
def buffer(monkeypatch: pytest.MonkeyPatch) -> Listed:
    """Stands in for the kernel's readdir buffer; `room` entries fit into it at a time."""
    listed = Listed(object(), [], 1 << 30)

    def reply(token: object, name: bytes, entry: pyfuse3.EntryAttributes, next_id: int) -> bool:
        assert token is listed.token
        if listed.room <= 0:
            return False
        listed.room -= 1
        listed.names.append(name.decode("utf-8", "surrogateescape"))
        return True

    monkeypatch.setattr(pyfuse3, "readdir_reply", reply)
    return listed


@pytest.fixture
async def kernel(tmp_path: Path) -> AsyncIterator[Kernel]:
    """A tree with the active pool `tank` and its item `web`."""
    host = SimulatedHost()
    async with trio.open_nursery() as nursery:
        service = Service(
            state=tmp_path / "state",
            storage=Path("/storage"),
            registry=simulated_registry(host),
            finder=NoUses(),
            mounter=None,
            groups=SimulatedGroups(),
            nursery=nursery,
            grace=5.0,
        )
        await service.start()
        operations = Operations(service, Guard(service.metrics, limit=10.0))
        found = Kernel(operations, service, host)
        await found.mkdir(POOL)
        await found.write(f"{POOL}/status", b"start build\n")
        await found.mkdir(ITEM)
        try:
            yield found
        finally:
            with trio.CancelScope(shield=True):
                await service.stop()
            nursery.cancel_scope.cancel()
