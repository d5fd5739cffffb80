"""A GlusterFS with one server, on a host of its own."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from support.needs import needs_fuse, needs_program, needs_root
from support.network import Host, address
from support.shell import run
from support.wait import eventually

MARKS = [needs_root, needs_fuse, needs_program("glusterd", "gluster", "glusterfs")]
#: The address of its server.
HOST = address(1)
#: Where a glusterd keeps what there can be one of.
_PLACES = ("/var/lib/glusterd", "/var/log/glusterfs", "/run/gluster")


@contextmanager
def running(base: Path) -> Iterator[None]:
    """A started volume `vol`; this thread is on the host of its server meanwhile."""
    with ExitStack() as stack:
        for place in map(Path, _PLACES):
            place.mkdir(parents=True, exist_ok=True)
            run("mount", "-t", "tmpfs", "fspoolfs-test", place)
            stack.callback(run, "umount", "--lazy", place)
        brick = base / "brick"
        stack.callback(shutil.rmtree, brick, ignore_errors=True)
        host = Host()
        stack.callback(host.close)
        host.add(HOST)
        stack.enter_context(host.entered())
        argv = ["glusterd", "-N", "-p", "/run/gluster/glusterd.pid"]
        server = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        stack.callback(server.wait)
        stack.callback(server.kill)
        eventually(
            lambda: run("gluster", "volume", "info", check=False).returncode == 0, what="glusterd answers"
        )
        run("gluster", "volume", "create", "vol", f"{HOST}:{brick}", "force")
        run("gluster", "volume", "start", "vol")
        stack.callback(run, "gluster", "--mode=script", "volume", "stop", "vol", "force")
        yield


def source(path: str) -> str:
    """The <source> of a pool: `path` begins with the volume, "/vol/directory"."""
    return f"<source><host name='{HOST}'/><dir path='{path}'/><format type='glusterfs'/></source>"
