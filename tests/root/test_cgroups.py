"""Limits of items' consumers by this machine's own control groups, of whichever version."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest

from fspoolfs.backends.cgroups import KernelGroups
from mount.control import ControlTree, last_error, refused, request, value
from root import rates
from root.containers import RUNTIMES, Container, Place, make_root
from support.daemon import MakeDaemon
from support.machine import mounts
from support.needs import needs_fuse, needs_program, needs_root
from support.shell import User, as_user, run, sh
from support.wait import eventually

RATE = 2 << 20
ALICE = as_user(1001)


def why_not(file: str) -> str:
    """Why this machine cannot limit `file`; empty where it can."""
    found = {one.name: one for one in KernelGroups("/").features()}
    row = found.get(f"cgroup {file}", found["cgroups"])
    return row.reason


pytestmark = [needs_root, needs_fuse]
needs_limit = {
    file: pytest.mark.skipif(
        os.geteuid() != 0 or bool(why_not(file)), reason=f"needs a control group's {file}"
    )
    for file in ("io.max", "pids.max")
}


_numbers = count(1)


@pytest.fixture
def parent(run_directory: Path) -> Iterator[str]:
    """A control group for one test, in each hierarchy that there is; nothing may be left in it."""
    name = f"{run_directory.name}-{next(_numbers)}"
    roots = [Path(mount.point) for mount in mounts() if mount.fstype in ("cgroup", "cgroup2")]
    for root in roots:
        (root / name).mkdir()
    yield f"/{name}"
    left = [path for root in roots for path in (root / name).rglob("*") if path.is_dir()]
    for path in (*sorted(left, reverse=True), *(root / name for root in roots)):
        path.rmdir()
    assert left == []


@pytest.fixture
def tree(parent: str, make_daemon: MakeDaemon) -> ControlTree:
    return ControlTree(make_daemon("--cgroup-parent", parent))


def limited(tree: ControlTree, cgroups: str, *, pool: Path | None = None, more: str = "") -> Path:
    """A new item with these limits, in a new pool unless one is named."""
    pool = pool or tree.active_pool()
    request(
        tree.define,
        f"<fs><name>web</name><source fspool='{pool.name}'/><permissions>{more}<cgroups>{cgroups}</cgroups>"
        "</permissions></fs>",
    )
    return pool / "items" / "web"


def groups_of(pid: int) -> set[str]:
    """The groups of a process, in all hierarchies."""
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    return {line.split(":", 2)[2] for line in lines}


@contextmanager
def process(item: Path) -> Iterator[int]:
    with subprocess.Popen(["sleep", "60"]) as started:
        try:
            request(item / "cgroup.procs", str(started.pid))
            yield started.pid
        finally:
            started.kill()


@needs_limit["io.max"]
@needs_program("mkfs.ext4")
def test_direct_writes_and_reads_keep_to_the_limit(tree: ControlTree) -> None:
    request(
        tree.define,
        "<fspool type='volume'><name>limited</name><capacity unit='MiB'>64</capacity>"
        "<source><pool name='images'/><volume name='limited'/></source></fspool>",
    )
    pool = tree.pools / "limited"
    request(pool / "status", "start build")
    item = limited(tree, f"<io.max>rbps={RATE} wbps={RATE}</io.max>", pool=pool)
    found = [rates.rate_in(item, work, 3 * RATE) / RATE for work in (rates.write_directly, rates.read)]
    assert [rate for rate in found if not 0.9 < rate < 1.1] == []
    request(pool / "status", "stop")


@needs_limit["io.max"]
@needs_program("mkfs.btrfs")
def test_every_disk_below_a_btrfs_is_limited(tree: ControlTree, run_directory: Path) -> None:
    directory = run_directory / "disks"
    directory.mkdir()
    disks = []
    for name in ("one", "two"):
        with (directory / name).open("wb") as file:
            file.truncate(128 << 20)
        disks.append(run("losetup", "--find", "--show", directory / name).stdout.strip())
    place = directory / "mounted"
    place.mkdir()
    try:
        run("mkfs.btrfs", "-q", "-d", "raid1", "-m", "raid1", *disks)
        run("mount", "-o", f"device={disks[1]}", disks[0], place)
        pool = tree.active_pool(f"<target><path>{place}</path></target>")
        item = limited(tree, "<io.max>wbps=1000000</io.max>", pool=pool)
        numbers = [os.stat(disk).st_rdev for disk in disks]
        wanted = sorted(f"{os.major(number)}:{os.minor(number)}" for number in numbers)
        lines = kernel_file(item, "io.max", "blkio.throttle.write_bps_device").splitlines()
        assert sorted(line.split()[0] for line in lines) == wanted
        item.rmdir()
        request(pool / "status", "stop")
    finally:
        run("umount", place, check=False)
        for disk in disks:
            run("losetup", "--detach", disk)
        run("rm", "-r", "--", directory)


def kernel_file(item: Path, unified: str, legacy: str) -> str:
    """What the kernel has in the item's group, of either version."""
    group = value(item / "cgroup").lstrip("/")
    for mount, name in (("", unified), (legacy.partition(".")[0], legacy)):
        file = Path("/sys/fs/cgroup", mount, group, name)
        if file.exists():
            return file.read_text()
    raise AssertionError(f"there is no group {group}")


