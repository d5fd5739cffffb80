"""Hosts that share a pool on CephFS: each with a network, a daemon and a client of its own."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from mount.control import last_error, refused, request, value
from root.ceph_site import LONG, Site, agree, items, manages, open_site, patiently, settled, starts
from root.working import Work, await_work, working
from support import ceph
from support.shell import run
from support.wait import eventually

pytestmark = ceph.MARKS


@pytest.fixture(scope="module")
def _site(run_directory: Path) -> Iterator[Site]:
    with ExitStack() as stack:
        directory = run_directory / "ceph-hosts"
        directory.mkdir()
        stack.callback(run, "rm", "-r", "-f", "--one-file-system", "--", directory)
        yield open_site(stack, directory)


@pytest.fixture
def site(_site: Site) -> Site:
    """Two hosts with the pool active; a test leaves both alive."""
    return _site


@pytest.fixture
def durable(run_directory: Path, tmp_path: Path) -> Iterator[Site]:
    """The same on three object stores, for the test alone."""
    with ExitStack() as stack:
        directory = run_directory / f"d-{tmp_path.name}"
        directory.mkdir()
        stack.callback(run, "rm", "-r", "-f", "--one-file-system", "--", directory)
        yield open_site(stack, directory, osds=3, store="bluestore")


@pytest.mark.timeout(400)
def test_two_hosts_work_side_by_side(site: Site) -> None:
    one, other = site.pools
    works = [Work(one, "one-", patient=True), Work(other, "two-", patient=True)]
    with working(*works):
        await_work(*works, more_than=15, timeout=LONG)
    assert [work.error for work in works] == [None, None]
    agree(site)
    assert set(items(one)) >= works[0].there | works[1].there
    assert len((one / "hosts").read_text().splitlines()) == 2


def test_what_one_host_writes_and_keeps_the_other_one_reads(site: Site) -> None:
    one, other = site.pools
    (one / "items/shared").mkdir()
    request(one / "items/shared/capacity", "1GiB")
    (one / "items/shared/data/file").write_text("before")
    (one / "items/shared/snapshots/v1").mkdir()
    (one / "items/shared/data/file").write_text("after")
    there = other / "items/shared"
    eventually(lambda: (there / "snapshots/v1").is_dir(), what="item and snapshot are seen")
    assert value(there / "capacity") == str(1 << 30)
    assert (there / "data/file").read_text() == "after"
    assert (there / "snapshots/v1/data/file").read_text() == "before"
    request(there / "status", "rollback v1")
    eventually(lambda: (one / "items/shared/data/file").read_text() == "before", what="it is rolled back")
    (there / "snapshots/v1").rmdir()
    eventually(lambda: not (one / "items/shared/snapshots/v1").exists(), what="the snapshot is gone")


def test_an_item_that_is_used_on_one_host_stays_on_the_other(site: Site) -> None:
    one, other = site.pools
    (one / "items/used").mkdir()
    (one / "items/used/snapshots/v1").mkdir()
    eventually(lambda: (other / "items/used").is_dir(), what="the item is seen")
    place = site.clients[1].base / "container"
    place.mkdir()
    run("mount", "--bind", os.path.realpath(other / "items/used/data"), place)
    try:
        uses = Path(os.path.realpath(one / "root")) / ".fspool/uses" / value(one / "items/used/uuid")
        eventually(lambda: uses.is_dir(), what="the use is known in the pool")
        with refused(errno.EBUSY):
            (one / "items/used").rmdir()
        assert "in use on host" in last_error(one / "items/used")
        with refused(errno.EBUSY):
            request(one / "items/used/status", "rollback v1")
        assert "in use on host" in last_error(one / "items/used")
        assert " on " in (one / "items/used/users").read_text()
    finally:
        run("umount", place)
        place.rmdir()
    eventually(lambda: not uses.exists(), what="the use has ended")
    (one / "items/used").rmdir()


def test_a_daemon_that_is_killed_leaves_its_work_to_the_others(site: Site) -> None:
    one, other = site.pools
    mine, theirs = Work(one, "mine-", patient=True), Work(other, "theirs-")
    with working(mine, theirs):
        await_work(mine, theirs, more_than=8, timeout=LONG)
        site.clients[1].kill()
        done = mine.done
        eventually(lambda: mine.done > done + 5, what="the other one goes on", timeout=LONG)
    assert mine.error is None
    sure = (mine.there | theirs.there) - theirs.doubtful
    assert sure <= set(items(one))
    site.clients[1].start()
    settled(other)
    agree(site)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_host_that_dies_is_taken_over_by_the_survivor(durable: Site) -> None:
    one, other = durable.pools
    mine, theirs = Work(one, "mine-"), Work(other, "theirs-")
    with working(mine, theirs):
        await_work(mine, theirs, more_than=30, timeout=LONG)
        durable.clients[1].die()

    eventually(lambda: manages(one), what="the survivor manages the pool", timeout=LONG)
    sure = (mine.there | theirs.there) - theirs.doubtful - mine.doubtful
    allowed = sure | theirs.doubtful | mine.doubtful | {"after"}
    eventually(
        lambda: sure <= set(items(one)) <= allowed, what="nothing is lost, nothing doubled", timeout=LONG
    )
    for name in items(one):
        assert (one / "items" / name / "data").is_dir()
        patiently(one, (one / "items" / name).rmdir)
    assert items(one) == []
    durable.clients[1].start()
    settled(other)
    agree(durable)
    assert len((one / "hosts").read_text().splitlines()) == 2


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_host_that_is_cut_off_is_fenced_before_another_takes_over(durable: Site) -> None:
    one, other = durable.pools
    patiently(other, (other / "items/mine").mkdir)
    writer = subprocess.Popen(
        ["sh", "-c", "n=0; while :; do n=$((n+1)); echo $n >> file || exit 3; sleep 0.05; done"],
        cwd=os.path.realpath(other / "items/mine/data"),
        stderr=subprocess.DEVNULL,
    )
    try:
        theirs = Work(other, "theirs-", writes=False)
        with working(theirs):
            await_work(theirs, more_than=10, timeout=LONG)
            durable.clients[1].expect_log("pool tank")  # how it fails depends on the moment
            durable.net.unplug(3)
            eventually(lambda: manages(one), what="the other host has taken over", timeout=LONG)
            eventually(lambda: theirs.error is not None, what="the lost host was refused", timeout=LONG)
        sure = theirs.there - theirs.doubtful
        eventually(lambda: sure <= set(items(one)), what="nothing is lost", timeout=LONG)
        file = Path(os.path.realpath(one / "items/mine/data/file"))
        size = file.stat().st_size
        durable.net.plug(3)
        settled(other)
        agree(durable)
        assert file.stat().st_size == size, "the host that was fenced has written"
    finally:
        writer.kill()
        writer.wait()


#: A container that writes all the time, though not as fast as servers on the same disk cannot bear.
_WRITE = "n=0; while [ ! -e end ]; do n=$((n+1)); echo $n >> file || exit 3; sleep 0.02; done; sync"
#: Items with capacity and a snapshot; what takes longer than a request may is waited for.
_MAKE = """
until_() { until "$@"; do sleep 0.1; done; }
ready() { [ "$(cat "$1/status")" = ready ]; }
limited() { [ "$(cat "$1/capacity")" = 1073741824 ]; }
for n in $(seq 500); do
    item=$0/items/$1$n
    mkdir "$item" || until_ ready "$item"
    echo 1GiB > "$item/capacity" || until_ limited "$item"
    mkdir "$item/snapshots/v1" || until_ [ -d "$item/snapshots/v1" ]
    until_ ready "$item"
