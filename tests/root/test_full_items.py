"""A container that fills its item: it hears of it, nobody else notices, and it goes on when there is room."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from mount.control import ControlTree, request, value
from root.containers import Container, Place, bwrap, make_root
from support.daemon import MakeDaemon
from support.needs import needs_fuse, needs_program, needs_root
from support.shell import run
from support.volumes import Volumes
from support.wait import eventually

pytestmark = [
    needs_root,
    needs_fuse,
    needs_program("busybox", "bwrap", "mkfs.btrfs"),
    pytest.mark.container,
    pytest.mark.required,
]

MIB = 1 << 20
#: Writes until it is refused, tells that, and writes more when its input ends.
SCRIPT = """
busybox dd if=/dev/zero of=/data/first bs=1M count=100
echo first $?
touch /tmp/full
read line
busybox dd if=/dev/zero of=/data/second bs=1M count=20
echo second $?
"""


@pytest.fixture(params=["btrfs-simple", "btrfs-qgroup"])
def pool(request: pytest.FixtureRequest, volumes: Volumes, make_daemon: MakeDaemon) -> Path:
    place = volumes.directory(request.param)
    tree = ControlTree(make_daemon())
    return tree.active_pool(f"<target><path>{place}/pool</path></target>")


@pytest.fixture
def container_place(run_directory: Path) -> Iterator[Place]:
    directory = run_directory / "full"
    directory.mkdir()
    yield Place(directory, make_root(directory / "root"))
    run("rm", "-r", "-f", "--one-file-system", "--", directory)


def test_a_full_item_stops_its_container_alone_until_it_gets_more_room(
    pool: Path, container_place: Place
) -> None:
    full, neighbour = pool / "items" / "full", pool / "items" / "neighbour"
    for item in (full, neighbour):
        item.mkdir()
        request(item / "capacity", "32M")
    container = Container(bwrap(container_place, (full / "data").resolve(), SCRIPT))
    try:
        told = container_place.root / "tmp" / "full"
        eventually(lambda: told.exists() or not container.is_running, what="the item is full", timeout=60)
        assert container.is_running
        with (neighbour / "data" / "file").open("wb") as file:
            file.write(bytes(16 * MIB))
        run("sync", "--file-system", neighbour / "data" / "file")
        assert value(pool / "status") == "active"
        assert int(value(full / "allocation")) <= 33 * MIB
        assert int(value(full / "available")) < 2 * MIB
        assert int(value(neighbour / "available")) >= 15 * MIB
        request(full / "capacity", "128M")
        output = container.end()
    finally:
        container.close()
    assert "Disk quota exceeded" in output
    assert re.search(r"^first [1-9]", output, re.MULTILINE), output
    assert re.search(r"^second 0$", output, re.MULTILINE), output
    run("sync", "--file-system", full / "data" / "second")
    assert int(value(full / "allocation")) >= 45 * MIB
