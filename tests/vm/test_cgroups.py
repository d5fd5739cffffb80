"""Limits of items' consumers where the kernel has version 2 of control groups."""

from __future__ import annotations

import errno
import os
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from crashing import contract
from mount.control import last_error, refused, request, value
from root import rates
from support.shell import run
from vm.preloaded import PreloadedDaemon
from vm.volume_groups import Group

MIB, SECTOR = 1 << 20, 512
#: Bytes a second, and how much is written and read at that.
RATE, AMOUNT = 2 * MIB, 8 * MIB
KERNEL = Path("/sys/fs/cgroup/fspool")


def loop_volume() -> str:
    return "<pool name='images'/><volume name='limited'/>"


def logical_volume() -> str:
    return f"<pool name='{Group('vg-limits', 400 * MIB).name}' provider='lvm'/><volume name='limited'/>"


def partition() -> str:
    """Of the guest's own disk: what is limited is the disk, since the kernel takes nothing less."""
    run("modprobe", "virtio_blk")
    # The table of a PC: one entry of Linux' type, from the second MiB on; then its mark at the end.
    entry = struct.pack("<8B2I", 0, 0, 0, 0, 0x83, 0, 0, 0, MIB // SECTOR, 400 * MIB // SECTOR)
    Path("/dev/vda").write_bytes(bytes(446) + entry + bytes(48) + b"\x55\xaa")
    run("blockdev", "--rereadpt", "/dev/vda")
    return "<device path='/dev/vda1'/>"


#: By the prefix of the disk's name in /sys/block.
STORAGES: dict[str, Callable[[], str]] = {"loop": loop_volume, "dm-": logical_volume, "vda": partition}


def define(daemon: PreloadedDaemon, pool: str, limited: str, item: str = "web") -> Path:
    """An item whose `<cgroups>` hold `limited`."""
    request(
        daemon.mount / "define",
        f"<fs><name>{item}</name><source fspool='{pool}'/><permissions><cgroups>{limited}</cgroups>"
        "</permissions></fs>",
    )
    return daemon.mount / "pools" / pool / "items" / item


def started(daemon: PreloadedDaemon, name: str, source: str) -> Path:
    capacity = "" if "device" in source else "<capacity unit='MiB'>200</capacity>"
    request(
        daemon.mount / "define",
        f"<fspool type='volume'><name>{name}</name>{capacity}<source>{source}</source>"
        "<trash retention='none'/></fspool>",
    )
    pool = daemon.mount / "pools" / name
    request(pool / "status", "start build")
    return pool


@pytest.fixture
def pool(daemon: PreloadedDaemon) -> Iterator[Path]:
    """A directory pool on the daemon's own ext4, for one test."""
    pool = daemon.mount / "pools" / "tank"
    pool.mkdir()
    request(pool / "status", "start build")
    yield pool
    for item in (pool / "items").iterdir():
        item.rmdir()
    request(pool / "status", "stop")
    pool.rmdir()
    assert not KERNEL.exists()


@contextmanager
def limited_process(item: Path) -> Iterator[int]:
    """A process under the item's limits; its number."""
    with subprocess.Popen(["sleep", "600"]) as process:
        try:
            request(item / "cgroup.procs", str(process.pid))
            yield process.pid
        finally:
            process.kill()


@pytest.mark.parametrize("storage", STORAGES)
def test_input_and_output_keep_to_the_limit(daemon: PreloadedDaemon, storage: str) -> None:
    pool = started(daemon, "limited", STORAGES[storage]())
    item = define(daemon, "limited", f"<io.max>rbps={RATE} wbps={RATE}</io.max>")
    assert f"cgroup io.max: yes (on {storage}" in (pool / "features").read_text()
    found = {
        work.__name__: rates.rate_in(item, work, AMOUNT) / RATE
        for work in (rates.write_directly, rates.read, rates.write_buffered)
    }
    print(storage, found)
    assert {name: rate for name, rate in found.items() if not 0.9 < rate < 1.1} == {}
    item.rmdir()
    request(pool / "status", "stop")
    request(pool / "status", "delete")
    pool.rmdir()
    assert not KERNEL.exists()


def test_values_reach_the_kernel_and_change_with_the_definition(daemon: PreloadedDaemon, pool: Path) -> None:
    item = define(
        daemon,
        "tank",
        "<memory.max>64M</memory.max><memory.high>50000K</memory.high><pids.max>20</pids.max>"
        "<cpu.max>50000 200000</cpu.max><io.max>riops=100 wbps=1000000</io.max>",
    )
    assert value(item / "cgroup") == "/fspool/tank/web"
    group = KERNEL / "tank" / "web"
    files = ("memory.max", "memory.high", "pids.max", "cpu.max", "io.max")
    device = os.stat(os.readlink(pool / "root")).st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    assert [value(group / file) for file in files] == [
        *(str(64 * MIB), "51200000", "20", "50000 200000"),
        f"{number} rbps=max wbps=1000000 riops=100 wiops=max",
    ]
    with limited_process(item) as pid:
        assert value(item / "cgroup.procs") == str(pid)
        define(daemon, "tank", "<pids.max>30</pids.max><io.max>wiops=7</io.max>")
        assert [(group / file).read_text() for file in files] == [
            *("max\n", "max\n", "30\n", "max 100000\n"),
            f"{number} rbps=max wbps=max riops=max wiops=7\n",
        ]
        define(daemon, "tank", "")
        assert [(group / file).read_text() for file in files] == [
            "max\n",
            "max\n",
            "max\n",
            "max 100000\n",
            "",
        ]
        assert "cgroup" not in os.listdir(item)
        define(daemon, "tank", "<pids.max>30</pids.max>")
    assert value(group / "pids.max") == "30"


def test_a_group_in_use_stays_and_its_users_are_named(daemon: PreloadedDaemon, pool: Path) -> None:
    item = define(daemon, "tank", "<pids.max>20</pids.max>")
    with limited_process(item) as pid:
        for attempt in (item.rmdir, lambda: item.rename(item.with_name("shop"))):
            with refused(errno.EBUSY):
                attempt()
            assert f"process {pid} (sleep)" in last_error(item)
        with refused(errno.EBUSY):
            request(pool / "status", "stop")
        assert f"process {pid} (sleep)" in last_error(pool)
    item.rename(item.with_name("shop"))
    assert os.listdir(KERNEL / "tank").count("shop") == 1
    # What a runtime has left empty goes along.
    (KERNEL / "tank" / "shop" / "container" / "inner").mkdir(parents=True)
    item.with_name("shop").rmdir()
    assert not KERNEL.exists()


def test_limits_outlive_a_killed_daemon(daemon: PreloadedDaemon, pool: Path) -> None:
    item = define(daemon, "tank", "<pids.max>20</pids.max>")
    with limited_process(item) as pid:
        daemon.kill()
        (KERNEL / "tank" / "web" / "pids.max").write_text("max")
        (KERNEL / "tank" / "gone").mkdir()
        daemon.start()
        contract.settle(daemon.mount)
        assert value(item / "cgroup.procs") == str(pid)
        assert value(KERNEL / "tank" / "web" / "pids.max") == "20"


def test_what_the_kernel_does_not_limit_is_refused_with_the_reason(
    daemon: PreloadedDaemon, pool: Path
) -> None:
    item = define(daemon, "tank", "<pids.max>20</pids.max>")
    for limited, reason in (
        ("<io.latency>target=1000</io.latency>", "this kernel has no io.latency"),
        ("<io.weight>50</io.weight>", "weights count only where the cost model is switched on"),
    ):
        with refused(errno.EOPNOTSUPP):
            define(daemon, "tank", f"<pids.max>30</pids.max>{limited}")
        assert reason in last_error(item)
        assert value(KERNEL / "tank" / "web" / "pids.max") == "20"
    device = os.stat(os.readlink(pool / "root")).st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    Path("/sys/fs/cgroup/io.cost.qos").write_text(f"{number} enable=1")
    define(daemon, "tank", "<io.weight>50</io.weight>")
    assert f"{number} 50\n" in (KERNEL / "tank" / "web" / "io.weight").read_text()
    Path("/sys/fs/cgroup/io.cost.qos").write_text(f"{number} enable=0")


def test_a_pool_that_is_on_no_disk_has_no_limits_of_input_and_output(
    daemon: PreloadedDaemon, tmp_path: Path
) -> None:
    run("mount", "-t", "tmpfs", "none", tmp_path)
    (tmp_path / "memory").mkdir()
    target = f"<target><path>{tmp_path}/memory</path></target>"
    request(daemon.mount / "define", f"<fspool type='dir'><name>memory</name>{target}</fspool>")
    pool = daemon.mount / "pools" / "memory"
    request(pool / "status", "start build")
    with refused(errno.EOPNOTSUPP):
        define(daemon, "memory", "<io.max>rbps=1000000</io.max>")
    assert "of type tmpfs, is not on block devices" in last_error(pool)
    assert os.listdir(pool / "items") == []
    define(daemon, "memory", "<pids.max>20</pids.max>").rmdir()
    request(pool / "status", "stop")
