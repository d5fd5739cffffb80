"""Formatting that takes long: it is seen, cancelled, left by its client, and cut short by the daemon's end.

mkfs waits here until a test lets it go on: a script lies over it in this mount namespace.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from mount.control import last_error, refused, request, value
from root.volume_pools import FORMATS, MARKS, define, image_of, loops_of
from support.daemon import Daemon, MakeDaemon
from support.needs import needs_program
from support.shell import run
from support.wait import eventually

pytestmark = [
    *MARKS,
    needs_program("bash", "setpriv"),
    pytest.mark.skipif(
        os.path.exists("/proc/1/ns/mnt")
        and os.geteuid() == 0
        and os.stat("/proc/1/ns/mnt").st_ino == os.stat("/proc/self/ns/mnt").st_ino,
        reason="needs a mount namespace of its own, as scripts/test has it",
    ),
]

#: Begins by saying so, and goes on as the real one when it is told to.
SLOW = """#!/bin/bash
touch "{place}/began"
while [ ! -e "{place}/go" ]; do read -rt 0.02 <> <(:); done
exec -a "{name}" "{place}/real" "$@"
"""


class SlowFormat:
    """mkfs of one format that waits."""

    def __init__(self, name: str, place: Path) -> None:
        self._place = place
        self._program = os.path.realpath(shutil.which(f"mkfs.{name}") or "")
        shutil.copy(self._program, place / "real")
        script = place / "script"
        script.write_text(SLOW.format(place=place, name=f"mkfs.{name}"))
        script.chmod(0o755)
        run("mount", "--bind", script, self._program)

    def await_begin(self) -> None:
        eventually((self._place / "began").exists, what="mkfs has begun")

    def go_on(self) -> None:
        (self._place / "go").touch()

    def close(self) -> None:
        run("umount", self._program)


@pytest.fixture(params=FORMATS)
def format(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture
def slow(format: str, tmp_path: Path) -> Iterator[SlowFormat]:
    made = SlowFormat(format, tmp_path)
    yield made
    made.close()


@pytest.fixture
def daemon(make_daemon: MakeDaemon) -> Daemon:
    return make_daemon("--grace", "0.2")


def begin(daemon: Daemon, format: str, slow: SlowFormat) -> Path:
    pool = define(daemon, "tank", format)
    with refused(errno.EINPROGRESS):
        request(pool / "status", "build")
    slow.await_begin()
    assert value(pool / "status") == "building formatting"
    return pool


def nothing_is_left(daemon: Daemon) -> None:
    assert loops_of(daemon) == []
    assert not image_of(daemon, "tank").exists()
    left = [path for path in (daemon.storage / "volumes").rglob("*") if not path.is_dir()]
    assert left == []


def use(pool: Path) -> None:
    request(pool / "status", "start")
    (pool / "items" / "web").mkdir()
    request(pool / "status", "stop")


def test_a_cancelled_format_leaves_nothing(daemon: Daemon, format: str, slow: SlowFormat) -> None:
    pool = begin(daemon, format, slow)
    with refused(errno.EBUSY):
        request(pool / "status", "start")
    request(pool / "job", "cancel")
    eventually(lambda: value(pool / "status") == "inactive", what="it has ended")
    assert "cancelled" in (pool / "job").read_text()
    assert "cancelled" in last_error(pool)
    nothing_is_left(daemon)
    slow.go_on()
    request(pool / "status", "build")
    use(pool)


def test_a_format_goes_on_without_who_asked_for_it(daemon: Daemon, format: str, slow: SlowFormat) -> None:
    pool = define(daemon, "tank", format)
    with subprocess.Popen(
        ["sh", "-c", f"exec echo build > {pool}/status"], stderr=subprocess.DEVNULL
    ) as client:
        slow.await_begin()
        client.send_signal(signal.SIGKILL)
    slow.go_on()
    eventually(lambda: value(pool / "status") == "inactive", what="it is built")
    use(pool)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_format_ends_with_the_daemon_and_is_done_again(
    daemon: Daemon, format: str, slow: SlowFormat, number: signal.Signals
) -> None:
    pool = begin(daemon, format, slow)
    if number == signal.SIGKILL:
        daemon.kill()
    else:
        daemon.stop()
    eventually(lambda: loops_of(daemon) == [], what="the device is gone, and so is who had it open")
    slow.go_on()
    daemon.start()
    assert value(pool / "status") == "inactive"
    with refused(errno.ENOENT):
        request(pool / "status", "start")
    with suppress(OSError):  # it may go on in the background
        request(pool / "status", "build")
    eventually(lambda: value(pool / "status") == "inactive", what="it is built")
    use(pool)
    assert loops_of(daemon) == []