@needs_limit["pids.max"]
def test_a_user_moves_his_own_processes_and_nobody_else_s(tree: ControlTree) -> None:
    os.chmod(tree.daemon.base, 0o755)
    item = limited(tree, "<pids.max>50</pids.max>", more="<owner>1001</owner><group>1001</group>")
    line = 'echo "$2" > "$1/cgroup.procs" && cat "$1/cgroup.procs" /proc/self/cgroup'
    own = sh(line, item, "0", user=ALICE).stdout
    assert value(item / "cgroup") in own
    result = sh(line, item, str(os.getpid()), user=ALICE, check=False)
    assert "Permission denied" in result.stderr
    assert f"user 1001 may not move process {os.getpid()}" in last_error(item)
    assert value(item / "cgroup") not in groups_of(os.getpid())
    other = User(1002, 1002)
    assert "Permission denied" in sh(line, item, "0", user=other, check=False).stderr
    for text, number in (("4194303", errno.ESRCH), ("x", errno.EINVAL), ("-1", errno.EINVAL)):
        with refused(number):
            request(item / "cgroup.procs", text)
    item.rmdir()


@needs_limit["pids.max"]
@needs_program("unshare")
def test_a_number_is_that_of_the_writer_s_pid_namespace(tree: ControlTree) -> None:
    item = limited(tree, "<pids.max>50</pids.max>")
    script = 'echo 1 > "$0/cgroup.procs" && cat "$0/cgroup.procs"; ! echo 4000 > "$0/cgroup.procs"'
    inside = run("unshare", "--pid", "--fork", "--mount-proc", "sh", "-c", script, item)
    # What it reads are the numbers of the daemon's namespace.
    assert 1 not in list(map(int, inside.stdout.split()))
    assert len(inside.stdout.split()) >= 1
    assert "there is no process 4000 in the pid namespace of who wrote it" in last_error(item)
    assert (item / "cgroup.procs").read_text() == ""
    item.rmdir()


@needs_limit["pids.max"]
def test_groups_follow_their_items_through_the_daemon_s_death(tree: ControlTree) -> None:
    item = limited(tree, "<pids.max>50</pids.max>")
    group = value(item / "cgroup")
    with process(item) as pid:
        tree.daemon.kill()
        assert group in groups_of(pid)
        tree.daemon.start()
        eventually(lambda: value(item.parents[1] / "status") == "active", what="the pool is active")
        assert value(item / "cgroup.procs") == str(pid)
        with refused(errno.EBUSY):
            item.rmdir()
        assert f"process {pid} (sleep)" in last_error(item)
    item.rmdir()


@needs_limit["pids.max"]
def test_two_daemons_keep_out_of_each_other_s_groups(parent: str, make_daemon: MakeDaemon) -> None:
    one, other = (ControlTree(make_daemon("--cgroup-parent", parent)) for _ in range(2))
    for tree in (one, other):
        (tree.pools / "same").mkdir()
        request(tree.pools / "same" / "status", "start build")
    item = limited(one, "<pids.max>50</pids.max>", pool=one.pools / "same")
    with refused(errno.EEXIST):
        limited(other, "<pids.max>60</pids.max>", pool=other.pools / "same")
    assert "belongs to another pool same" in last_error(other.pools / "same")
    assert os.listdir(other.pools / "same" / "items") == []
    assert kernel_file(item, "pids.max", "pids.max") == "50\n"
    item.rmdir()


Run = Callable[[Path, str], Container]

#: More processes than the item allows, and who is where; stays until its input ends.
FORKS = (
    "cat /proc/self/cgroup; touch /data/ready; read line; "
    "(for a in 1 2 3 4 5 6 7 8; do for b in 1 2 3 4 5 6 7 8; do sleep 2 & done; done); echo over"
)


@pytest.mark.container
@needs_limit["pids.max"]
@needs_program("busybox")
@pytest.mark.parametrize(
    "runtime", [pytest.param(name, marks=needs_program(name)) for name in ("runc", "podman")]
)
def test_a_container_below_the_item_s_group_is_under_its_limits(
    tree: ControlTree, run_directory: Path, runtime: str
) -> None:
    item = limited(tree, "<pids.max>50</pids.max>")
    directory = run_directory / f"limited-{runtime}"
    directory.mkdir()
    place = Place(directory, make_root(directory / "root"), value(item / "cgroup"))
    container = Container(RUNTIMES[runtime](place, item / "data", FORKS))
    try:
        ready = (item / "data").resolve() / "ready"
        eventually(lambda: ready.exists() or not container.is_running, what="it runs", timeout=30)
        assert container.is_running, container.end()
        inside = list(map(int, (item / "cgroup.procs").read_text().split()))
        assert inside
        with refused(errno.EBUSY):
            item.rmdir()
        output = container.end()
        assert f"{place.group}/" in output
        assert "can't fork" in output
    finally:
        container.close()
        run("umount", "--recursive", "--lazy", directory / "storage", check=False)
        run("rm", "-r", "-f", "--one-file-system", "--", directory)
    eventually(lambda: not (item / "cgroup.procs").read_text(), what="nobody is left")
    item.rmdir()
