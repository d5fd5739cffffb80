"""Formatting that does not come to its end: cancelled, its client killed, its daemon ended.

mkfs is exchanged for one that waits when it has done its work, in this run's own mount namespace: the
volume then holds a file system, and nobody has said that it is complete.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from fspoolfs.system import command
from mount.control import last_error, refused, request, value
from root.volume_pools import FORMATS, MARKS, define, image_of, loops_of, root_of
from support.daemon import Daemon, MakeDaemon
from support.machine import is_mounted
from support.shell import run
from support.wait import eventually, has_ended

pytestmark = [*MARKS, pytest.mark.program("mount", "umount", "unshare")]

#: $real is the program, and $gate is there as long as it is to wait.
SLOW = """#!/bin/sh
"{real}" "$@" || exit
echo $$ > "{started}.new"
mv "{started}.new" "{started}"
while [ -e "{gate}" ]; do sleep 0.02; done
"""


class SlowMkfs:
    """The mkfs of one format, which waits before its end until it is let go."""

    def __init__(self, format: str, directory: Path) -> None:
        found = command.find(f"mkfs.{format}")
        assert found is not None
        self._place = os.path.realpath(found)
        self._directory = directory
        self._gate, self._started = directory / "gate", directory / "started"
        # It looks at the name that it is called by.
        self._real, self._slow = directory / f"mkfs.{format}", directory / "slow"

    @contextmanager
    def installed(self) -> Iterator[None]:
        run("cp", "--", self._place, self._real)
        self._gate.touch()
        self._slow.write_text(SLOW.format(real=self._real, started=self._started, gate=self._gate))
        self._slow.chmod(0o755)
        run("mount", "--bind", self._slow, self._place)
        try:
            yield
        finally:
            run("umount", self._place)

    def wait(self) -> int:
        """Wait until it has done its work; its process id."""
        eventually(self._started.exists, what="mkfs runs")
        return int(self._started.read_text())

    def let_go(self) -> None:
        self._gate.unlink()

    def hold(self) -> None:
        """Let the next one wait again."""
        self._started.unlink()
        self._gate.touch()


def is_isolated() -> bool:
    """Whether a process that has started this one is in another mount namespace."""
    pid, own = os.getppid(), os.readlink("/proc/self/ns/mnt")
    while pid > 1:
        try:
            if os.readlink(f"/proc/{pid}/ns/mnt") != own:
                return True
            status = Path(f"/proc/{pid}/status").read_text()
        except OSError:  # somebody else's
            return False
        pid = int(status.partition("PPid:")[2].split()[0])
    return False


@pytest.fixture
def slow(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SlowMkfs]:
    """For the parameter `format` of the test."""
    if not is_isolated():
        pytest.skip("mkfs would be exchanged for the whole machine; run scripts/test")
    made = SlowMkfs(request.node.callspec.params["format"], tmp_path)
    with made.installed():
        yield made


@pytest.fixture
def hasty(make_daemon: MakeDaemon) -> Daemon:
    """A daemon that answers soon that something goes on."""
    return make_daemon("--grace", "0.2")


def begin(pool: Path, verb: str) -> None:
    with refused(errno.EINPROGRESS):
        request(pool / "status", verb)


def progress(pool: Path) -> str:
    """The first line of what its job tells."""
    with (pool / "job").open() as job:
        return job.readline().rstrip("\n")


def ends(pool: Path) -> str:
    """What the job of the pool tells when it has ended."""
    eventually(lambda: progress(pool).startswith(("done", "failed: ")), what="the job has ended")
    return progress(pool)


def outcome(pool: Path, verb: str) -> str:
    """What becomes of a verb in the end, on a machine of any speed."""
    try:
        request(pool / "status", verb)
    except OSError as error:
        return ends(pool) if error.errno == errno.EINPROGRESS else last_error(pool)
    return "done"


@pytest.mark.parametrize("format", FORMATS)
def test_formatting_is_cancelled_and_leaves_nothing(hasty: Daemon, slow: SlowMkfs, format: str) -> None:
    pool = define(hasty, "tank", format)
    begin(pool, "build")
    pid = slow.wait()
    assert value(pool / "status").split()[0] == "building"
    assert progress(pool) == "formatting"
    with refused(errno.EBUSY):
        request(pool / "status", "build")
    request(pool / "job", "cancel")
    assert "formatting was cancelled" in ends(pool)
    assert value(pool / "status") == "inactive"
    assert has_ended(pid, timeout=30)
    assert "formatting was cancelled" in last_error(pool)
    eventually(lambda: loops_of(hasty) == [], what="the device has gone")
    assert not image_of(hasty, "tank").exists()
    slow.let_go()
    assert outcome(pool, "build") == outcome(pool, "start") == outcome(pool, "stop") == "done"


@pytest.mark.parametrize("format", FORMATS)
def test_overwriting_that_is_cancelled_can_be_built_again_without_overwriting(
    hasty: Daemon, slow: SlowMkfs, format: str
) -> None:
    slow.let_go()
    pool = define(hasty, "tank", format)
    assert outcome(pool, "start build") == "done"
    item = pool / "items" / "web"
    with suppress(BlockingIOError):  # a slow machine says that it goes on
        item.mkdir()
    eventually(lambda: value(item / "status") == "ready", what="the item is there")
    assert outcome(pool, "stop") == "done"
    slow.hold()
    begin(pool, "build overwrite")
    pid = slow.wait()
    request(pool / "job", "cancel")
    assert "formatting was cancelled" in ends(pool)
    assert has_ended(pid, timeout=30)
    assert "was interrupted; build the pool first" in outcome(pool, "start")
    slow.let_go()
    assert outcome(pool, "start build") == "done"
    assert os.listdir(pool / "items") == []
    assert outcome(pool, "stop") == "done"
    assert loops_of(hasty) == []


@pytest.mark.parametrize("format", ["ext4"])
def test_formatting_goes_on_when_its_client_is_killed(
    make_daemon: MakeDaemon, slow: SlowMkfs, format: str
) -> None:
    daemon = make_daemon("--grace", "2")
    pool = define(daemon, "tank", format)
    with subprocess.Popen(["sh", "-c", 'echo build > "$0"', pool / "status"]) as client:
        pid = slow.wait()
        client.kill()
    assert value(pool / "status").split()[0] == "building"
    assert not has_ended(pid, timeout=0)
    slow.let_go()
    assert ends(pool) == "done"
    assert outcome(pool, "start") == outcome(pool, "stop") == "done"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["terminated", "killed"])
@pytest.mark.parametrize("format", FORMATS)
def test_mkfs_ends_with_the_daemon_and_is_done_again_by_the_next(
    hasty: Daemon, slow: SlowMkfs, format: str, number: signal.Signals
) -> None:
    pool = define(hasty, "tank", format)
    begin(pool, "build")
    pid = slow.wait()
    if number is signal.SIGTERM:
        hasty.stop()
    else:
        hasty.kill()
    assert has_ended(pid, timeout=30)
    slow.let_go()
    hasty.start()
    assert value(pool / "status") == "inactive"
    assert "was interrupted; build the pool first" in outcome(pool, "start")
    assert outcome(pool, "start build") == "done"
    assert is_mounted(root_of(pool))
    assert outcome(pool, "stop") == outcome(pool, "delete") == "done"
    assert loops_of(hasty) == []
    assert [path for path in (hasty.storage / "volumes").rglob("*") if not path.is_dir()] == []
