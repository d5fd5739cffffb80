"""Hosts that share a pool on MooseFS, whose servers fence nobody: a person says that a host is off."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from mount.control import last_error, refused, request, value
from root.working import Work, await_work, working
from support import moosefs
from support.clients import Client, clients
from support.shell import run
from support.wait import eventually

pytestmark = moosefs.MARKS

UUID = "7d1b5c0e-1a07-4d42-9c38-0a4a3d1c9a11"
#: Seconds that servers and hosts need on a busy machine.
LONG = 90.0


@dataclass
class Site:
    clients: list[Client]

    @property
    def pools(self) -> list[Path]:
        return [client.mount / "pools/tank" for client in self.clients]


@pytest.fixture
def site(run_directory: Path) -> Iterator[Site]:
    """Two hosts with the pool active."""
    directory = run_directory / "moosefs-hosts"
    directory.mkdir()
    with ExitStack() as stack:
        stack.callback(run, "rm", "-r", "-f", "--one-file-system", "--", directory)
        servers, net = stack.enter_context(moosefs.running_apart(directory / "servers", 2))
        made = stack.enter_context(clients(directory, net.hosts[-2:]))
        for client in made:
            request(
                client.mount / "define",
                f"<fspool type='network'><name>tank</name><uuid>{UUID}</uuid>{servers.source('/tank')}"
                f"<target><path>{client.base}/target</path></target></fspool>",
            )
            start(client.mount / "pools/tank")
        yield Site(made)


def start(pool: Path) -> None:
    try:
        request(pool / "status", "start build")
    except BlockingIOError:
        eventually(lambda: value(pool / "status") == "active", what="the pool is active", timeout=LONG)


def items(pool: Path) -> list[str]:
    return sorted(os.listdir(pool / "items"))


def test_a_lost_host_is_taken_over_when_a_person_says_so(site: Site) -> None:
    one, other = site.pools
    (one / "items/used").mkdir()
    works = [Work(one, "one-", patient=True), Work(other, "two-", patient=True)]
    with working(*works):
        await_work(*works, more_than=15, timeout=LONG)
    assert [work.error for work in works] == [None, None]
    eventually(lambda: items(one) == items(other), what="both list the same items", timeout=LONG)
    sure = {"used"} | works[0].there | works[1].there
    assert sure <= set(items(one)) <= sure | works[0].doubtful | works[1].doubtful
    place = site.clients[1].base / "container"
    place.mkdir()
    run("mount", "--bind", os.path.realpath(other / "items/used/data"), place)
    uses = Path(os.path.realpath(one / "root")) / ".fspool/uses" / value(one / "items/used/uuid")
    eventually(uses.is_dir, what="the use is known in the pool", timeout=LONG)
    number = next(
        line.split()[1] for line in (one / "hosts").read_text().splitlines() if not line.endswith("here")
    )
    site.clients[1].die()
    with refused(errno.EBUSY):
        (one / "items/used").rmdir()
    assert "if that host is off for good, write `fence" in last_error(one / "items/used")
    request(one / "status", f"fence {number}")
    assert len((one / "hosts").read_text().splitlines()) == 1
    (one / "items/used").rmdir()
    (one / "items/after").mkdir()
    site.clients[1].start()
    eventually(lambda: value(other / "status") == "active", what="the host has joined again", timeout=LONG)
    eventually(lambda: items(one) == items(other), what="both list the same items", timeout=LONG)
