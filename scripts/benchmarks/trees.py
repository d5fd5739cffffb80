"""Mounted control trees, the real one and the null one, and the servers that answer for them."""

from __future__ import annotations

import errno
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import Server
from benchmarks.scratch import Scratch

_CHECKOUT = Path(__file__).resolve().parents[2]
#: What runs this checkout's modules, wherever its environment was made and this was called from.
_OWN_PROGRAM = (sys.executable, "-P", "-m", "fspoolfs")
_OWN_MODULES = {"PYTHONPATH": os.fspath(_CHECKOUT)}

#: The pool that the null tree has from the start, and that measurements of one pool use.
POOL = "tank"

#: Seconds that a server has until its tree can be used; far beyond every goal.
_START_LIMIT = 120.0
#: Seconds that a verb is waited for: a long one is to be measured to its end.
_GRACE = 600
#: What cat(1) of coreutils asks for in one read(2): IO_BUFSIZE, ioblksize.h.
_CAT_BYTES = 128 * 1024
#: How a mount point answers before its server has mounted, or while a killed one's mount is still there.
_NOT_YET = frozenset({errno.ENOENT, errno.ENOTCONN, errno.ECONNABORTED})


@dataclass(frozen=True, slots=True)
class ControlTree:
    """A control tree at `mount`, answered by `server`."""

    mount: Path
    server: Server

    def pool(self, name: str = POOL) -> Path:
        return self.mount / "pools" / name

    def items(self, pool: str = POOL) -> Path:
        return self.pool(pool) / "items"

    def status(self, pool: str = POOL) -> str:
        return f"{self.pool(pool)}/status"

    def root(self, pool: str = POOL) -> Path:
        """Where the data of the pool's items lies; the null tree has none."""
        return (self.pool(pool) / "root").readlink()

    def wait_until_mounted(self) -> None:
        pools = self.mount / "pools"
        self.server.wait_until(pools.is_dir, what="the tree is mounted", seconds=_START_LIMIT)

    def add_pool(self, name: str = POOL) -> None:
        """Define a pool in its default place, build and start it."""
        self.pool(name).mkdir()
        self.start_pool(name)

    def define_pool(self, root: Path, *, name: str = POOL, more: str = "") -> None:
        """Define a pool that lies at `root`, build and start it; `more` goes into its definition."""
        target = f"<target><path>{root}</path></target>"
        document = f"<fspool type='dir'><name>{name}</name>{target}{more}</fspool>\n"
        (self.mount / "define").write_text(document)
        self.start_pool(name)

    def start_pool(self, name: str) -> None:
        Path(self.status(name)).write_text("start build\n")
        self.wait_until_active(name)

    def wait_until_active(self, pool: str = POOL) -> float:
        """Wait until `pool` is active; the seconds since the server's program was executed."""
        status = self.status(pool)
        self.server.wait_until(
            lambda: _is_active(status), what=f"{status} reads active", seconds=_START_LIMIT
        )
        return time.perf_counter() - self.server.began


def cat(path: str) -> bytes:
    """Read a file with the system calls of cat(1)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fstat(descriptor)
        text = b""
        while piece := os.read(descriptor, _CAT_BYTES):
            text += piece
        return text
    finally:
        os.close(descriptor)


def _is_active(status: str) -> bool:
    try:
        return cat(status) == b"active\n"
    except OSError as error:
        if error.errno in _NOT_YET:
            return False
        raise


class Installation:
    """fspoolfs with a state and a storage directory of its own; it may be started again and again."""

    def __init__(self, program: Path | None, scratch: Scratch) -> None:
        """`program` is another fspoolfs than that of this checkout."""
        self._command = _OWN_PROGRAM if program is None else (program,)
        self._environment = _OWN_MODULES if program is None else {}
        self.state = scratch.directory("state")
        self._storage = scratch.directory("storage")
        self._mount = scratch.directory("mnt")
        self._log = scratch.path / f"{self._mount.name}.log"

    def start(self, *more: str) -> ControlTree:
        """Execute the daemon, with `more` options; the caller waits until it can be used."""
        options = ("--state-dir", self.state, "--storage-dir", self._storage, "--foreground")
        patience = ("--grace", str(_GRACE))
        argv = (*self._command, "mount", self._mount, *options, *patience, *more)
        return ControlTree(self._mount, Server(argv, log=self._log, env=self._environment, name="fspoolfs"))


def start_null(scratch: Scratch, *, items: int = 0) -> ControlTree:
    """The null tree, with `items` items in `POOL`."""
    mount = scratch.directory("null")
    argv = (sys.executable, "-m", "benchmarks.nullfs", mount, "--items", str(items))
    return ControlTree(mount, Server(argv, log=scratch.path / f"{mount.name}.log", name="the null tree"))
