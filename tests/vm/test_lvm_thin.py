"""Pools on thin volumes that somebody else has made: used, enlarged, told what they take, and kept."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from mount.control import request, value
from support.machine import is_mounted
from support.shell import run
from support.wait import eventually
from vm.preloaded import PreloadedDaemon
from vm.volume_groups import Group

MIB = 1 << 20
SIZE, LARGER, WRITTEN = 320 * MIB, 480 * MIB, 24 * MIB
#: Less than what its thin volume is promised, and there is no room for that in the group either.
POOL_SIZE, GROUP_SIZE = 160 * MIB, 200 * MIB


def numbers(daemon: PreloadedDaemon) -> dict[str, int]:
    """What metrics tell of the volume of pool "thin", by name."""
    found = re.findall(
        r'^fspoolfs_pool_volume_bytes\{[^}]*kind="(\w+)"[^}]*\} ([0-9.e+]+)$',
        (daemon.mount / "metrics").read_text(),
        re.MULTILINE,
    )
    return {kind: int(float(number)) for kind, number in found}


def test_a_thin_volume_is_used_and_kept(daemon: PreloadedDaemon) -> None:
    group = Group("vg-thin", GROUP_SIZE)
    group.make_thin("thin", SIZE, pool_size=POOL_SIZE)
    request(
        daemon.mount / "define",
        f"<fspool type='volume'><name>thin</name><source><pool name='{group.name}' provider='lvm'/>"
        "<volume name='thin'/><format type='xfs'/></source><trash retention='none'/></fspool>",
    )
    pool = daemon.mount / "pools" / "thin"
    request(pool / "status", "build")
    request(pool / "status", "start")
    root = Path(os.readlink(pool / "root"))
    (pool / "items" / "web").mkdir()
    file = pool / "items" / "web" / "data" / "file"

    def taken() -> int:
        info = (pool / "info").read_text()
        assert f"taken on {group.name}/pool_of_thin, where " in info
        return numbers(daemon)["allocation"]

    before = taken()
    assert before < SIZE / 2, "not all that it was promised"
    with file.open("wb") as opened:
        opened.write(os.urandom(WRITTEN))
        os.fsync(opened.fileno())
    eventually(lambda: before + WRITTEN * 0.8 < taken() < SIZE / 2, what="what is written is counted")
    request(pool / "capacity", str(LARGER))
    assert group.volumes()["thin"] == LARGER
    assert group.volumes()["pool_of_thin"] == POOL_SIZE
    assert os.statvfs(root).f_blocks * os.statvfs(root).f_frsize > SIZE
    eventually(lambda: taken() and numbers(daemon)["size"] == LARGER, what="its new size is told")
    events = [json.loads(line) for line in (daemon.mount / "events").read_text().splitlines()]
    warned = [one for one in events if one.get("event") == "storage-overcommitted"]
    assert [one["store"] for one in warned] == [f"{group.name}/pool_of_thin"]

    request(pool / "status", "stop")
    assert not is_mounted(root)
    assert Path(f"/dev/{group.name}/thin").exists(), "as it was found"
    run("lvchange", "--activate", "n", f"{group.name}/thin")
    eventually(
        lambda: "Volume: " not in (pool / "info").read_text(),
        what="nobody can tell what it takes while it is not active",
    )
    assert numbers(daemon) == {}
    request(pool / "status", "start")
    assert file.stat().st_size == WRITTEN
    (pool / "items" / "web").rmdir()
    request(pool / "status", "stop")
    request(pool / "status", "delete")
    assert group.volumes() == {"pool_of_thin": POOL_SIZE, "thin": LARGER}
    assert value(pool / "status") == "inactive"
    run("lvchange", "--activate", "y", f"{group.name}/thin")
    assert run("blkid", "-p", f"/dev/{group.name}/thin", check=False).returncode == 2, "it is empty"
    pool.rmdir()