done
"""


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_thousand_items_by_two_hosts_while_a_server_dies(durable: Site) -> None:
    one, other = durable.pools
    containers = []
    for number, pool in enumerate(durable.pools):
        patiently(pool, (pool / f"items/written{number}").mkdir)
        containers.append(
            subprocess.Popen(
                ["sh", "-c", _WRITE],
                cwd=os.path.realpath(pool / f"items/written{number}/data"),
            )
        )

    def make(pool: Path, prefix: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(["sh", "-c", _MAKE, str(pool), prefix], stderr=subprocess.DEVNULL)

    makers = [make(one, "a"), make(other, "b")]
    try:
        eventually(lambda: len(items(one)) > 100, what="both are at work", timeout=LONG)
        durable.cluster.servers["osd1"].kill()
        eventually(lambda: len(items(one)) > 300, what="they go on without one server", timeout=LONG)
        durable.cluster.servers["osd1"].start()
        for maker in makers:
            assert maker.wait(600) == 0
    finally:
        for number, pool in enumerate(durable.pools):
            Path(os.path.realpath(pool / f"items/written{number}/data/end")).touch()
        ended = [container.wait(120) for container in containers]
    assert ended == [0, 0]
    agree(durable)
    assert len(items(one)) == 1002
    for pool in durable.pools:
        for name in ("a1", "a500", "b1", "b500"):
            snapshot = pool / "items" / name / "snapshots/v1"
            eventually(snapshot.is_dir, what="its snapshot is there")
            assert value(pool / "items" / name / "capacity") == str(1 << 30)
    for number, pool in enumerate(durable.pools):
        lines = Path(os.path.realpath(pool / f"items/written{number}/data/file")).read_text().split()
        assert lines == [str(n) for n in range(1, len(lines) + 1)]


@pytest.mark.long
@pytest.mark.timeout(900)
def test_with_all_servers_stopped_the_daemon_answers_and_lets_the_mount_go(durable: Site) -> None:
    one = durable.pools[0]
    patiently(one, (one / "items/web").mkdir)
    for server in durable.cluster.servers.values():
        server.signal(signal.SIGSTOP)
    try:
        settled(one, "stalled")
        with refused(errno.ETIMEDOUT):
            (one / "items/more").mkdir()
        assert items(one) == ["web"]
        for client in durable.clients:
            client.expect_log("pool tank")  # how they fail depends on the moment
        request(one / "status", "destroy")
        assert value(one / "status") == "inactive"
        durable.clients[0].stop()
        durable.clients[0].start()
    finally:
        for server in durable.cluster.servers.values():
            server.signal(signal.SIGCONT)
    eventually(lambda: starts(one), what="the pool can be started again", timeout=LONG)
    eventually(lambda: items(one) == ["web"], what="the item is there")
