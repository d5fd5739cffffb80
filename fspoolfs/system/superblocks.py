"""Whose file system is on a device: the few fields of the superblocks of ext4, xfs and btrfs.

Read directly, since a start must know them and asking a program for them takes longer than all the
rest. Only looks; what a device without one of these superblocks holds is told by
`fspoolfs.system.probe`.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Superblock:
    """What is formatted: the name of its type, its UUID, and how many bytes of the device it covers.

    `sector`: bytes that the blocks of its device may have at most.
    """

    type: str
    uuid: UUID
    size: int
    sector: int
    #: The kernel has met errors in it, and mounts it all the same.
    flawed: bool = False
    #: It was not unmounted: its journal is to be replayed.
    unclean: bool = False
    #: It was made for kernels with quota, and others do not mount it.
    wants_quota: bool = False


#: Of ext4 (fs/ext4/ext4.h), at byte 1024: block counts, block size, magic, state, uuid.
_EXT4_OFFSET, _EXT4_SIZE = 1024, 1024
_EXT4_MAGIC = 0xEF53
_EXT4_ERROR = 2  # EXT4_ERROR_FS of s_state
#: Of s_feature_incompat: RECOVER, 64BIT; of s_feature_ro_compat: QUOTA, PROJECT.
_EXT4_RECOVER, _EXT4_64BIT = 0x4, 0x80
_EXT4_QUOTAS = 0x100 | 0x2000
#: Of xfs (fs/xfs/libxfs/xfs_format.h), big endian: magic, block size, blocks, two sizes, uuid, sector.
_XFS = struct.Struct(">4sIQQQ16s54xH")
#: Of btrfs (include/uapi/linux/btrfs_tree.h), at 64 KiB.
_BTRFS_OFFSET, _BTRFS_SIZE = 1 << 16, 4096
_BTRFS_MAGIC = b"_BHRfS_M"
#: Where total_bytes of the device's own item (dev_item) is in it.
_BTRFS_DEVICE_SIZE = 0xC9 + 8
#: Where sectorsize is.
_BTRFS_SECTOR = 0x90


def read(fd: int) -> Superblock | None:
    """The superblock on the device or image behind `fd`; `None` where there is none of these three."""
    return _ext4(fd) or _xfs(fd) or _btrfs(fd)


def _ext4(fd: int) -> Superblock | None:
    block = os.pread(fd, _EXT4_SIZE, _EXT4_OFFSET)
    if len(block) < _EXT4_SIZE or struct.unpack_from("<H", block, 0x38)[0] != _EXT4_MAGIC:
        return None
    (low,), (shift,) = struct.unpack_from("<I", block, 0x04), struct.unpack_from("<I", block, 0x18)
    incompatible, read_only = struct.unpack_from("<II", block, 0x60)
    # The upper half counts only with INCOMPAT_64BIT.
    high = struct.unpack_from("<I", block, 0x150)[0] if incompatible & _EXT4_64BIT else 0
    (state,) = struct.unpack_from("<H", block, 0x3A)
    bits = 10 + min(shift, 6)
    return Superblock(
        "ext4",
        UUID(bytes=block[0x68:0x78]),
        size=(high << 32 | low) << bits,
        sector=1 << bits,
        flawed=bool(state & _EXT4_ERROR),
        unclean=bool(incompatible & _EXT4_RECOVER),
        wants_quota=bool(read_only & _EXT4_QUOTAS),
    )


def _xfs(fd: int) -> Superblock | None:
    block = os.pread(fd, _XFS.size, 0)
    if len(block) < _XFS.size:
        return None
    magic, block_size, blocks, _, _, uuid, sector = _XFS.unpack(block)
    return Superblock("xfs", UUID(bytes=uuid), blocks * block_size, sector) if magic == b"XFSB" else None


def _btrfs(fd: int) -> Superblock | None:
    block = os.pread(fd, _BTRFS_SIZE, _BTRFS_OFFSET)
    if len(block) < _BTRFS_SIZE or block[0x40:0x48] != _BTRFS_MAGIC:
        return None
    (size,) = struct.unpack_from("<Q", block, _BTRFS_DEVICE_SIZE)
    (sector,) = struct.unpack_from("<I", block, _BTRFS_SECTOR)
    return Superblock("btrfs", UUID(bytes=block[0x20:0x30]), size, sector)
