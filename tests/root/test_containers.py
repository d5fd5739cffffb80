"""Containers that use an item: they see a plain directory, and keep it from being taken away."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from mount.control import ControlTree, last_error, refused, request, value
from root.containers import RUNTIMES, Container, Place, make_root
from support.daemon import Daemon
from support.needs import needs_fuse, needs_program, needs_root
from support.shell import run
from support.wait import eventually

pytestmark = [
    needs_root,
    needs_fuse,
    needs_program("busybox"),
    pytest.mark.container,
    pytest.mark.required,
]

#: Writes, tells that it has, and stays until its input ends.
SCRIPT = "echo hello > /data/file && touch /data/ready && read line; cat /data/file"

Start = Callable[[Path], Container]
_numbers = count(1)


@pytest.fixture(params=[pytest.param(name, marks=needs_program(name)) for name in RUNTIMES])
def start(request: pytest.FixtureRequest, run_directory: Path) -> Iterator[Start]:
    """Runs `SCRIPT` with a directory at /data, in a container of each runtime."""
    directory = run_directory / f"c{next(_numbers)}"
    directory.mkdir()
    place = Place(directory, make_root(directory / "root"))
    started: list[Container] = []

    def start(source: Path) -> Container:
        container = Container(RUNTIMES[request.param](place, source, SCRIPT))
        started.append(container)
        real = source.resolve()
        eventually(
            lambda: (real / "ready").exists() or not container.is_running,
            what="the container works",
            timeout=30,
        )
        assert container.is_running, container.end()
        return container

    yield start
    for container in started:
        container.close()
    run("umount", "--recursive", "--lazy", directory / "storage", check=False)
    run("rm", "-r", "-f", "--one-file-system", "--", directory)


def users(item: Path) -> list[tuple[int, str, str]]:
    """Pid, command and mount point of each user."""
    lines = (item / "users").read_text().splitlines()
    return [(int(pid), command, target) for pid, command, target in (line.split(" ", 2) for line in lines)]


def test_what_a_container_writes_is_in_the_pool(start: Start, daemon: Daemon) -> None:
    tree = ControlTree(daemon)
    item = tree.new_item()
    container = start(item / "data")
    assert container.end() == "hello\n"
    assert (item / "data" / "file").read_text() == "hello\n"
    assert (item / "data").resolve() == daemon.storage / "pools" / item.parents[1].name / "web"
    assert users(item) == []
    item.rmdir()


def test_an_item_that_a_container_uses_stays_and_everyone_is_told_who_it_is(
    start: Start, daemon: Daemon
) -> None:
    tree = ControlTree(daemon)
    item = tree.new_item()
    pool = item.parents[1]
    idle = tree.new_item(pool, "idle")
    assert users(item) == []
    container = start(item / "data")

    found = users(item)
    assert found
    for pid, command, target in found:
        assert Path(f"/proc/{pid}/comm").read_text().strip() == command
        assert os.readlink(f"/proc/{pid}/ns/mnt") != os.readlink("/proc/self/ns/mnt")
        assert target.endswith("/data")
    pid, command, _ = found[0]
    assert users(idle) == []

    with refused(errno.EBUSY):
        item.rmdir()
    with refused(errno.EBUSY):
        item.rename(item.with_name("shop"))
    with refused(errno.EBUSY):
        request(pool / "status", "stop")
    assert f"process {pid} ({command})" in last_error(pool)
    assert value(pool / "status") == "active"
    assert value(item / "status") == "ready"
    # Nothing of this is in the way of others, or of what does not move the directory.
    idle.rename(idle.with_name("other"))
    item.chmod(0o700)

    assert container.end() == "hello\n"
    item.rename(item.with_name("shop"))
    request(pool / "status", "stop")
    request(pool / "status", "start")
    (item.with_name("shop")).rmdir()
    assert (pool / "trash" / "shop").is_dir()


def test_last_error_of_the_item_names_the_container(start: Start, daemon: Daemon) -> None:
    item = ControlTree(daemon).new_item()
    container = start(item / "data")
    pid, command, _ = users(item)[0]
    with refused(errno.EBUSY):
        item.rmdir()
    assert f"process {pid} ({command})" in last_error(item)
    container.end()


def test_a_container_goes_on_while_the_pool_is_destroyed_and_started(start: Start, daemon: Daemon) -> None:
    item = ControlTree(daemon).new_item()
    pool = item.parents[1]
    container = start(item / "data")
    request(pool / "status", "destroy")
    assert value(pool / "status") == "inactive"
    request(pool / "status", "start")
    assert users(item)
    assert container.end() == "hello\n"
    assert (item / "data" / "file").read_text() == "hello\n"


def test_a_directory_inside_an_item_is_in_use_as_well(start: Start, daemon: Daemon) -> None:
    item = ControlTree(daemon).new_item()
    (item / "data" / "inner").mkdir()
    container = start(item / "data" / "inner")
    with refused(errno.EBUSY):
        item.rmdir()
    container.end()
    item.rmdir()
