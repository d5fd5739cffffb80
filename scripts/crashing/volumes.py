"""Images of volume pools as they lie in the storage directory, looked at without their daemon.

What makes one mkfs differ from the next is read from the superblocks themselves, so that a file system
that was made anew is told from the one that was there, mounted or not.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from support import zfs
from support.leftovers import beneath
from support.machine import Mount, loop_devices, mounts
from support.wait import eventually

#: Seconds for a loop device to go with its last user.
_PATIENCE = 30.0

#: Of ext4 (fs/ext4/ext4.h): the superblock's place, and in it uuid, s_hash_seed and s_mkfs_time.
_EXT4, _EXT4_UUID, _EXT4_SEED, _EXT4_MADE = 1024, 0x68, 0xEC, 0x108
#: Of btrfs (include/uapi/linux/btrfs_tree.h): the same, fsid and the device's own uuid, in the first
#: stripe of the array of system chunks.
_BTRFS, _BTRFS_UUID, _BTRFS_DEVICE = 1 << 16, 0x20, 0x32B + 17 + 48 + 16
#: Of xfs (fs/xfs/libxfs/xfs_format.h): block size, uuid, root inode, inode size, inodes of a block (log2),
#: and when an inode was made, in it.
_XFS = struct.Struct(">4sI24s16s8sQ40xH17xB")
_XFS_MADE, _XFS_NONE = 144, (1 << 64) - 1
#: Of zfs (include/sys/vdev_impl.h): the list of the first label, and in it two pairs in XDR (RFC 4506), whose
#: types and numbers of elements stand before the value: the name of the zpool, which ends with the uuid, and
#: the number that each gets when it is made.
_ZFS, _ZFS_SIZE = 16 << 10, 112 << 10
_ZFS_NAME = re.compile(rb"\0\0\0\x04name.{12}([\w.-]*?-)?([0-9a-f-]{36})", re.DOTALL)
_ZFS_MADE = re.compile(rb"\0\0\0\x09pool_guid\0{3}.{8}(.{8})", re.DOTALL)
#: Where the daemon mounts datasets for a moment, and what a zpool's name has behind its pool's.
_HOLD, _UUID_LENGTH = Path("/run/fspoolfs"), 37


@dataclass(frozen=True, slots=True)
class Made:
    """A file system: the UUID that it was given, and what no other mkfs would have given it."""

    uuid: UUID
    stamp: bytes


class Volumes:
    """The images of the pools below the directory `storage`."""

    def __init__(self, storage: Path) -> None:
        self._storage = storage
        self._images = storage / "volumes" / "images"
        self._markers = storage / "volumes" / ".formatting"

    def describe(self, pool: str, known: frozenset[Made]) -> str:
        """What the volume of `pool` holds; empty where there is none."""
        image = self._images / f"{pool}.img"
        if not image.exists():
            return ""
        made = _made(image)
        if made is None:
            return "nothing"
        if (self._markers / str(made.uuid)).exists():
            return "half of a file system"
        return f"a file system that was {'there' if made in known else 'made since'}"

    def complete(self) -> frozenset[Made]:
        """All file systems that came to their end."""
        found = (_made(image) for image in self._images.glob("[!.]*.img"))
        return frozenset(made for made in found if made and not (self._markers / str(made.uuid)).exists())

    def violations(self, roots: dict[str, Path | None]) -> Iterator[str]:
        """What is attached or mounted and should not be, or the other way round.

        `roots` are where the active pools are mounted, by name, and `None` for the others.
        """
        for name, root in roots.items():
            image, times = self._images / f"{name}.img", 0 if root is None else 1
            try:
                eventually(
                    lambda image=image, times=times: _attached(image) == times,  # type: ignore[misc]
                    what=f"{times} loop devices show {image}",
                    timeout=_PATIENCE,
                )
            except AssertionError as error:
                yield str(error)
        expected = sorted(str(root) for root in roots.values() if root is not None)
        places = sorted(mount.point for mount in mounts() if _is_root(mount))
        inside = [place for place in places if place.startswith(f"{self._storage}/")]
        if inside != expected:
            yield f"mounted are {inside}, and active pools have {expected}"
        yield from self._astray(roots)

    def _astray(self, roots: dict[str, Path | None]) -> Iterator[str]:
        """What of zfs is neither in the root of an active pool nor imported for one."""
        if not zfs.is_running():
            return
        found = [mount for mount in mounts() if mount.fstype in zfs.TYPES]
        points = {mount.point for mount in found}
        active = {name: root for name, root in roots.items() if root is not None and str(root) in points}
        for mount in found:
            place = Path(mount.point)
            ours = place.is_relative_to(self._storage) or place.is_relative_to(_HOLD)
            if ours and not any(map(place.is_relative_to, active.values())):
                yield f"{mount.source} is mounted at {place}"
        imported = zfs.imported()
        if sorted(name[:-_UUID_LENGTH] for name in imported) != sorted(active):
            yield f"imported are {imported}, and active pools of zfs are {sorted(active)}"

    def leftovers(self) -> Iterator[str]:
        """What there is although every pool was deleted."""
        for path in sorted((self._storage / "volumes").rglob("*")):
            if not path.is_dir():
                yield f"{path} belongs to nothing"
        try:
            eventually(lambda: not list(beneath(self._storage)), what="nothing is mounted", timeout=_PATIENCE)
        except AssertionError as error:
            yield str(error)


def size(root: Path) -> str:
    """How large the file system of a pool is; a dataset has no size of its own, but its zpool has."""
    for mount in mounts():
        if mount.point == str(root) and mount.fstype in zfs.TYPES:
            return zfs.size(mount.source.partition("/")[0])
    numbers = os.statvfs(root)
    return str(numbers.f_blocks * numbers.f_frsize)


def _is_root(mount: Mount) -> bool:
    """Whether it is the file system of a pool, and not one of its items."""
    if mount.fstype in zfs.TYPES:
        return mount.source.endswith("/root")
    return mount.source.startswith("/dev/loop")


def _attached(image: Path) -> int:
    return sum(device.file == str(image) for device in loop_devices())


def _made(image: Path) -> Made | None:
    fd = os.open(image, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return _ext4(fd) or _btrfs(fd) or _xfs(fd) or _zfs(fd)
    finally:
        os.close(fd)


def _ext4(fd: int) -> Made | None:
    block = os.pread(fd, 1024, _EXT4)
    if block[0x38:0x3A] != b"\x53\xef":
        return None
    stamp = block[_EXT4_SEED : _EXT4_SEED + 16] + block[_EXT4_MADE : _EXT4_MADE + 4]
    return Made(UUID(bytes=block[_EXT4_UUID : _EXT4_UUID + 16]), stamp)


def _btrfs(fd: int) -> Made | None:
    block = os.pread(fd, 4096, _BTRFS)
    if block[0x40:0x48] != b"_BHRfS_M":
        return None
    uuid = UUID(bytes=block[_BTRFS_UUID : _BTRFS_UUID + 16])
    return Made(uuid, block[_BTRFS_DEVICE : _BTRFS_DEVICE + 16])


def _xfs(fd: int) -> Made | None:
    block = os.pread(fd, _XFS.size, 0)
    if len(block) < _XFS.size:
        return None
    magic, size, _, uuid, _, root, inode_size, shift = _XFS.unpack(block)
    if magic != b"XFSB":
        return None
    if root == _XFS_NONE:  # mkfs is not that far
        return Made(UUID(bytes=uuid), b"")
    place = (root >> shift) * size + (root & ((1 << shift) - 1)) * inode_size
    return Made(UUID(bytes=uuid), os.pread(fd, 8, place + _XFS_MADE))


def _zfs(fd: int) -> Made | None:
    block = os.pread(fd, _ZFS_SIZE, _ZFS)
    name, made = _ZFS_NAME.search(block), _ZFS_MADE.search(block)
    if name is None or made is None:
        return None
    return Made(UUID(name[2].decode()), made[1])
