"""What tests of volume pools share: documents, a disk to spoil, and where a daemon keeps its images."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mount.control import request
from support import zfs
from support.daemon import Daemon
from support.machine import loop_devices
from support.needs import needs_fuse, needs_program, needs_root

FORMATS = ("ext4", "xfs", "btrfs")
#: For tests that are called with a `format`: those of this one get a zfs-fuse before they begin.
ALL_FORMATS = (*FORMATS, pytest.param("zfs", marks=zfs.MARKS))
NEEDS = ("blkid", "wipefs", *(f"mkfs.{name}" for name in FORMATS))
MARKS = [needs_root, needs_fuse, needs_program(*NEEDS), pytest.mark.required]

MIB = 1 << 20
#: Bytes of a volume; xfs needs 300 MiB.
SIZE, LARGER = 320 * MIB, 512 * MIB
#: include/uapi/linux/capability.h
CAP_SYS_RESOURCE = 24


def document(name: str, format: str, *, size: int | None = SIZE, source: str = "", more: str = "") -> str:
    capacity = f"<capacity>{size}</capacity>" if size is not None else ""
    source = source or f"<pool name='images'/><volume name='{name}'/>"
    return (
        f"<fspool type='volume'><name>{name}</name>{capacity}<source>{source}"
        f"<format type='{format}'/></source>{more}</fspool>"
    )


def define(daemon: Daemon, name: str, format: str, **more: object) -> Path:
    request(daemon.mount / "define", document(name, format, **more))  # type: ignore[arg-type]
    return daemon.mount / "pools" / name


def image_of(daemon: Daemon, name: str) -> Path:
    return daemon.storage / "volumes" / "images" / f"{name}.img"


def loops_of(daemon: Daemon) -> list[str]:
    return [loop.device for loop in loop_devices() if loop.file.startswith(f"{daemon.base}/")]


def root_of(pool: Path) -> Path:
    return Path(os.readlink(pool / "root"))


def may_grow_online(format: str) -> bool:
    """The kernel wants a capability for ext4 that root in a container may lack."""
    status = Path("/proc/self/status").read_text()
    capabilities = int(status.partition("CapEff:")[2].split()[0], 16)
    return format != "ext4" or bool(capabilities >> CAP_SYS_RESOURCE & 1)


def options_at(place: Path) -> list[str]:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split(" ")
        if fields[4] == str(place):
            return fields[5].split(",")
    return []
