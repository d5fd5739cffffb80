"""Clients of a server that is killed while it and they wait for each other."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from fspoolfs.system import fusectl, mounts
from support.daemon import PROJECT, Daemon
from support.needs import needs_fuse, needs_root
from support.shell import run
from support.wait import eventually, has_ended

pytestmark = [needs_fuse, needs_root]

#: Seconds in which the dead are noticed.
_PATIENCE = 10.0

#: Answers no mkdir, and tells the kernel of a name in that directory, for which it needs what mkdir has.
_SERVER = """
import sys, threading
import pyfuse3, trio
from fspoolfs.system import deadman, mounts

class Unanswering(pyfuse3.Operations):
    async def getattr(self, inode, ctx=None):
        entry = pyfuse3.EntryAttributes()
        entry.st_ino, entry.st_mode, entry.st_nlink = inode, 0o040777, 2
        return entry

    async def lookup(self, parent, name, ctx=None):
        raise pyfuse3.FUSEError(2)

    async def mkdir(self, parent, name, mode, ctx):
        tell = threading.Thread(target=pyfuse3.invalidate_entry, args=(parent, b"other"))
        tell.start()
        await trio.to_thread.run_sync(tell.join, 0.5)
        print("waits" if tell.is_alive() else "told", flush=True)
        await trio.sleep_forever()

place, armed = sys.argv[1:]
pyfuse3.init(Unanswering(), place, {"fsname=fspoolfs-test"})
if armed == "armed":
    deadman.arm(int(mounts.mount_at(place).device.partition(":")[2]))
trio.run(pyfuse3.main)
"""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "mount"
    place.mkdir()
    yield place
    run("umount", "--lazy", place, check=False)


def deadlocked(place: Path, armed: str) -> tuple[subprocess.Popen[str], subprocess.Popen[str]]:
    """The server, killed, and its client."""
    server = subprocess.Popen(
        [sys.executable, "-c", _SERVER, str(place), armed], stdout=subprocess.PIPE, text=True, cwd=PROJECT
    )
    eventually(lambda: mounts.mount_at(str(place)) is not None, what="it is mounted")
    client = subprocess.Popen(["mkdir", place / "new"], stderr=subprocess.PIPE, text=True)
    assert server.stdout is not None
    assert server.stdout.readline() == "waits\n"
    server.kill()
    return server, client


def end(*processes: subprocess.Popen[str]) -> None:
    for process in processes:
        process.kill()
        process.communicate()


def test_whoever_waits_for_a_killed_server_is_told(place: Path) -> None:
    server, client = deadlocked(place, "armed")
    try:
        assert has_ended(server.pid, timeout=_PATIENCE)
        _, said = client.communicate(timeout=_PATIENCE)
        assert os.strerror(errno.ECONNABORTED) in said
    finally:
        end(server, client)


def test_without_the_switch_both_would_wait_for_ever(place: Path) -> None:
    """Or the other test would prove nothing."""
    server, client = deadlocked(place, "bare")
    mount = mounts.mount_at(str(place))
    assert mount is not None
    try:
        assert not has_ended(server.pid, timeout=1.0)
        assert client.poll() is None
    finally:
        assert fusectl.abort(int(mount.device.partition(":")[2]))
        end(server, client)


def switches(number: int) -> list[int]:
    """The processes that can end the connection with this number."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if os.readlink(directory / "fd" / "3").endswith(f"/{number}/abort"):
                found.append(int(directory.name))
    return found


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_the_daemon_has_one_that_ends_with_it(daemon: Daemon, how: signal.Signals) -> None:
    mount = mounts.mount_at(str(daemon.mount))
    assert mount is not None
    number = int(mount.device.partition(":")[2])
    pids = switches(number)
    assert len(pids) == 1
    daemon.process.send_signal(how)
    daemon.process.wait(_PATIENCE)
    assert has_ended(pids[0], timeout=_PATIENCE)
    daemon.unmount()
