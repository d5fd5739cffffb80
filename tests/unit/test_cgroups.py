"""What is written into the kernel's files of both versions, on directories that stand for hierarchies."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fspoolfs.backends.cgroups import KernelGroups
from fspoolfs.errors import AccessError, ExistsError, UnsupportedError
from fspoolfs.model.limits import LIMITS
from fspoolfs.system import processes
from fspoolfs.system.block_devices import Disk
from fspoolfs.system.cgroups import location
from fspoolfs.system.cgroups.legacy import Legacy
from fspoolfs.system.cgroups.tree import Place, Tree, escaped, unescaped
from fspoolfs.system.cgroups.unified import Unified
from fspoolfs.system.processes import Process

WEB = Place("11111111-0000-0000-0000-000000000000", "tank", "web")
DISKS = [Disk("7:3", "loop3", has_queue=True)]
DEVICE_MAPPER = Disk("253:1", "dm-1", has_queue=False)


@pytest.fixture(autouse=True)
def _marks_can_be_made(tmp_path: Path) -> None:
    try:
        os.setxattr(tmp_path, "user.fspoolfs.test", b"")
    except OSError as error:
        pytest.skip(f"needs extended attributes in {tmp_path}: {error.strerror}")


def unified(mount: Path, controllers: str = "cpu io memory pids") -> Unified:
    """A hierarchy of version 2 in which the group of `WEB` has all files, as the kernel would make them."""
    for directory in (mount, mount / "fspool", mount / "fspool" / "tank"):
        directory.mkdir(exist_ok=True)
        (directory / "cgroup.controllers").write_text(f"{controllers}\n")
        (directory / "cgroup.subtree_control").write_text(f"{controllers}\n")
    group = mount / "fspool" / "tank" / "web"
    group.mkdir()
    for directory in (mount / "fspool", group):
        for file in LIMITS:
            texts = {"io.max": "", "io.latency": "", "io.weight": "default 100\n", "cpu.max": "max 100000\n"}
            (directory / file).write_text(texts.get(file, "max\n"))
    return Unified(mount, "/")


def test_version_2_gets_each_value_with_the_pools_device(tmp_path: Path) -> None:
    hierarchy = unified(tmp_path)
    limits = (
        *(("io.max", "wiops=5 rbps=7"), ("io.latency", "target=9"), ("memory.max", "5M")),
        *(("pids.max", "3"), ("cpu.max", "2000")),
    )
    hierarchy.put(WEB, limits, DISKS)
    group = tmp_path / "fspool" / "tank" / "web"
    assert {file: (group / file).read_text().splitlines()[0] for file in LIMITS} == {
        "io.max": "7:3 rbps=7 wbps=max riops=max wiops=5",
        "io.latency": "7:3 target=9",
        "io.weight": "default 100",
        "memory.max": "5M",
        "memory.high": "max",
        "pids.max": "3",
        "cpu.max": "2000 100000",
    }


def test_version_2_forgets_what_it_limited_yesterday(tmp_path: Path) -> None:
    hierarchy = unified(tmp_path)
    file = tmp_path / "fspool" / "tank" / "web" / "io.max"
    file.write_text("7:9 rbps=5 wbps=max riops=max wiops=max\n")
    bandwidth = file.with_name("cpu.max")
    bandwidth.write_text("2000 5000\n")
    hierarchy.put(WEB, (("pids.max", "3"),), DISKS)
    assert bandwidth.read_text().splitlines()[0] == "max 100000"
    assert file.read_text().splitlines()[0] == "7:9 rbps=max wbps=max riops=max wiops=max"


def test_version_2_says_what_is_missing(tmp_path: Path) -> None:
    hierarchy = unified(tmp_path, "memory pids")
    (tmp_path / "fspool" / "memory.high").unlink()
    assert hierarchy.reasons() == {
        "io.max": f"the controller io is not available in {tmp_path}",
        "io.weight": f"the controller io is not available in {tmp_path}",
        "io.latency": f"the controller io is not available in {tmp_path}",
        "memory.max": "",
        "memory.high": "this kernel has no memory.high",
        "pids.max": "",
        "cpu.max": f"the controller cpu is not available in {tmp_path}",
    }
    with pytest.raises(UnsupportedError, match="the controller io is gone"):
        hierarchy.put(WEB, (("io.max", "rbps=1"),), DISKS)


def test_weights_and_latencies_need_a_queue_and_weights_a_cost_model(tmp_path: Path) -> None:
    hierarchy = Unified(tmp_path, "/")
    assert "no request queue" in hierarchy.check_disk("io.weight", DEVICE_MAPPER)
    assert "no request queue" in hierarchy.check_disk("io.latency", DEVICE_MAPPER)
    assert hierarchy.check_disk("io.max", DEVICE_MAPPER) == ""
    assert "write '7:3 enable=1' into" in hierarchy.check_disk("io.weight", DISKS[0])
    (tmp_path / "io.cost.qos").write_text("7:3 enable=1 ctrl=auto rpct=0.00\n")
    assert hierarchy.check_disk("io.weight", DISKS[0]) == ""


def legacy(mount: Path) -> Legacy:
    names = ("blkio", "memory", "pids", "cpu")
    for name in names:
        (mount / name).mkdir(parents=True)
    (mount / "systemd").mkdir()
    return Legacy({name: mount / name for name in names}, [mount / "systemd"], "/")


def test_version_1_gets_what_means_the_same(tmp_path: Path) -> None:
    hierarchy = legacy(tmp_path)
    files = {
        "blkio": [
            f"blkio.throttle.{way}_{what}_device" for way in ("read", "write") for what in ("bps", "iops")
        ],
        "memory": ["memory.limit_in_bytes"],
        "cpu": ["cpu.cfs_quota_us", "cpu.cfs_period_us"],
    }
    for controller, names in files.items():
        group = tmp_path / controller / "fspool" / "tank" / "web"
        group.mkdir(parents=True)
        for name in names:
            (group / name).write_text("")
    hierarchy.put(WEB, (("io.max", "wbps=5 riops=9"), ("memory.max", "1M"), ("cpu.max", "2000 5000")), DISKS)

    def written(file: str) -> str:
        return (tmp_path / file.partition(".")[0] / "fspool" / "tank" / "web" / file).read_text()

    assert {name: written(name) for names in files.values() for name in names} == {
        "blkio.throttle.read_bps_device": "7:3 0\n",
        "blkio.throttle.read_iops_device": "7:3 9\n",
        "blkio.throttle.write_bps_device": "7:3 5\n",
        "blkio.throttle.write_iops_device": "7:3 0\n",
        "memory.limit_in_bytes": "1048576\n",
        "cpu.cfs_quota_us": "2000\n",
        "cpu.cfs_period_us": "5000\n",
    }
    assert not (tmp_path / "pids" / "fspool").exists(), "no limit needs it"


def test_a_pool_on_other_hosts_has_no_limits_of_input_and_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hierarchy = legacy(tmp_path)
    monkeypatch.setattr(location, "find", lambda parent: hierarchy)
    groups = KernelGroups()
    groups.check("web", (("pids.max", "5"),), None)
    with pytest.raises(
        UnsupportedError, match=r"io\.max cannot be enforced: the pool's storage is on other hosts"
    ):
        groups.check("web", (("io.max", "rbps=1"),), None)
    with pytest.raises(UnsupportedError, match="has nothing that means the same"):
        groups.check("web", (("memory.high", "5"),), None)


def test_systemd_has_to_hand_over_a_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cgroup.controllers").write_text("io memory\n")
    monkeypatch.setattr(location, "_SYSTEMD", tmp_path)
    monkeypatch.setattr(location, "_mounted", lambda: (tmp_path, {}, []))
    found = location.find(None)
    assert isinstance(found, str)
    assert "fspoolfs-items.service" in found
    assert isinstance(location.find("/"), Unified)
    (tmp_path / "system.slice" / "fspoolfs-items.service").mkdir(parents=True)
    assert isinstance(location.find(None), Unified)
    monkeypatch.setattr(location, "_mounted", lambda: (None, {}, []))
    assert location.find("/") == "no control groups with controllers are mounted"


@pytest.mark.parametrize("name", ["memory.max", "cgroup.procs", "tasks", "_x", "io.", "web", "a.b", "ioweb"])
def test_no_group_is_called_as_a_file_of_the_kernel(name: str) -> None:
    group = escaped(name)
    assert unescaped(group) == name
    assert (group == name) == (name in ("web", "a.b", "ioweb"))


def test_groups_of_another_pool_are_let_alone(tmp_path: Path) -> None:
    tree = Tree(tmp_path, "/")
    tree.make(WEB)
    other = Place("22222222-0000-0000-0000-000000000000", "tank", "web")
    with pytest.raises(ExistsError, match="belongs to another pool tank"):
        tree.make(other)
    tree.remove(other)
    assert tree.items() == {(WEB.uuid, "tank"): ["web"]}
    (tree.group(WEB) / "container" / "inner").mkdir(parents=True)
    tree.remove(WEB)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("uid", "may"), [(0, True), (1001, True), (1002, True), (1003, False)])
def test_root_and_its_user_may_move_a_process(uid: int, may: bool) -> None:
    process = Process(pid=5, real=1001, saved=1002, pidfd=-1)
    if may:
        processes.check_may_move(process, uid)
        return
    with pytest.raises(AccessError, match="user 1003 may not move process 5, which is user 1001's"):
        processes.check_may_move(process, uid)
