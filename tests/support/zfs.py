"""Pytest plugin: a zfs for whichever test asks first, which is a zfs-fuse of the run's own.

Its socket, its locks and its list of pools are in directories with fixed names, which are covered for the
run: that is only done in a mount namespace in which nobody else lives. In the guest of
`scripts/vmtest --openzfs` it is OpenZFS.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from support.machine import in_own_mount_namespace
from support.requirements import is_proof
from support.shell import run
from support.wait import eventually

#: Where zfs-fuse keeps what there can be one of, and where fspoolfs mounts datasets for a moment.
_PLACES = ("/run/zfs", "/run/lock/zfs", "/var/lib/zfs", "/run/fspoolfs")
#: Its file systems in mountinfo.
TYPES = frozenset(("zfs", "fuse.zfs"))
MARKS = [pytest.mark.root, pytest.mark.mount, pytest.mark.program("zfs-fuse"), pytest.mark.required]
#: Whether zfs is the kernel's.
IS_OPENZFS = os.environ.get("FSPOOLFS_OPENZFS") == "1"
#: Seconds that it may take to end.
_END = 10.0


def is_running() -> bool:
    """Whether a zfs answers."""
    return shutil.which("zpool") is not None and run("zpool", "list", check=False).returncode == 0


def imported() -> list[str]:
    return run("zpool", "list", "-H", "-o", "name").stdout.split()


def size(pool: str) -> str:
    return run("zpool", "list", "-H", "-o", "size", pool).stdout.strip()


class ZfsFuse:
    """The server; it takes up again after a death what it had imported no more."""

    def __init__(self, options: tuple[str, ...] = ()) -> None:
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        program = shutil.which("zfs-fuse")
        assert program is not None, "the mark sees to it"
        argv = [program, "--no-daemon", "--no-kstat-mount", *self._options]
        self._process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        eventually(
            lambda: run("zpool", "list", check=False).returncode == 0, what="zfs-fuse answers requests"
        )

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def end(self) -> None:
        """It ends by itself only without pools."""
        assert self._process is not None
        for name in run("zpool", "list", "-H", "-o", "name", check=False).stdout.split():
            run("zpool", "export", "-f", name, check=False)
        self._process.terminate()
        try:
            self._process.wait(_END)
        except subprocess.TimeoutExpired:
            self.kill()


@contextmanager
def running(*options: str) -> Iterator[ZfsFuse]:
    """A new zfs-fuse with these `options`, whose pools end with it.

    Only in a mount namespace that is the caller's own.
    """
    with ExitStack() as stack:
        for place in map(Path, _PLACES):
            place.mkdir(parents=True, exist_ok=True)
            run("mount", "-t", "tmpfs", "fspoolfs-test", place)
            stack.callback(run, "umount", "--lazy", place)
        server = ZfsFuse(options)
        server.start()
        stack.callback(server.end)
        yield server


@pytest.fixture(scope="session")
def usable_zfs() -> Iterator[ZfsFuse | None]:
    """The zfs-fuse, or `None` for OpenZFS; pools of tests end with it."""
    if IS_OPENZFS:
        run("modprobe", "zfs")
        yield None
        return
    if not in_own_mount_namespace():
        reason = "zfs-fuse needs a mount namespace of the tests' own, which scripts/test makes"
        if is_proof():
            pytest.fail(reason)
        pytest.skip(reason)
    with running() as server:
        yield server


@pytest.fixture
def zfs_fuse(usable_zfs: ZfsFuse | None) -> ZfsFuse:
    """For tests about the server itself."""
    if usable_zfs is None:
        pytest.skip("OpenZFS has no server")
    return usable_zfs


@pytest.fixture(autouse=True)
def _format_is_usable(request: pytest.FixtureRequest) -> None:
    """A test that is called with the format zfs needs no other word for what it needs."""
    if getattr(request.node, "callspec", None) and request.node.callspec.params.get("format") == "zfs":
        request.getfixturevalue("usable_zfs")
