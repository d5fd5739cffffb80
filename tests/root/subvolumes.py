"""Items on btrfs, as tests make them: written to by users, with subvolumes that users make in them."""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from conformance.cases import item
from fspoolfs.backends import btrfs as backend
from fspoolfs.backends.btrfs import BtrfsFileSystem
from fspoolfs.model.definitions import ItemDefinition
from fspoolfs.system import btrfs, qgroups
from fspoolfs.system.paths import HostRoot
from support.needs import needs_program, needs_root
from support.shell import User, as_user, run

#: What a test needs that uses this.
NEEDS = [needs_root, needs_program("mkfs.btrfs", "btrfs", "mount", "umount")]

MIB = 1 << 20
ROOT, ALICE = as_user(0), as_user(1001)


def opened(directory: Path) -> Iterator[BtrfsFileSystem]:
    """What a fixture yields: the file system of a root, closed afterwards."""
    with closing(HostRoot.open(str(directory))) as root:
        found = backend.probe(root)
        assert found is not None
        yield found


def sized(mib: int | None) -> ItemDefinition:
    return replace(item(0o777), capacity=None if mib is None else mib * MIB)


def at(filesystem: BtrfsFileSystem, path: str) -> Path:
    return Path(filesystem.root.location(path))


def write(filesystem: BtrfsFileSystem, path: str, mib: int, user: User = ROOT) -> bool:
    """Write so much, to the disk; whether the kernel let it. Nothing but EDQUOT may refuse it."""
    target = f"of={at(filesystem, path)}"
    result = run("dd", "if=/dev/zero", target, "bs=1M", f"count={mib}", "conv=fsync", user=user, check=False)
    assert result.returncode == 0 or "Disk quota exceeded" in result.stderr, result.stderr
    return result.returncode == 0


def make_subvolume(filesystem: BtrfsFileSystem, path: str, user: User = ALICE) -> None:
    run("btrfs", "subvolume", "create", at(filesystem, path), user=user)


def make_escaping(filesystem: BtrfsFileSystem, path: str) -> None:
    """A subvolume that its maker asks to inherit no groups at all (BTRFS_SUBVOL_QGROUP_INHERIT)."""
    nothing = ctypes.create_string_buffer(72)
    arguments = bytearray(4096)
    struct.pack_into("=qQQQQ", arguments, 0, 0, 0, 1 << 2, 72, ctypes.addressof(nothing))
    name = os.path.basename(path).encode()
    arguments[56 : 56 + len(name)] = name
    fd = os.open(at(filesystem, path).parent, os.O_RDONLY)
    try:
        fcntl.ioctl(fd, btrfs._SUBVOL_CREATE_V2, arguments)
    finally:
        os.close(fd)


def id_of(filesystem: BtrfsFileSystem, path: str) -> int:
    with filesystem._opened(path) as fd:
        assert btrfs.is_subvolume(fd)
        return btrfs.subvolume_of(fd)


def groups(filesystem: BtrfsFileSystem) -> dict[int, qgroups.Group]:
    with filesystem._opened("") as fd:
        return qgroups.read_all(fd)


def set_read_only(filesystem: BtrfsFileSystem, path: str) -> None:
    with filesystem._opened(path) as fd:
        btrfs.set_read_only(fd, True)


def allocation(filesystem: BtrfsFileSystem, path: str) -> float:
    """What an item holds, in MiB."""
    filesystem.root.sync()
    return filesystem.usage(path).allocation / MIB
