"""Volume pools where the kernel has project quota, and root every capability: limits, and growth online."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mount.control import request, value
from support.machine import is_mounted, loop_devices
from support.shell import run
from vm.disks import space
from vm.preloaded import PreloadedDaemon

MIB = 1 << 20
SIZE, LARGER = 320 * MIB, 512 * MIB
#: Root as the container runtimes leave it.
_DROPPED = ("setpriv", "--bounding-set=-sys_resource", "--inh-caps=-sys_resource", "--")


def build(daemon: PreloadedDaemon, name: str, format: str, source: str, capacity: str = "") -> Path:
    (daemon.mount / "define").write_text(
        f"<fspool type='volume'><name>{name}</name>{capacity}"
        f"<source>{source}<format type='{format}'/></source></fspool>\n"
    )
    pool = daemon.mount / "pools" / name
    request(pool / "status", "start build")
    return pool


@pytest.mark.parametrize("format", ["ext4", "xfs"])
def test_items_of_a_volume_are_limited_and_it_grows_while_they_are_used(
    daemon: PreloadedDaemon, format: str
) -> None:
    source = f"<pool name='images'/><volume name='{format}'/>"
    pool = build(daemon, format, format, source, f"<capacity>{SIZE}</capacity>")
    assert "filesystem: project-quota" in (pool / "features").read_text()
    assert "quota: yes" in (pool / "features").read_text()
    (daemon.mount / "define").write_text(
        f"<fs><name>web</name><capacity unit='MiB'>4</capacity><source fspool='{format}'/></fs>\n"
    )
    data = (pool / "items" / "web" / "data").resolve()
    assert space(data) == 4 * MIB
    before = os.statvfs(os.readlink(pool / "root")).f_blocks
    with (data / "open").open("w"):
        request(pool / "capacity", str(LARGER))
    assert value(pool / "capacity") == str(LARGER)
    assert os.statvfs(os.readlink(pool / "root")).f_blocks > before * 1.4
    block = ("dd", "if=/dev/zero", "bs=64k", "count=128", "conv=fsync", "status=none")
    assert run(*_DROPPED, *block, f"of={data}/large", check=False).returncode
    root = Path(os.readlink(pool / "root"))
    request(pool / "status", "stop")
    assert not is_mounted(root)
    assert not [loop for loop in loop_devices() if loop.file.startswith(str(daemon.storage))]
    request(pool / "status", "start")
    assert space(data) == 4 * MIB
    request(pool / "status", "stop")
