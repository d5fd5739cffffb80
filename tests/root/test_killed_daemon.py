"""A daemon killed while it is used: containers do not notice, and the next daemon finds everything."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from mount.control import ControlTree, refused, request, value
from root.containers import RUNTIMES, Container, Place, make_root
from support.daemon import Daemon
from support.machine import is_mounted
from support.needs import needs_fuse, needs_program, needs_root
from support.shell import run
from support.trees import check_trash
from support.wait import eventually

pytestmark = [needs_root, needs_fuse, pytest.mark.required]

#: Writes a number a line until its input ends.
SCRIPT = """
exec 3<&0
(read line <&3; touch /data/end) &
n=0
while [ ! -e /data/end ]; do
    n=$((n + 1)); echo $n >> /data/numbers || exit 1; sleep 0.002
done
"""
_numbers = count(1)


@pytest.fixture(params=[pytest.param(name, marks=needs_program(name)) for name in ("bwrap", "runc")])
def writer(request: pytest.FixtureRequest, daemon: Daemon, run_directory: Path) -> Iterator[Container]:
    """A container that writes into an item of pool `tank`, without a pause."""
    item = _item(daemon)
    directory = run_directory / f"k{next(_numbers)}"
    directory.mkdir()
    place = Place(directory, make_root(directory / "root"))
    container = Container(RUNTIMES[request.param](place, item / "data", SCRIPT))
    yield container
    container.close()
    run("rm", "-r", "-f", "--one-file-system", "--", directory)


def _item(daemon: Daemon) -> Path:
    pool = daemon.mount / "pools" / "tank"
    pool.mkdir()
    request(pool / "status", "start build")
    (pool / "items" / "web").mkdir()
    return pool / "items" / "web"


def written(daemon: Daemon) -> list[int]:
    """What the container has written, seen in the pool itself."""
    file = daemon.storage / "pools" / "tank" / "web" / "numbers"
    return [int(line) for line in file.read_text().splitlines()] if file.exists() else []


def goes_on(container: Container, daemon: Daemon) -> None:
    """The container is writing at this moment."""
    before = len(written(daemon))
    eventually(
        lambda: len(written(daemon)) > before + 5 or not container.is_running, what="the container goes on"
    )
    assert container.is_running


@pytest.mark.container
@needs_program("busybox")
def test_a_container_writes_on_while_the_daemon_is_killed_and_comes_back(
    writer: Container, daemon: Daemon
) -> None:
    pool = daemon.mount / "pools" / "tank"
    goes_on(writer, daemon)
    before = {path.name: path.read_bytes() for path in (pool / "items" / "web").glob("*.xml")}
    for _ in range(3):
        daemon.kill(unmount=False)
        with refused(errno.ENOTCONN):
            os.listdir(daemon.mount)
        goes_on(writer, daemon)
        daemon.start()
        eventually(lambda: value(pool / "status") == "active", what="the pool is active again")
        goes_on(writer, daemon)
        assert os.listdir(pool / "items") == ["web"]
        assert {path.name: path.read_bytes() for path in (pool / "items" / "web").glob("*.xml")} == before
        # The new daemon knows who uses it.
        assert (pool / "items" / "web" / "users").read_text()
        with refused(errno.EBUSY):
            (pool / "items" / "web").rmdir()
    writer.end()
    numbers = written(daemon)
    assert numbers == list(range(1, len(numbers) + 1)), "not one line was lost"
    (pool / "items" / "web").rmdir()


@pytest.mark.container
@needs_program("busybox")
def test_a_container_writes_on_while_the_daemon_is_stopped(writer: Container, daemon: Daemon) -> None:
    goes_on(writer, daemon)
    daemon.stop()
    assert not is_mounted(daemon.mount)
    goes_on(writer, daemon)
    daemon.start()
    writer.end()
    numbers = written(daemon)
    assert numbers == list(range(1, len(numbers) + 1))


class Client(threading.Thread):
    """Creates, renames and deletes items of its own until it is cut off; `done` is what succeeded."""

    def __init__(self, items: Path, name: str) -> None:
        super().__init__(name=name)
        self._items = items
        #: The names that must be there, and, of the request that was cut off, those that may be.
        self.there: set[str] = set()
        self.doubtful: set[str] = set()
        #: The errno by which it was.
        self.cut_off = 0

    def run(self) -> None:
        for number in count():
            name, new = f"{self.name}-{number}", f"{self.name}-{number}-new"
            try:
                self.doubtful = {name}
                (self._items / name).mkdir()
                self.there.add(name)
                self.doubtful = {name, new}
                (self._items / name).rename(self._items / new)
                self.there ^= {name, new}
                if number % 2:
                    self.doubtful = {new}
                    (self._items / new).rmdir()
                    self.there.remove(new)
            except OSError as error:
                self.cut_off = error.errno or 0
                return

    def check(self, found: set[str]) -> None:
        assert self.cut_off in (errno.ENOTCONN, errno.ECONNABORTED, errno.ENODEV)
        mine = {name for name in found if name.startswith(f"{self.name}-")}
        assert self.there - self.doubtful <= mine, "what succeeded is there"
        assert mine <= self.there | self.doubtful, "what never happened is not there"
        if len(self.doubtful) == 2:
            assert len(self.doubtful & mine) == 1, "a rename happens whole or not at all"


def test_what_had_succeeded_is_there_after_a_kill_and_nothing_else(daemon: Daemon) -> None:
    tree = ControlTree(daemon)
    pool = tree.active_pool()
    root = daemon.storage / "pools" / pool.name
    for round_number in range(5):
        clients = [Client(pool / "items", f"r{round_number}c{number}") for number in range(3)]
        for client in clients:
            client.start()
        eventually(lambda: all(len(client.there) > 5 for client in clients), what="all are working")  # noqa: B023
        daemon.kill(unmount=False)
        for client in clients:
            client.join(20)
            assert not client.is_alive()
        daemon.start()
        eventually(lambda: value(pool / "status") == "active", what="the pool is active again")
        found = set(os.listdir(pool / "items"))
        for client in clients:
            client.check(found)
        # The pool holds a directory for each item and a definition for each, and nothing besides.
        assert set(os.listdir(root)) == found | {".fspool"}
        assert {name.removesuffix(".xml") for name in os.listdir(root / ".fspool" / "items")} == found
        trashed = [value(entry / "uuid") for entry in (pool / "trash").iterdir()]
        check_trash(root / ".fspool" / "trash", trashed)
