"""What can happen to a pool on CephFS: servers that stop or die, a client that dies."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from mount.control import request, value
from root.ceph_pools import Stage, becomes, define, do
from support import ceph
from support.ceph import Cluster
from support.daemon import Daemon, MakeDaemon
from support.leaks import mark
from support.machine import is_mounted
from support.shell import run
from support.wait import eventually

pytestmark = [*ceph.MARKS, pytest.mark.usefixtures("network_places")]

#: Short, so that tests need not wait; what is asserted holds for any.
OPTIONS = ("--grace", "3", "--stall-time", "3")


@contextmanager
def cluster_of_its_own(**wanted: object) -> Iterator[Cluster]:
    """Its servers may be stopped and killed."""
    with (
        tempfile.TemporaryDirectory(prefix=mark()) as place,
        ceph.running(Path(place) / "ceph", **wanted) as it,
    ):
        try:
            yield it
        finally:
            it.signal(signal.SIGCONT)


@pytest.fixture
def stage(make_daemon: MakeDaemon) -> Iterator[Stage]:
    with cluster_of_its_own() as cluster:
        made = started(cluster, make_daemon(*OPTIONS))
        yield made
        let_go(made)


@pytest.fixture
def large_stage(make_daemon: MakeDaemon) -> Iterator[Stage]:
    with cluster_of_its_own(osds=3, store="bluestore") as cluster:
        made = started(cluster, make_daemon(*OPTIONS))
        yield made
        let_go(made)


def started(cluster: Cluster, daemon: Daemon) -> Stage:
    made = define(cluster, daemon)
    do(made.pool, "start build")
    made.new_item("web")
    return made


def let_go(stage: Stage) -> None:
    """While there are servers that a client can take leave of."""
    stage.cluster.signal(signal.SIGCONT)
    if value(stage.pool / "status") != "inactive":
        do(stage.pool, "destroy")
    eventually(lambda: clients(stage) == [], what="its client is gone", timeout=100.0)


def clients(stage: Stage) -> list[int]:
    """The ceph-fuse of the pool."""
    found = []
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = line.read_bytes().split(b"\0")
        except OSError:
            continue
        if words[0].endswith(b"ceph-fuse") and stage.exported.encode() in words:
            found.append(int(line.parent.name))
    return found


def reads(stage: Stage, held: str) -> bool:
    return run("cat", stage.root / "web/file", check=False).stdout == held


@pytest.mark.long
def test_servers_that_all_stop_stall_the_pool_and_nothing_else(stage: Stage) -> None:
    daemon = stage.daemon
    daemon.expect_log("does not answer; it is let go as it is|sync the storage of pool tank")
    request(daemon.mount / "define", "<fspool type='dir'><name>local</name></fspool>")
    local = daemon.mount / "pools/local"
    request(local / "status", "start build")
    stage.cluster.signal(signal.SIGSTOP)
    becomes(stage.pool, "stalled")
    (local / "items/here").mkdir()
    assert value(local / "items/here/status") == "ready"
    stage.cluster.signal(signal.SIGCONT)
    becomes(stage.pool, "active")
    assert reads(stage, "first")
    stage.item("db").mkdir()
    # And once more, for good: what hangs is let go.
    root = stage.root
    stage.cluster.signal(signal.SIGSTOP)
    becomes(stage.pool, "stalled")
    do(stage.pool, "destroy")
    assert value(stage.pool / "status") == "inactive"
    assert not is_mounted(root)
    eventually(lambda: clients(stage) == [], what="its client is gone")
    (local / "items/there").mkdir()


@pytest.mark.long
@pytest.mark.timeout(400)
def test_client_that_is_killed_is_replaced_and_nothing_lands_underneath(stage: Stage) -> None:
    stage.daemon.expect_log("pool tank has failed|it is let go as it is|sync the storage of pool tank")
    root = stage.root
    (killed,) = clients(stage)
    os.kill(killed, signal.SIGKILL)
    run("touch", root / "astray", check=False)
    eventually(lambda: clients(stage) not in ([], [killed]), what="there is another client", timeout=120.0)
    becomes(stage.pool, "active")
    eventually(lambda: reads(stage, "first"), what="the item is there", timeout=120.0)
    do(stage.pool, "destroy")
    assert list(root.iterdir()) == []


@contextmanager
def writer(stage: Stage, name: str) -> Iterator[Path]:
    """A process that writes one synced file after the other into an item, and notes those that are safe."""
    place = Path(os.readlink(stage.item(name) / "data"))
    done = stage.daemon.base / f"done-{name}"
    one = 'echo "content $n" > "$1/$n" && sync "$1/$n" && echo "$n" >> "$2" || exit 1'
    script = f"n=0; while :; do n=$((n+1)); {one}; done"
    with subprocess.Popen(["sh", "-c", script, "sh", place, done]) as process:
        try:
            yield done
            assert process.poll() is None, "the writer met an error"
        finally:
            process.kill()


def written(done: Path) -> int:
    return len(done.read_text().splitlines()) if done.exists() else 0


def goes_on(done: Path) -> None:
    before = written(done)
    eventually(lambda: written(done) > before + 5, what="the writer goes on", timeout=100.0)


def check(stage: Stage, name: str, done: Path) -> None:
    """Whatever was safe is there."""
    place = Path(os.readlink(stage.item(name) / "data"))
    for number in done.read_text().splitlines():
        assert (place / number).read_text() == f"content {number}\n"


@pytest.mark.long
@pytest.mark.timeout(400)
def test_storage_server_dies_and_comes_back_while_items_are_written(large_stage: Stage) -> None:
    stage = large_stage
    with writer(stage, "web") as done:
        goes_on(done)
        for name in ("osd1", "osd2"):
            stage.cluster.servers[name].kill()
            goes_on(done)
            stage.item(f"while-{name}-is-away").mkdir()
            stage.snapshot("web", f"without-{name}")
            stage.cluster.servers[name].start()
            eventually(lambda: "3 up" in stage.cluster.ask("osd", "stat"), what="it is back", timeout=100.0)
            goes_on(done)
    check(stage, "web", done)
    assert {path.name for path in (stage.item("web") / "snapshots").iterdir()} == {
        "without-osd1",
        "without-osd2",
    }


@pytest.mark.long
@pytest.mark.timeout(400)
def test_metadata_server_is_restarted_while_items_are_written(large_stage: Stage) -> None:
    stage = large_stage
    with writer(stage, "web") as done:
        goes_on(done)
        stage.cluster.servers["mds"].kill()
        becomes(stage.pool, "stalled")
        stage.cluster.servers["mds"].start()
        becomes(stage.pool, "active")
        goes_on(done)
    becomes(stage.pool, "active")
    check(stage, "web", done)
    stage.snapshot("web", "after")


@pytest.mark.long
@pytest.mark.timeout(400)
def test_daemon_killed_in_the_midst_of_everything_leaves_it_whole(large_stage: Stage) -> None:
    stage = large_stage
    for number in range(8):
        name = f"item-{number}"
        script = (
            'cd "$1" && mkdir items/$2 && echo first > items/$2/data/file && mkdir items/$2/snapshots/one && '
            "echo rollback one > items/$2/status; rmdir items/$2/snapshots/one; rmdir items/$2"
        )
        with subprocess.Popen(
            ["sh", "-c", script, "sh", stage.pool, name], stderr=subprocess.DEVNULL
        ) as work:
            # Ever later in what it does.
            with suppress(subprocess.TimeoutExpired):
                work.wait(0.02 * (number + 1))
            stage.daemon.kill()
            work.kill()
        stage.daemon.start()
        becomes(stage.pool, "active")
        if stage.item(name).exists():
            assert value(stage.item(name) / "status") == "ready"
            for snapshot in (stage.item(name) / "snapshots").iterdir():
                assert set(os.listdir(snapshot / "data")) <= {"file"}
            stage.item(name).rmdir()
    eventually(lambda: stage.leftovers() == set(), what="nothing is left of them", timeout=60.0)
    assert reads(stage, "first")
