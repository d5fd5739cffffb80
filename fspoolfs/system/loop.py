"""Loop devices: block devices whose bytes are those of a file.

By the ioctls of include/uapi/linux/loop.h (loop(4)). A device is made so that the kernel takes it
away when nobody has it open any more, mounts included: what a killed process leaves is either in use
or gone. It is found again by the file behind it, never by a number that was remembered. Nothing here
knows what a file holds, and no device is touched whose file is not the one that was asked for.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

#: The size of a device's blocks where nothing on it needs smaller ones. Direct I/O needs that of the file
#: system below, which is this or less; and what is formatted for it can be attached on any host.
BLOCK = 4096

_CONTROL = "/dev/loop-control"
_SYSFS = "/sys/block"
#: proc(5): major, minor, blocks, name; below a heading and an empty line.
_PARTITIONS = "/proc/partitions"

_CLR_FD = 0x4C01
_GET_STATUS64 = 0x4C05
_SET_CAPACITY = 0x4C07
_CONFIGURE = 0x4C0A
_CTL_GET_FREE = 0x4C82

_AUTOCLEAR, _DIRECT_IO = 4, 16

#: struct loop_info64: device, inode, rdevice, offset, sizelimit, number, three of encryption before
#: the flags, the file's name, and what is not used any more.
_INFO = struct.Struct("=5Q4I64s64s32s2Q")
#: struct loop_config: the file's descriptor, the block size, the info, and room.
_CONFIG_HEAD = struct.Struct("=II")
_CONFIG_SIZE = _CONFIG_HEAD.size + _INFO.size + 64

#: How often a device is looked for that nobody else takes meanwhile.
_ATTEMPTS = 64


def unusable() -> str:
    """Why this process cannot attach files; empty where it can."""
    try:
        os.close(os.open(_CONTROL, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return f"{_CONTROL}: {os.strerror(error.errno or 0)}"
    return ""


def attach(file: int, block: int = BLOCK) -> int:
    """A descriptor of a device that shows the file behind `file`, which is open for reading and writing.

    Its blocks have `block` bytes, a power of two from 512 to `BLOCK`.
    The device is gone with the last descriptor or mount of it. One that shows the file already is
    not looked for: see `find`.
    """
    for _ in range(_ATTEMPTS):
        device = _open_free()
        try:
            fcntl.ioctl(device, _CONFIGURE, _configuration(file, block))
        except OSError as error:
            os.close(device)
            if error.errno == errno.EBUSY:  # taken since
                continue
            raise
        return device
    raise OSError(errno.EBUSY, "every free loop device was taken by somebody else", _CONTROL)


def _open_free() -> int:
    control = os.open(_CONTROL, os.O_RDWR | os.O_CLOEXEC)
    try:
        number = fcntl.ioctl(control, _CTL_GET_FREE)
    finally:
        os.close(control)
    return os.open(f"/dev/loop{number}", os.O_RDWR | os.O_CLOEXEC)


def _knows_direct_io(file: int, block: int) -> bool:
    """Whether the file can be read past the cache, in blocks of that size.

    Looked at, since kernels believe file systems that pass everything on to others, which may not.
    """
    try:
        direct = os.open(f"/proc/self/fd/{file}", os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        with mmap.mmap(-1, block) as buffer:
            os.preadv(direct, [buffer], 0)
    except OSError:
        return False
    finally:
        os.close(direct)
    return True


def _configuration(file: int, block: int) -> bytes:
    flags = _AUTOCLEAR | (_DIRECT_IO if _knows_direct_io(file, block) else 0)
    name = os.readlink(f"/proc/self/fd/{file}").encode("utf-8", "surrogateescape")[:63]
    info = _INFO.pack(0, 0, 0, 0, 0, 0, 0, 0, flags, name, b"", b"", 0, 0)
    return (_CONFIG_HEAD.pack(file, block) + info).ljust(_CONFIG_SIZE, b"\0")


def find(file: os.stat_result) -> int | None:
    """A descriptor of a device that shows the file with this stat; `None` when there is none."""
    for path in _attached():
        if not _may_show(path, file):
            continue
        try:
            # Closing one that was open for writing lets udev look at it anew.
            device = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:  # gone since, or nothing to look at
            continue
        if backing(device) == (file.st_dev, file.st_ino):
            return device
        os.close(device)
    return None


def is_attached(file: os.stat_result) -> bool:
    """Whether a device shows the file, asked without opening one, which would keep it alive."""
    return any(_may_show(path, file) for path in _attached())


def _attached() -> Iterator[str]:
    """The devices that have a file, from sysfs, where looking does not keep one alive."""
    for name in _with_bytes():
        if name.startswith("loop") and os.path.exists(f"{_SYSFS}/{name}/loop"):
            yield f"/dev/{name}"


def _with_bytes() -> Sequence[str]:
    """The block devices that hold anything at all, by one reading.

    Hosts have hundreds of loop devices without a file, and a look at each in sysfs takes longer than
    attaching one. What shows an empty file is left out; nothing can be mounted from that.
    """
    try:
        with open(_PARTITIONS, "rb", buffering=0) as file:
            lines = file.readall().splitlines()[2:]
    except OSError:
        return os.listdir(_SYSFS)
    return [os.fsdecode(line.rsplit(None, 1)[-1]) for line in lines]


def _may_show(path: str, file: os.stat_result) -> bool:
    """Whether the device at `path` can be one of the file, by the path that the kernel tells of its own.

    That follows renames. Where nothing is to be found there, only the device itself knows.
    """
    shown = file_behind(path)
    if shown is None:
        return False
    try:
        info = os.stat(shown)
    except OSError:
        return True
    return (info.st_dev, info.st_ino) == (file.st_dev, file.st_ino)


def file_behind(path: str) -> str | None:
    """The path of the file that the device at `path` shows, also of one that was removed since."""
    try:
        text = Path(f"{_SYSFS}/{os.path.basename(path)}/loop/backing_file").read_text()
    except OSError:
        return None
    return text.removesuffix("\n").removesuffix(" (deleted)")


def whole_file_behind(number: tuple[int, int]) -> str | None:
    """The path of the file that the device (major, minor) shows from its beginning; `None` for any other.

    Neither of a part of a file nor of one that was removed since, whose path may be another's.
    """
    directory = Path(f"/sys/dev/block/{number[0]}:{number[1]}/loop")
    try:
        file, offset = (directory / "backing_file").read_text(), (directory / "offset").read_text()
    except OSError:
        return None
    path = file.removesuffix("\n")
    return path if int(offset) == 0 and os.path.exists(path) else None


def backing(device: int) -> tuple[int, int] | None:
    """st_dev and st_ino of the file behind an open device; `None` when it has none."""
    buffer = bytearray(_INFO.size)
    try:
        fcntl.ioctl(device, _GET_STATUS64, buffer)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return None
        raise
    found = _INFO.unpack(buffer)
    return _device_number(found[0]), found[1]


def _device_number(encoded: int) -> int:
    """st_dev from the kernel's huge_encode_dev(), include/linux/kdev_t.h."""
    major = (encoded & 0xFFF00) >> 8
    minor = (encoded & 0xFF) | ((encoded >> 12) & 0xFFF00)
    return os.makedev(major, minor)


def update_size(device: int) -> None:
    """LOOP_SET_CAPACITY: the device becomes as large as its file is now."""
    fcntl.ioctl(device, _SET_CAPACITY)


def detach(device: int) -> None:
    """LOOP_CLR_FD: at once, or when the last of its other users closes it. No file is no error."""
    try:
        fcntl.ioctl(device, _CLR_FD)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
