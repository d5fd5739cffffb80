"""The guest's own NFS server, the kernel's: exports, faults. There is one; nothing of it is undone."""

from __future__ import annotations

import os
from functools import cache
from itertools import count
from pathlib import Path

from support.shell import run
from vm.disks import volume

HOST = "127.0.0.1"
#: Seconds in which clients may claim back what they had after a restart; the kernel takes no fewer.
_GRACE = "10"
_OPTIONS = "rw,sync,no_subtree_check,no_root_squash"
_CONTROL = Path("/proc/fs/nfsd")
_THREADS = "4"


class NfsServer:
    """All that it exports lies below `place`, on an ext4 of 160 MiB."""

    def __init__(self) -> None:
        self.place = volume("ext4", "defaults").place
        self._numbers = count(1)
        self._prepare()
        run("rpcbind", "-w")
        run("rpc.nfsd", _THREADS)
        self.export(self.place, f"{_OPTIONS},fsid=0")
        run("rpc.mountd")
        run("rpc.statd", "--no-notify")
        # Nobody has anything to claim back.
        (_CONTROL / "v4_end_grace").write_text("Y\n")

    def _prepare(self) -> None:
        # No lock is given for that long after a start, for locks of version 3 in multiples of the other.
        run("modprobe", "lockd", "nlm_grace_period=1", "nlm_timeout=3")
        run("modprobe", "-a", "nfsd", "nfs", "nfsv3", "nfsv4")
        run("ip", "link", "set", "lo", "up")
        run("hostname", "guest")
        run("mount", "-t", "tmpfs", "fspoolfs-test", "/var/lib/nfs")
        for name in ("v4recovery", "sm", "sm.bak", "rpc_pipefs"):
            (Path("/var/lib/nfs") / name).mkdir()
        for name in ("etab", "rmtab", "xtab", "state"):
            (Path("/var/lib/nfs") / name).touch()
        if not os.path.ismount(_CONTROL):
            run("mount", "-t", "nfsd", "nfsd", _CONTROL)
        for name in ("nfsv4leasetime", "nfsv4gracetime"):
            (_CONTROL / name).write_text(f"{_GRACE}\n")

    def new_directory(self) -> Path:
        """A directory of the export, world-passable."""
        made = self.place / f"d{next(self._numbers)}"
        made.mkdir()
        return made

    def export(self, directory: Path, options: str = _OPTIONS) -> None:
        run("exportfs", "-o", options, f"{HOST}:{directory}")

    def withdraw(self, directory: Path) -> None:
        run("exportfs", "-u", f"{HOST}:{directory}")
        run("exportfs", "-f")

    def free(self) -> int:
        """Bytes that root can still write."""
        numbers = os.statvfs(self.place)
        return numbers.f_bfree * numbers.f_frsize

    def stop(self) -> None:
        """No call is answered any more, as when its host is switched off."""
        run("rpc.nfsd", "0")

    def start(self) -> None:
        """The same again, after a restart: its clients claim back what they had locked."""
        run("rpc.nfsd", _THREADS)

    def source(self, directory: Path, options: str) -> str:
        """The <source> of a pool in one of its directories; for version 4 all begins at `place`."""
        path = directory if "vers=3" in options else f"/{directory.relative_to(self.place)}"
        return (
            f"<source><host name='{HOST}'/><dir path='{path}'/><format type='nfs'/>"
            f"<options>{options}</options></source>"
        )


@cache
def server() -> NfsServer:
    return NfsServer()
